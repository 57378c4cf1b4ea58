//! Who is let in by the brokers: SCRAM by a password, OAUTHBEARER by a file of a token; and what is known of brokers that
//! are away.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use flywheel_joiner::source::{Source, SourceConfig, SourceEvent};
use flywheel_schemas::registry::{Registry, RegistryConfig};
use flywheel_sidecar::forward::{Destination, Forwarder, LogConfig, Remaining, Topics, Watcher};
use flywheel_sidecar::record::{Envelope, RecordKind};
use flywheel_spool::{Options, Spool};
use flywheel_tests::servers::{Kafka, skipped};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::schemas;

const SCHEMA: &str = r#"{"type":"record","name":"r","fields":[]}"#;
const CONTRACT: &str = "apiVersion: flywheel/v1\nkind: ModelContract\nmodel: m\nversion: 1\n";
const PASSWORD: &str = "open-sesame-7351";
const BOUND: Duration = Duration::from_secs(120);

struct Nobody;

impl Watcher for Nobody {}

fn options(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn scram(password: &str) -> BTreeMap<String, String> {
    options(&[
        ("security.protocol", "SASL_PLAINTEXT"),
        ("sasl.mechanism", "SCRAM-SHA-256"),
        ("sasl.username", "ops"),
        ("sasl.password", password),
    ])
}

fn bearer(file: &Path) -> BTreeMap<String, String> {
    options(&[
        ("security.protocol", "SASL_PLAINTEXT"),
        ("sasl.mechanism", "OAUTHBEARER"),
        ("sasl.oauthbearer.config", &format!("token_file={}", file.display())),
    ])
}

/// An unsigned JSON web token.
pub fn token(bearer: &str, lifetime_s: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let claims = format!(r#"{{"sub":"{bearer}","iat":{now},"exp":{}}}"#, now + lifetime_s);
    format!("{}.{}.", base64url(r#"{"alg":"none"}"#), base64url(&claims))
}

/// RFC 4648, section 5, without padding.
pub fn base64url(text: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut out = String::new();
    for three in text.as_bytes().chunks(3) {
        let bits = three.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        for digit in 0..=three.len() {
            out.push(char::from(DIGITS[(bits >> (18 - 6 * digit)) as usize & 63]));
        }
    }
    out
}

/// A spool and the forwarder that empties it.
struct Sender {
    spool: Spool,
    destination: Destination,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Remaining>,
}

impl Sender {
    async fn start(dir: &Path, servers: &str, librdkafka: BTreeMap<String, String>) -> Sender {
        let url = format!("file:{}", dir.join("registry").display());
        let registry = Registry::open(&RegistryConfig { url, ..RegistryConfig::default() }).unwrap();
        let config =
            LogConfig { url: format!("kafka://{servers}"), prefix: "p".into(), librdkafka, ..LogConfig::default() };
        let destination = Destination::open(&config).await.unwrap();
        let spool = Spool::open(&dir.join("spool"), Options::default()).unwrap();
        let topics = Topics::model("p", "m");
        let forwarder = Forwarder::new(spool.clone(), topics, registry, true, &destination, Arc::new(Nobody));
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(forwarder.run(async { drop(stopped.await) }, BOUND));
        Sender { spool, destination, stop, task }
    }

    async fn put(&self, key: &str) {
        let schema = self.spool.add_schema(SCHEMA).unwrap();
        let envelope = Envelope {
            kind: RecordKind::Prediction,
            time_ms: 0,
            producer_id: [9; 16],
            producer_seq: 1,
            key: key.as_bytes(),
            event_id: key.as_bytes(),
            traceparent: None,
            datum: b"",
        };
        self.spool.append(schema, |_, out| envelope.write(out)).unwrap().await.unwrap();
    }

    async fn until_away(&self, away: bool) {
        let brokers = self.destination.brokers().unwrap();
        let waiting = async {
            while brokers.are_away() != away {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        assert!(tokio::time::timeout(BOUND, waiting).await.is_ok(), "brokers away: never {away}");
    }

    async fn finish(self) {
        self.stop.send(()).unwrap();
        assert_eq!(self.task.await.unwrap(), Remaining { records: 0 });
    }
}

/// The keys that a joiner reads from the predictions, once there are `count`.
async fn read(servers: &str, group: &str, librdkafka: BTreeMap<String, String>, count: usize) -> Vec<String> {
    let url = format!("kafka://{servers}");
    let config = SourceConfig { url, prefix: "p".into(), group: group.into(), librdkafka, ..SourceConfig::default() };
    let mut source = Source::open(&config).await.unwrap();
    let reading = async {
        let partition = loop {
            match source.next().await {
                SourceEvent::Assigned { partitions, .. } => break partitions[0],
                SourceEvent::Revoked { .. } => {}
                SourceEvent::Failed(error) => panic!("{error}"),
            }
        };
        let mut feed = source.feed("m").unwrap();
        feed.assign(flywheel_joiner::source::Kind::Predictions, partition, 0).unwrap();
        let mut keys = Vec::new();
        while keys.len() < count {
            let records = feed.poll(100, Duration::from_millis(200)).await.unwrap();
            keys.extend(records.into_iter().map(|it| String::from_utf8(it.key.unwrap().to_vec()).unwrap()));
        }
        keys
    };
    let keys = tokio::time::timeout(BOUND, reading).await.expect("the records");
    source.close().await;
    keys
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_and_a_token_file_let_in_and_an_absence_is_known() {
    if skipped("a_password_and_a_token_file_let_in_and_an_absence_is_known") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (mut kafka, by_password, by_token) = Kafka::start_with_sasl(dir.path(), "ops", PASSWORD).unwrap();
    let path = |name: &str| dir.path().join(name);
    std::fs::write(path("m.yaml"), CONTRACT).unwrap();
    std::fs::create_dir(path("subjects")).unwrap();

    // The set-up of topics, by SCRAM; its secrets stand in a file.
    let register = |password: &str, more: &[&str]| {
        let lines: Vec<String> = scram(password).iter().map(|(key, value)| format!("{key}={value}")).collect();
        std::fs::write(path("kafka.options"), lines.join("\n")).unwrap();
        let (file, registry) = (path("m.yaml").display().to_string(), format!("file:{}", path("subjects").display()));
        let options = path("kafka.options").display().to_string();
        let fixed = ["register", &file, "--registry", &registry, "--prefix", "p", "--partitions", "1"];
        let said = schemas(&[&fixed[..], &["--kafka", &by_password, "--librdkafka-file", &options], more].concat());
        assert!(!format!("{said:?}").contains(password), "a secret is told: {said:?}");
        said
    };
    let said = register("not-the-word-9042", &[]);
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(said.err.contains("uthentication failed"), "{said:?}");
    let said = register(PASSWORD, &["-X", "sasl.mechanism=OAUTHBEARER"]);
    assert!(said.code == Some(2) && said.err.contains("cannot be set up over OAUTHBEARER"), "{said:?}");
    let said = register(PASSWORD, &[]);
    assert_eq!(said.code, Some(0), "{said:?}");

    let sender = Sender::start(&path("one"), &by_password, scram(PASSWORD)).await;
    sender.put("by-password").await;
    sender.finish().await;
    assert_eq!(read(&by_password, "by-password", scram(PASSWORD), 1).await, ["by-password"]);

    // A file that has no token yet keeps the records waiting; one that has is read without a restart.
    std::fs::write(path("token"), "").unwrap();
    let sender = Sender::start(&path("two"), &by_token, bearer(&path("token"))).await;
    sender.put("by-token").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(sender.spool.cursor().sequence, 0, "nothing goes without a token");
    std::fs::write(path("token"), token("ops", 3_600)).unwrap();
    let sent = async {
        while sender.spool.cursor().sequence == 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    assert!(tokio::time::timeout(BOUND, sent).await.is_ok(), "the token is never read");
    assert_eq!(read(&by_token, "by-token", bearer(&path("token")), 2).await, ["by-password", "by-token"]);

    // Brokers that go are known to be away, and known to be back though nothing is sent.
    sender.until_away(false).await;
    kafka.kill().unwrap();
    sender.until_away(true).await;
    kafka.restart().unwrap();
    sender.until_away(false).await;
    sender.finish().await;
}
