//! A sidecar within the test's process, and a look into its spools.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use flywheel_schemas::log::{self, Folder, LogRecord};
use flywheel_schemas::wire;
use flywheel_sidecar::record::{Envelope, RecordKind};
use flywheel_sidecar::{App, Config, Handle, Stopped};
use flywheel_spool::Reader;
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::client::{Client, eventually};

pub const CONTRACT: &str = "
apiVersion: flywheel/v1
kind: ModelContract
model: flights
version: 1
features:
  dep_delay_min: {type: int, required: true, expect: {min: -60, max: 2000}}
  carrier: {type: string}
prediction: {late: {type: double, required: true}}
labels:
  landed: {type: boolean, window: 12h, lateness: 1h, aggregate: any, default: false}
";

pub const PREDICTIONS: &str = "/v1/models/flights/predictions";
pub const OUTCOMES: &str = "/v1/models/flights/outcomes";
pub const TIME: &str = "/v1/models/flights/time";

/// A body that keeps [`CONTRACT`].
pub fn prediction(delay: i32) -> String {
    format!(
        r#"{{"model_version":"m1","features":{{"dep_delay_min":{delay},"carrier":"UA"}},"prediction":{{"late":0.25}}}}"#
    )
}

pub fn outcome(prediction_id: &str) -> String {
    format!(r#"{{"prediction_id":"{prediction_id}","labels":{{"landed":true}}}}"#)
}

/// A directory with contracts, and the settings of a sidecar in it.
pub struct Place {
    pub dir: TempDir,
    pub config: Config,
}

impl Place {
    pub fn new() -> Place {
        let dir = tempfile::tempdir().unwrap();
        let contracts = dir.path().join("contracts");
        std::fs::create_dir(&contracts).unwrap();
        let mut config = Config::default();
        config.listen.tcp = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
        config.listen.uds = Some(dir.path().join("api.sock"));
        config.listen.admin = SocketAddr::from(([127, 0, 0, 1], 0));
        config.contracts.dir = contracts;
        config.spool.dir = dir.path().join("spool");
        config.log.url = format!("file:{}", dir.path().join("log").display());
        config.registry.url = format!("file:{}", dir.path().join("registry").display());
        config.registry.auto_register = true;
        let place = Place { dir, config };
        place.contract("flights.yaml", CONTRACT);
        place
    }

    pub fn contract(&self, file: &str, text: &str) {
        std::fs::write(self.config.contracts.dir.join(file), text).unwrap();
    }

    pub fn uds(&self) -> &Path {
        self.config.listen.uds.as_deref().unwrap()
    }

    pub fn spool(&self, name: &str) -> PathBuf {
        self.config.spool.dir.join(name)
    }

    pub async fn start(&self) -> Sidecar {
        let app = App::build(self.config.clone()).await.unwrap();
        let (address, admin, handle) = (app.address(), app.admin_address(), app.handle());
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(app.run(async {
            let _ = stopped.await;
        }));
        Sidecar { address, admin, handle, stop, task }
    }

    /// The dead letters, once there are as many: an answer does not wait for them.
    pub async fn letters(&self, count: usize) -> Vec<Entry> {
        eventually("the dead letters are there", async || self.records("_deadletter").len() >= count).await;
        let letters = self.records("_deadletter");
        assert_eq!(letters.len(), count);
        letters
    }

    /// What the log holds of a topic, by partition and in order there: per record its key, its CloudEvents id, the id of
    /// its producer and its number.
    pub fn logged(&self, topic: &str) -> Vec<Logged> {
        let folder = Folder::new(&self.dir.path().join("log"));
        let mut logged = Vec::new();
        for partition in 0..folder.partition_count(topic).unwrap().unwrap_or(0) {
            let mut reader = Reader::open(&folder.partition_dir(topic, partition), 0).unwrap();
            loop {
                let records = reader.read(1 << 20).unwrap();
                if records.is_empty() {
                    break;
                }
                logged.extend(records.iter().map(|record| Logged::of(&log::decode(&record.payload).unwrap())));
            }
        }
        logged
    }

    /// What the spool of this name holds, in order.
    pub fn records(&self, name: &str) -> Vec<Entry> {
        let mut reader = Reader::open(&self.spool(name), 0).unwrap();
        let mut entries = Vec::new();
        loop {
            let records = reader.read(1 << 20).unwrap();
            if records.is_empty() {
                return entries;
            }
            entries.extend(records.iter().map(|record| Entry::of(&Envelope::read(&record.payload).unwrap())));
        }
    }
}

/// A running sidecar.
pub struct Sidecar {
    pub address: SocketAddr,
    pub admin: SocketAddr,
    pub handle: Handle,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Stopped>,
}

impl Sidecar {
    pub async fn stop(self) -> Stopped {
        let _ = self.stop.send(());
        self.task.await.unwrap()
    }

    pub async fn client(&self) -> Client {
        Client::tcp(self.address).await
    }

    /// The value of a line of the metrics; 0 where there is none.
    pub async fn metric(&self, line: &str) -> f64 {
        let text = Client::tcp(self.admin).await.get("/metrics").await.text();
        let value = text.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(' '));
        value.map_or(0.0, |value| value.parse().unwrap())
    }
}

/// A record of the log, for assertions.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Logged {
    pub producer_id: String,
    pub seq: String,
    pub key: String,
    pub id: String,
}

impl Logged {
    fn of(record: &LogRecord<'_>) -> Logged {
        let header = |name: &str| {
            let value = record.headers.clone().find(|(found, _)| *found == name).and_then(|(_, value)| value);
            String::from_utf8(value.unwrap_or_default().to_vec()).unwrap()
        };
        assert!(wire::unframe(record.value.unwrap()).is_some());
        Logged {
            producer_id: header(wire::PRODUCER_ID),
            seq: header(wire::PRODUCER_SEQ),
            key: String::from_utf8(record.key.unwrap().to_vec()).unwrap(),
            id: header("ce_id"),
        }
    }
}

/// An envelope, for assertions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub kind: RecordKind,
    pub time_ms: i64,
    pub producer_id: [u8; 16],
    pub seq: u64,
    pub key: String,
    pub id: String,
    pub traceparent: Option<String>,
    pub datum: Vec<u8>,
}

impl Entry {
    fn of(envelope: &Envelope<'_>) -> Entry {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        Entry {
            kind: envelope.kind,
            time_ms: envelope.time_ms,
            producer_id: envelope.producer_id,
            seq: envelope.producer_seq,
            key: text(envelope.key),
            id: text(envelope.event_id),
            traceparent: envelope.traceparent.map(text),
            datum: envelope.datum.to_vec(),
        }
    }

    pub fn holds(&self, text: &str) -> bool {
        self.datum.windows(text.len()).any(|window| window == text.as_bytes())
    }
}
