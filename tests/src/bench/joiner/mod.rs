//! What the benchmarks of the joiner stand on: a model of 30 declared columns, its registry and its tables in a folder,
//! and a joiner whose steps are taken one by one over records that lie in memory.

mod plain;

pub mod commit;
pub mod fill;
pub mod land;
pub mod seal;
pub mod state;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use flywheel_joiner::source::Record;
use flywheel_joiner::{Config, Steps};
use flywheel_schemas::contract::Contract;
use flywheel_schemas::log::{self, Folder};
use flywheel_schemas::register;
use flywheel_schemas::registry::{Registry, RegistryConfig};
use flywheel_schemas::wire::{self, Kind};
use flywheel_schemas::{id, partition};
use flywheel_sidecar::transcode::{self, Plan, Receipt, Scratch};
use flywheel_spool::{Options, SchemaKey, Spool};
use tempfile::TempDir;

use super::transcode::Random;

const MODEL: &str = "bench";
const PREFIX: &str = "flywheel";
pub const PARTITIONS: i32 = 4;
/// 2013-01-01T10:00:00Z, a tick of any grid.
pub const START_MS: i64 = 1_357_034_400_000;
pub const MINUTE_MS: i64 = 60_000;

/// How long outcomes count and are waited for, and when is sealed.
pub struct Times {
    pub window: &'static str,
    pub lateness: &'static str,
    pub grid: &'static str,
    pub drain: &'static str,
}

/// A row is sealed 70 minutes after its event time.
pub const HOUR: Times = Times { window: "1h", lateness: "10m", grid: "5m", drain: "10m" };

/// 30 declared columns: 10 of text, 15 double, 3 long and one each of boolean and float.
pub fn contract(times: &Times) -> Result<Contract, Box<dyn Error>> {
    let Times { window, lateness, grid, drain } = times;
    let doubles: String = (0..14).map(|place| format!("  f{place:02}: {{type: double}}\n")).collect();
    let text = format!(
        "apiVersion: flywheel/v1\nkind: ModelContract\nmodel: {MODEL}\nversion: 1\n\
         entity:\n  user_id: {{type: string}}\n\
         features:\n  endpoint: {{type: string}}\n  host: {{type: string}}\n  country: {{type: string}}\n  \
         currency: {{type: string}}\n  device: {{type: string}}\n  build: {{type: string}}\n{doubles}  \
         request_bytes: {{type: long}}\n  attempt: {{type: long}}\n  age_days: {{type: long}}\n  \
         is_new: {{type: boolean}}\n  amount: {{type: float}}\n\
         prediction:\n  score: {{type: double, required: true}}\n\
         decision:\n  action: {{type: string}}\n\
         context:\n  session: {{type: string}}\n  span: {{type: string}}\n\
         labels:\n  good: {{type: boolean, window: {window}, lateness: {lateness}, aggregate: any, default: false}}\n\
         seal: {{when: all_closed, grid: {grid}, drain: {drain}, horizon: 1d}}\n"
    );
    let faults = |faults: Vec<_>| faults.iter().map(ToString::to_string).collect::<Vec<String>>().join("\n");
    Ok(Contract::parse(&text).map_err(faults)?)
}

/// Makes the values of records, by the code of the sidecar.
pub struct Writer {
    pub plan: Plan,
    /// Of predictions and outcomes.
    pub schema_ids: [u32; 2],
}

impl Writer {
    pub fn new(contract: Arc<Contract>, schema_ids: [u32; 2]) -> Result<Writer, Box<dyn Error>> {
        Ok(Writer { plan: Plan::compile(contract)?, schema_ids })
    }

    /// A prediction of that instant with its id; the values follow from the number.
    pub fn prediction(
        &self,
        scratch: &mut Scratch,
        number: u64,
        event_ms: i64,
    ) -> Result<(String, Bytes), Box<dyn Error>> {
        let mut random = Random(number);
        let mut bits = [0; 10];
        bits[..8].copy_from_slice(&random.next().to_be_bytes());
        let id = id::from_parts(event_ms, bits).to_string();
        let body = prediction_body(&id, event_ms, &mut random);
        let mut datum = wire::frame(self.schema_ids[0]).to_vec();
        transcode::prediction(&self.plan, scratch, body.as_bytes(), &receipt(event_ms), &mut datum)
            .map_err(|faults| format!("{}: {}", faults[0].pointer, faults[0].detail))?;
        Ok((id, datum.into()))
    }

