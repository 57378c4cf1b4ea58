//! Real servers, started from the scripts in `tests/servers/` on free ports with their data in a folder of their own.
//!
//! A server lives as long as its value here, and never longer than this process: its script holds it until the pipe
//! between the two closes, which it does however the process ends. [`Server::kill`] and [`Server::restart`] are for
//! tests of what happens without it: the data and the port stay.
//!
//! Where something is missing to run a server (Java, Maven, Go, Python), the error is the one line in which the script
//! says what to install. [`skipped`] tells whether the person who runs the tests has asked for them to be left out.

mod cluster;
mod port;
mod secured;
mod set;

use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

pub use cluster::Cluster;
pub use port::free_port;
pub use secured::{Authority, Secured};
pub use set::{Set, shared, skipped};

#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error("cannot run {script}: {source}")]
    Run { script: String, source: io::Error },
    /// What the script says, which is what to install or the end of the server's log.
    #[error("{0}")]
    Start(String),
    #[error("cannot make a folder for a server: {0}")]
    Folder(io::Error),
    #[error("no free port between {0} and {1}")]
    NoPort(u16, u16),
}

/// Lines of a dead server's log that are shown.
const OBITUARY_LINES: usize = 40;

/// The folder of the server scripts.
pub fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("servers")
}

/// One running server and what its script needs to start it again.
pub struct Server {
    script: &'static str,
    dir: PathBuf,
    port: u16,
    options: Vec<String>,
    environment: Vec<(String, String)>,
    address: String,
    holder: Child,
}

impl Server {
    /// Starts `script` with its data in `dir`; returns once it answers. The first start on a machine downloads it.
    fn start(
        script: &'static str,
        dir: PathBuf,
        options: Vec<String>,
        environment: Vec<(String, String)>,
    ) -> Result<Server, ServerError> {
        Server::start_on(script, dir, free_port()?, options, environment)
    }

    fn start_on(
        script: &'static str,
        dir: PathBuf,
        port: u16,
        options: Vec<String>,
        environment: Vec<(String, String)>,
    ) -> Result<Server, ServerError> {
        std::fs::create_dir_all(&dir).map_err(ServerError::Folder)?;
        let (holder, address) = hold(script, &dir, port, &options, &environment)?;
        Ok(Server { script, dir, port, options, environment, address, holder })
    }

    /// What the script printed: `host:port` or a URL.
    pub fn address(&self) -> &str {
        &self.address
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its data, its `log` and its `pid`.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Why it does not answer any more, with the end of its log; none while its port is open.
    pub fn obituary(&self) -> Option<String> {
        if std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
            return None;
        }
        let log = std::fs::read(self.dir.join("log")).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        let end = lines[lines.len().saturating_sub(OBITUARY_LINES)..].join("\n");
        Some(format!("{} does not listen on port {} any more; its log ends with\n{end}", self.script, self.port))
    }

    /// SIGKILL, at whatever instruction it is. The port is free and the data as the kill left it.
    pub fn kill(&mut self) -> Result<(), ServerError> {
        let pid = std::fs::read_to_string(self.dir.join("pid")).map_err(ServerError::Folder)?;
        signal("KILL", pid.trim())?;
        self.release();
        Ok(())
    }

    /// Stops it in good order; the data stays.
    pub fn stop(&mut self) {
        self.release();
    }

    /// Starts it again on the same port with the data it left.
    pub fn restart(&mut self) -> Result<(), ServerError> {
        self.release();
        (self.holder, self.address) = hold(self.script, &self.dir, self.port, &self.options, &self.environment)?;
        Ok(())
    }

