//! A broker that lets in who proves who they are, over TLS, and allows each only what it was allowed.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Kafka, Server, ServerError, free_port};

/// A certificate authority in a folder: `ca.pem`, and what it has signed.
pub struct Authority {
    dir: PathBuf,
}

impl Authority {
    /// Makes one by `openssl`.
    pub fn new(dir: &Path) -> Result<Authority, ServerError> {
        std::fs::create_dir_all(dir).map_err(ServerError::Folder)?;
        let authority = Authority { dir: dir.to_owned() };
        authority.openssl(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj /CN=authority \
             -addext basicConstraints=critical,CA:TRUE -keyout ca.key -out ca.pem",
        )?;
        Ok(authority)
    }

    pub fn certificate(&self) -> PathBuf {
        self.dir.join("ca.pem")
    }

    /// The files of a certificate for this name and address 127.0.0.1, and of its key.
    pub fn sign(&self, name: &str) -> Result<(PathBuf, PathBuf), ServerError> {
        self.openssl(&format!(
            "req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN={name} \
             -addext subjectAltName=IP:127.0.0.1 -keyout {name}.key -out {name}.csr"
        ))?;
        self.openssl(&format!(
            "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 3650 -copy_extensions copy \
             -out {name}.pem"
        ))?;
        Ok((self.dir.join(format!("{name}.pem")), self.dir.join(format!("{name}.key"))))
    }

    fn openssl(&self, arguments: &str) -> Result<(), ServerError> {
        let run = |source| ServerError::Run { script: "openssl (Debian: apt-get install openssl)".to_owned(), source };
        let arguments = arguments.split_whitespace();
        let said = Command::new("openssl").args(arguments).current_dir(&self.dir).output().map_err(run)?;
        match said.status.success() {
            true => Ok(()),
            false => Err(ServerError::Start(String::from_utf8_lossy(&said.stderr).into_owned())),
        }
    }
}

/// The broker. Over its first listener, which asks for nothing, everything is allowed; over the others nothing that was
/// not allowed to `User:…` by [`Kafka::admin`].
pub struct Secured {
    pub kafka: Kafka,
    /// Its certificate's authority.
    pub authority: Authority,
    /// SASL_SSL with SCRAM-SHA-512; a session lasts for some seconds and is then proven anew.
    pub scram: String,
    /// SASL_SSL with OAUTHBEARER, which takes any unsigned JSON web token that has not expired; sessions likewise.
    pub token: String,
    /// SSL with a client's certificate, whose user is `User:CN=…`.
    pub mutual: String,
}

impl Secured {
    /// Starts one that knows `user` with `password` by SCRAM.
    pub fn start(dir: &Path, user: &str, password: &str) -> Result<Secured, ServerError> {
        let authority = Authority::new(&dir.join("authority"))?;
        let (certificate, key) = authority.sign("broker")?;
        let dir = dir.join("kafka");
        std::fs::create_dir_all(&dir).map_err(ServerError::Folder)?;
        // The key and its certificate in one file, as the broker wants them.
        let read = |path: &Path| std::fs::read_to_string(path).map_err(ServerError::Folder);
        let broker = dir.join("broker.pem");
        std::fs::write(&broker, read(&key)? + &read(&certificate)?).map_err(ServerError::Folder)?;
        let settings = SETTINGS
            .replace("BROKER", &broker.display().to_string())
            .replace("AUTHORITY", &authority.certificate().display().to_string());
        std::fs::write(dir.join("extra.properties"), settings).map_err(ServerError::Folder)?;
        let [scram, token, mutual] = [free_port()?, free_port()?, free_port()?].map(|port| format!("127.0.0.1:{port}"));
        let environment = vec![
            ("KAFKA_LISTENERS".to_owned(), format!("SCRAM://{scram},TOKEN://{token},MUTUAL://{mutual}")),
            ("KAFKA_FORMAT_ARGS".to_owned(), format!("--add-scram SCRAM-SHA-512=[name={user},password={password}]")),
        ];
        let kafka = Server::start("kafka.sh", dir, vec![], environment).map(Kafka)?;
        Ok(Secured { kafka, authority, scram, token, mutual })
    }
}

const SETTINGS: &str = "
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SCRAM:SASL_SSL,TOKEN:SASL_SSL,MUTUAL:SSL
ssl.keystore.type=PEM
ssl.keystore.location=BROKER
ssl.truststore.type=PEM
ssl.truststore.location=AUTHORITY
listener.name.mutual.ssl.client.auth=required
listener.name.scram.sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.scram.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.scram.scram-sha-512.connections.max.reauth.ms=4000
listener.name.token.sasl.enabled.mechanisms=OAUTHBEARER
listener.name.token.oauthbearer.sasl.jaas.config=\\
org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub=\"broker\";
listener.name.token.oauthbearer.connections.max.reauth.ms=60000
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
";