    /// A statement about a prediction.
    pub fn outcome(
        &self,
        scratch: &mut Scratch,
        id: &str,
        is_good: bool,
        event_ms: i64,
    ) -> Result<Bytes, Box<dyn Error>> {
        let time_us = event_ms * 1000;
        let body = format!(r#"{{"prediction_id":"{id}","labels":{{"good":{is_good}}},"event_time":{time_us}}}"#);
        let mut datum = wire::frame(self.schema_ids[1]).to_vec();
        transcode::outcome(&self.plan, scratch, body.as_bytes(), &receipt(event_ms), &mut datum)
            .map_err(|faults| format!("{}: {}", faults[0].pointer, faults[0].detail))?;
        Ok(datum.into())
    }
}

fn receipt(now_ms: i64) -> Receipt<'static> {
    Receipt { now_ms, trace_id: None }
}

/// A folder with everything, and the joiner over it.
pub struct Stand {
    pub dir: TempDir,
    pub joiner: Steps,
    pub writer: Writer,
}

impl Stand {
    pub async fn open() -> Result<Stand, Box<dyn Error>> {
        let dir = tempfile::tempdir()?;
        let contract = contract(&HOUR)?;
        make_log(&dir.path().join("log"))?;
        let config = config(dir.path());
        let url = config.registry.url.clone();
        let registry = Registry::open(&RegistryConfig { url, ..RegistryConfig::default() })?;
        let registration = register::register(&contract, &registry, PREFIX).await?;
        let writer = Writer::new(Arc::new(contract), [registration.subjects[0].id, registration.subjects[1].id])?;
        let joiner = Steps::open(config, MODEL, PARTITIONS).await?;
        Ok(Stand { dir, joiner, writer })
    }

    /// The data files of a table, as far as they are there.
    pub fn files(&self, table: &str) -> Result<Vec<PathBuf>, Box<dyn Error>> {
        let mut folders = vec![self.dir.path().join("warehouse").join("flywheel").join(table).join("data")];
        let mut files = Vec::new();
        while let Some(folder) = folders.pop().filter(|folder| folder.is_dir()) {
            for entry in std::fs::read_dir(folder)? {
                let path = entry?.path();
                if path.is_dir() { folders.push(path) } else { files.push(path) }
            }
        }
        files.sort();
        Ok(files)
    }
}

/// The settings of a joiner that has everything in `dir`.
pub fn config(dir: &Path) -> Config {
    let at = |name: &str| dir.join(name).display().to_string();
    let mut config = Config::default();
    config.log.url = format!("file:{}", at("log"));
    config.registry.url = format!("file:{}", at("registry"));
    config.catalog.url = format!("sqlite:{}", at("catalog.db"));
    config.catalog.warehouse = at("warehouse");
    config.index.dir = dir.join("index");
    config
}

/// A log with the model's topics and no record: records come by hand.
fn make_log(dir: &Path) -> Result<(), Box<dyn Error>> {
    let folder = Folder::new(dir);
    for kind in [Kind::Predictions, Kind::Outcomes] {
        for number in 0..PARTITIONS {
            let place = folder.partition_dir(&wire::topic(PREFIX, MODEL, kind), number);
            std::fs::create_dir_all(&place)?;
            drop(Spool::open(&place, Options::default())?);
        }
    }
    Ok(std::fs::write(folder.cluster_id_file(), "8f7c1d52-6a0e-4a7e-9d39-0f6f5f8a2b11")?)
}