    /// Closes the pipe and waits for the script, which has bounds of its own for a server that does not stop.
    fn release(&mut self) {
        drop(self.holder.stdin.take());
        if let Err(error) = self.holder.wait() {
            eprintln!("{}: cannot wait for it to stop: {error}", self.script);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.release();
    }
}

/// Sends a signal (`KILL`, `TERM`, `STOP`, `CONT`) to a process.
pub fn signal(name: &str, pid: &str) -> Result<(), ServerError> {
    let run = |source| ServerError::Run { script: "kill".to_owned(), source };
    let status = Command::new("sh").args(["-c", &format!("kill -{name} {pid}")]).status().map_err(run)?;
    if status.success() { Ok(()) } else { Err(ServerError::Start(format!("no process {pid} to send {name} to"))) }
}

fn hold(
    script: &str,
    dir: &Path,
    port: u16,
    options: &[String],
    environment: &[(String, String)],
) -> Result<(Child, String), ServerError> {
    let path = scripts().join(script);
    let run = |source| ServerError::Run { script: path.display().to_string(), source };
    let mut holder = Command::new(&path)
        .arg("hold")
        .arg(dir)
        .arg(port.to_string())
        .args(options)
        .envs(environment.iter().map(|(key, value)| (key, value)))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(run)?;
    let mut address = String::new();
    if let Some(stdout) = holder.stdout.take() {
        BufReader::new(stdout).read_line(&mut address).map_err(run)?;
    }
    if !address.is_empty() {
        return Ok((holder, address.trim().to_owned()));
    }
    // The scripts wait with bounds and then say why, so this ends.
    let mut said = String::new();
    if let Some(mut stderr) = holder.stderr.take() {
        stderr.read_to_string(&mut said).map_err(run)?;
    }
    let status = holder.wait().map_err(run)?;
    Err(ServerError::Start(if said.is_empty() { format!("{script}: {status}") } else { said.trim_end().to_owned() }))
}

/// Names each server as its own type, so that a test says which one it takes away.
macro_rules! server {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        pub struct $name(Server);

        impl std::ops::Deref for $name {
            type Target = Server;
            fn deref(&self) -> &Server {
                &self.0
            }
        }

        impl std::ops::DerefMut for $name {
            fn deref_mut(&mut self) -> &mut Server {
                &mut self.0
            }
        }
    };
}

server!(
    /// An Apache Kafka broker; the address is `host:port`.
    Kafka
);
server!(
    /// A schema registry; the address is its base URL.
    Registry
);
server!(
    /// An S3 store with the bucket `warehouse`; the address is its endpoint.
    S3
);
server!(
    /// An Iceberg REST catalog over an S3 store; the address is its URI.
    RestCatalog
);
server!(
    /// A Trino whose catalog `iceberg` is a REST catalog; the address is its URL.
    Trino
);

/// The keys of the S3 store.
pub const S3_ACCESS_KEY: &str = "test";
pub const S3_SECRET_KEY: &str = "testsecret";
pub const S3_REGION: &str = "us-east-1";

fn keys() -> Vec<(String, String)> {
    vec![("S3_ACCESS_KEY".to_owned(), S3_ACCESS_KEY.to_owned()), ("S3_SECRET_KEY".to_owned(), S3_SECRET_KEY.to_owned())]
}

impl Kafka {
    /// Has the broker's administrator do what `KafkaAdmin.java` lists.
    pub fn admin(&self, arguments: &[&str]) -> Result<(), ServerError> {
        let path = scripts().join("kafka.sh");
        let run = |source| ServerError::Run { script: path.display().to_string(), source };
        let said = Command::new(&path).args(["admin", self.address()]).args(arguments).output().map_err(run)?;
        match said.status.success() {
            true => Ok(()),
            false => Err(ServerError::Start(String::from_utf8_lossy(&said.stdout).into_owned())),
        }
    }

    pub fn start(dir: &Path) -> Result<Kafka, ServerError> {
        Server::start("kafka.sh", dir.join("kafka"), vec![], vec![]).map(Kafka)
    }