/// Makes the log as long as what was landed, with records that say nothing: a joiner that starts looks whether it is
/// still the log that its tables were filled from.
pub async fn fill_log(dir: &Path, places: &Places) -> Result<(), Box<dyn Error>> {
    let folder = Folder::new(&dir.join("log"));
    for kind in [Kind::Predictions, Kind::Outcomes] {
        for number in 0..PARTITIONS {
            let topic = wire::topic(PREFIX, MODEL, kind);
            let spool = Spool::open(&folder.partition_dir(&topic, number), Options::default())?;
            for offset in 0..places.next[usize::from(kind == Kind::Outcomes)][number as usize] {
                let encode = |_, out: &mut Vec<u8>| log::encode(out, START_MS, None, None, &[(wire::TICK, None)]);
                let pending = spool.append(SchemaKey::NONE, encode)?;
                // The queue of the writer is bounded.
                if offset % 1_000 == 0 {
                    pending.await?;
                }
            }
            spool.sync().await?;
        }
    }
    Ok(())
}

/// Gives records their places in the log: next offsets by topic and partition.
#[derive(Default)]
pub struct Places {
    next: [[i64; PARTITIONS as usize]; 2],
}

impl Places {
    /// The record of a value, in the partition of its key.
    pub fn record(&mut self, kind: Kind, id: &str, value: Bytes, time_ms: i64) -> Record {
        let number = partition::of(id.as_bytes(), PARTITIONS);
        let mut record = self.empty(kind, number, time_ms);
        record.key = Some(Bytes::copy_from_slice(id.as_bytes()));
        record.producer_id = Some("07070707-0707-0707-0707-070707070707".to_owned());
        record.producer_seq = Some(record.offset + 1);
        record.value = Some(value);
        record
    }

    /// A tick record for each partition of both topics.
    pub fn ticks(&mut self, time_ms: i64) -> Vec<Record> {
        let mut records = Vec::new();
        for kind in [Kind::Predictions, Kind::Outcomes] {
            for number in 0..PARTITIONS {
                records.push(Record { tick: true, ..self.empty(kind, number, time_ms) });
            }
        }
        records
    }

    fn empty(&mut self, kind: Kind, number: i32, time_ms: i64) -> Record {
        let next = &mut self.next[usize::from(kind == Kind::Outcomes)][number as usize];
        let offset = *next;
        *next += 1;
        Record {
            kind,
            partition: number,
            offset,
            time_ms,
            time_by_log: true,
            key: None,
            value: None,
            producer_id: None,
            producer_seq: None,
            tick: false,
            gate: None,
            headers: Vec::new(),
        }
    }
}

fn prediction_body(id: &str, event_ms: i64, random: &mut Random) -> String {
    let doubles: String = (0..14).map(|place| format!("\"f{place:02}\":{},", (random.unit() - 0.5) * 200.0)).collect();
    let hex = |random: &mut Random| format!("{:016x}{:016x}", random.next(), random.next());
    let country = ["DE", "FR", "US", "JP"][(random.next() % 4) as usize];
    let (user, host, device) = (random.next() % 1_000_000_000, random.next() % 40, random.next() % 1_000_000);
    let (bytes, attempt, age) = (random.next() % 8_000 + 1_000, random.next() % 3, random.next() % 4_000);
    let (session, span) = (hex(random), hex(random));
    format!(
        "{{\"prediction_id\":\"{id}\",\"event_time\":{},\"model_version\":\"2013-01-01.3\",\"latency_us\":{},\
         \"entity\":{{\"user_id\":\"user-{user:010}\"}},\"features\":{{\"endpoint\":\"/v1/models/fraud:predict\",\
         \"host\":\"serve-{host:04}.eu-west\",\"country\":\"{country}\",\"currency\":\"EUR\",\
         \"device\":\"phone (system 14; model 8) browser/537.36 build-{device:08}\",\"build\":\"2013-01-01.3\",\
         {doubles}\"request_bytes\":{bytes},\"attempt\":{attempt},\"age_days\":{age},\"is_new\":{},\"amount\":{}}},\
         \"prediction\":{{\"score\":{}}},\"decision\":{{\"action\":\"review\"}},\
         \"context\":{{\"session\":\"{session}\",\"span\":\"{span}\"}}}}",
        event_ms * 1000,
        random.next() % 90_000,
        random.next() & 1 == 0,
        random.unit() as f32 * 100.0,
        random.unit(),
    )
}