    /// One with one more listener, whose clients are sent to `127.0.0.1:proxy`: whoever listens there is to pass on to the
    /// address that follows.
    pub fn start_behind(dir: &Path, proxy: u16) -> Result<(Kafka, String), ServerError> {
        let dir = dir.join("kafka");
        std::fs::create_dir_all(&dir).map_err(ServerError::Folder)?;
        let (port, behind) = (free_port()?, free_port()?);
        let settings = format!(
            "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,BEHIND:PLAINTEXT\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:{port},BEHIND://127.0.0.1:{proxy}\n"
        );
        std::fs::write(dir.join("extra.properties"), settings).map_err(ServerError::Folder)?;
        let environment = vec![("KAFKA_LISTENERS".to_owned(), format!("BEHIND://127.0.0.1:{behind}"))];
        let kafka = Server::start_on("kafka.sh", dir, port, vec![], environment).map(Kafka)?;
        Ok((kafka, format!("127.0.0.1:{behind}")))
    }

    /// One with two more listeners, whose addresses follow it: by SCRAM-SHA-256 it knows `user` with `password`, by
    /// OAUTHBEARER it takes any unsigned JSON web token that has not expired.
    pub fn start_with_sasl(dir: &Path, user: &str, password: &str) -> Result<(Kafka, String, String), ServerError> {
        let dir = dir.join("kafka");
        std::fs::create_dir_all(&dir).map_err(ServerError::Folder)?;
        std::fs::write(dir.join("extra.properties"), SASL).map_err(ServerError::Folder)?;
        let (scram, token) = (free_port()?, free_port()?);
        let environment = [
            ("KAFKA_LISTENERS", format!("SCRAM://127.0.0.1:{scram},TOKEN://127.0.0.1:{token}")),
            ("KAFKA_FORMAT_ARGS", format!("--add-scram SCRAM-SHA-256=[name={user},password={password}]")),
        ];
        let environment = environment.map(|(key, value)| (key.to_owned(), value)).to_vec();
        let kafka = Server::start("kafka.sh", dir, vec![], environment).map(Kafka)?;
        Ok((kafka, format!("127.0.0.1:{scram}"), format!("127.0.0.1:{token}")))
    }
}

/// What the listeners of [`Kafka::start_with_sasl`] ask for.
const SASL: &str = "
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SCRAM:SASL_PLAINTEXT,TOKEN:SASL_PLAINTEXT
listener.name.scram.sasl.enabled.mechanisms=SCRAM-SHA-256
listener.name.scram.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.token.sasl.enabled.mechanisms=OAUTHBEARER
listener.name.token.oauthbearer.sasl.jaas.config=\\
org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub=\"broker\";
";

impl Registry {
    pub fn start(dir: &Path) -> Result<Registry, ServerError> {
        Server::start("registry.sh", dir.join("registry"), vec![], vec![]).map(Registry)
    }

    /// One that speaks HTTPS alone and asks for basic authentication; clients trust [`Registry::certificate`].
    pub fn start_with_password(dir: &Path, user: &str, password: &str) -> Result<Registry, ServerError> {
        let environment = vec![
            ("REGISTRY_AUTH".to_owned(), format!("{user}:{password}")),
            ("REGISTRY_TLS".to_owned(), "1".to_owned()),
        ];
        Server::start("registry.sh", dir.join("registry"), vec![], environment).map(Registry)
    }

    /// The file with the PEM certificate of one that was started with TLS.
    pub fn certificate(&self) -> PathBuf {
        self.dir().join("ca.pem")
    }
}

impl S3 {
    pub fn start(dir: &Path) -> Result<S3, ServerError> {
        Server::start("s3.sh", dir.join("s3"), vec![], keys()).map(S3)
    }
}

impl RestCatalog {
    pub fn start(dir: &Path, s3: &S3) -> Result<RestCatalog, ServerError> {
        let options = vec!["--s3".to_owned(), s3.address().to_owned()];
        Server::start("rest-catalog.sh", dir.join("catalog"), options, keys()).map(RestCatalog)
    }
}

impl Trino {
    pub fn start(dir: &Path, catalog: &RestCatalog, s3: &S3) -> Result<Trino, ServerError> {
        let options = ["--catalog", catalog.address(), "--s3", s3.address()].map(str::to_owned).to_vec();
        Server::start("trino.sh", dir.join("trino"), options, keys()).map(Trino)
    }
}
