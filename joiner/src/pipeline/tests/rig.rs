//! A model with a `file:` log, a registry and a warehouse of its own in a folder; the log is written by hand, and a
//! pipeline is taken through its turns one by one.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use flywheel_schemas::avro::{Layout, contract_of, outcome_schema, prediction_schema};
use flywheel_schemas::contract::{Contract, Scalar};
use flywheel_schemas::gate::GateRecord;
use flywheel_schemas::log::{self, Folder};
use flywheel_schemas::registry::Registry;
use flywheel_schemas::wire::{self, Kind};
use flywheel_schemas::{id, partition};
use flywheel_spool::{Options, SchemaKey, Spool};
use futures::TryStreamExt as _;
use tempfile::TempDir;

use super::super::{OUTCOMES_MAX, Pipeline, PipelineError, Shared};
use crate::config::Config;
use crate::decode::tests::oracle::{self, Given, Record};
use crate::metrics::Metrics;
use crate::source::Source;
use crate::table::{Predicate, Warehouse};

pub const MINUTE: i64 = 60_000;
/// 2013-01-01T10:00:00Z, a tick of any grid.
pub const START: i64 = 1_357_034_400_000;

/// Seals 80 minutes after the prediction.
pub const CONTRACT: &str = "
apiVersion: flywheel/v1
kind: ModelContract
model: m
version: 1
owner: team
description: A test.
features: {x: {type: double}}
prediction: {p: {type: double}}
labels:
  won:   {type: boolean, window: 1h, lateness: 20m, aggregate: any, default: false}
  total: {type: long, window: 1h, lateness: 20m, aggregate: sum}
seal: {when: all_closed, grid: 5m, drain: 10m, horizon: 1d}
";

pub struct Rig {
    pub dir: TempDir,
    pub shared: Shared,
    pub source: Source,
    pub partitions: i32,
    logs: BTreeMap<(Kind, i32), Spool>,
    writers: BTreeMap<(Kind, i32), Writer>,
}

/// A registered schema.
struct Writer {
    id: u32,
    text: String,
    layout: Layout,
}

/// A row's cells that are not null, as text, by column.
pub type Row = BTreeMap<String, String>;

impl Rig {
    pub async fn new(partitions: i32) -> Rig {
        Rig::with(partitions, CONTRACT).await
    }

    pub async fn with(partitions: i32, contract: &str) -> Rig {
        // In memory where that is to be had: nothing here is about the disk, and it takes half of the time.
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let folder = Folder::new(&dir.path().join("log"));
        std::fs::create_dir_all(folder.topics_dir()).unwrap();
        std::fs::write(folder.cluster_id_file(), "8f7c1d52-6a0e-4a7e-9d39-0f6f5f8a2b11").unwrap();
        let mut logs = BTreeMap::new();
        for kind in [Kind::Predictions, Kind::Outcomes] {
            for number in 0..partitions {
                let place = folder.partition_dir(&wire::topic("flywheel", "m", kind), number);
                std::fs::create_dir_all(&place).unwrap();
                logs.insert((kind, number), Spool::open(&place, Options::default()).unwrap());
            }
        }
        let mut config = Config::default();
        let at = |name: &str| dir.path().join(name).display().to_string();
        config.log.url = format!("file:{}", at("log"));
        config.registry.url = format!("file:{}", at("registry"));
        config.catalog.url = format!("sqlite:{}", at("catalog.db"));
        config.catalog.warehouse = at("warehouse");
        config.index.dir = dir.path().join("index");
        let source = Source::open(&config.source()).await.unwrap();
        let shared = Shared {
            warehouse: Arc::new(Warehouse::open(&config.catalog()).await.unwrap()),
            registry: Registry::open(&config.registry()).unwrap(),
            metrics: Metrics::new(),
            cluster: source.cluster_id().to_owned(),
            config: Arc::new(config),
        };
        let mut rig = Rig { dir, shared, source, partitions, logs, writers: BTreeMap::new() };
        rig.register(contract).await;
        rig
    }

    /// Topics that are deleted and made again: empty, with as many partitions, in segments that soon go.
    pub fn make_anew(&mut self, kinds: &[Kind]) {
        let folder = Folder::new(&self.dir.path().join("log"));
        let keys: Vec<(Kind, i32)> = self.logs.keys().copied().filter(|(kind, _)| kinds.contains(kind)).collect();
        for (kind, number) in keys {
            self.logs.remove(&(kind, number)).unwrap().close().unwrap();
            let place = folder.partition_dir(&wire::topic("flywheel", "m", kind), number);
            std::fs::remove_dir_all(&place).unwrap();
            std::fs::create_dir_all(&place).unwrap();
            let options = Options { segment_bytes: 64 * 1024, ..Options::default() };
            self.logs.insert((kind, number), Spool::open(&place, options).unwrap());
        }
    }

    /// Lets the segments go that hold nothing but records that are there by now.
    pub fn expire(&self, kind: Kind, number: i32) {
        let log = &self.logs[&(kind, number)];
        log.advance(log.next_sequence(), b"").unwrap();
    }

    pub async fn register(&mut self, yaml: &str) {
        let contract = Contract::parse(yaml).unwrap_or_else(|faults| panic!("{faults:?}"));
        for (kind, text) in
            [(Kind::Predictions, prediction_schema(&contract)), (Kind::Outcomes, outcome_schema(&contract))]
        {
            let subject = wire::subject(&wire::topic("flywheel", "m", kind));
            let id = self.shared.registry.register(&subject, &text).await.unwrap();
            let layout = Layout::parse(&text).unwrap();
            self.writers.insert((kind, contract.version), Writer { id, text, layout });
        }
    }

    /// So many statements about a prediction count.
    pub async fn limit(&self, outcomes_max: usize) {
        let contract = self.shared.registry.versions("flywheel.m.predictions-value").await.unwrap();
        let contract = contract_of(&contract[0].text).unwrap();
        let limit = [(OUTCOMES_MAX, outcomes_max.to_string())];
        self.shared.warehouse.table(&flywheel_schemas::table::training(&contract), &limit).await.unwrap();
    }

    /// The bytes of one record as the sidecar would frame them.
    pub fn encode(&self, kind: Kind, version: i32, values: &[(&str, Scalar)]) -> Vec<u8> {
        let values = values.iter().map(|(path, value)| ((*path).to_owned(), Given::Scalar(value.clone())));
        self.encode_given(kind, version, values)
    }

    /// The same of any values.
    pub fn encode_given(&self, kind: Kind, version: i32, values: impl IntoIterator<Item = (String, Given)>) -> Vec<u8> {
        let writer = &self.writers[&(kind, version)];
        let record: Record = values.into_iter().collect();
        let mut value = wire::frame(writer.id).to_vec();
        value.extend(oracle::encode(&writer.text, &writer.layout, &record));
        value
    }

    /// Appends whatever bytes to a partition.
    pub async fn append(&self, kind: Kind, number: i32, time_ms: i64, value: Option<&[u8]>, headers: &[(&str, &str)]) {
        let headers: Vec<(&str, Option<&[u8]>)> =
            headers.iter().map(|(name, value)| (*name, Some(value.as_bytes()))).collect();
        let pending = self.logs[&(kind, number)]
            .append(SchemaKey::NONE, |_, out| log::encode(out, time_ms, None, value, &headers))
            .unwrap();
        pending.await.unwrap();
    }

    /// A tick record in every partition of both topics.
    pub async fn tick(&self, time_ms: i64) {
        for (kind, number) in self.logs.keys() {
            self.append(*kind, *number, time_ms, None, &[(wire::TICK, "")]).await;
        }
    }

    /// Tick records each five minutes, so that there is no gap, from one instant through another.
    pub async fn ticks(&self, from_ms: i64, through_ms: i64) {
        for time_ms in (from_ms..=through_ms).step_by(300_000) {
            self.tick(time_ms).await;
        }
    }

    fn home(&self, id: &str) -> i32 {
        partition::of(id.as_bytes(), self.partitions)
    }

    /// The id of a prediction; `n` tells those of one instant apart.
    pub fn id(n: u8, event_ms: i64) -> String {
        id::from_parts(event_ms, [n; 10]).to_string()
    }

    /// A prediction of `event_ms` with feature `x`, appended at `append_ms`. `n` tells ids of one instant apart.
    pub async fn predict(&self, n: u8, event_ms: i64, append_ms: i64, x: f64) -> String {
        let id = Rig::id(n, event_ms);
        let value = self.encode(Kind::Predictions, 1, &prediction(&id, event_ms, x));
        self.append(Kind::Predictions, self.home(&id), append_ms, Some(&value), &[]).await;
        id
    }

    /// An assert about a prediction, happened and appended at `append_ms`.
    pub async fn state(&self, event_id: &str, prediction_id: &str, append_ms: i64, labels: &[(&str, Scalar)]) {
        self.state_late(event_id, prediction_id, append_ms, append_ms, labels).await;
    }

    /// One that happened before it was appended.
    pub async fn state_late(
        &self,
        event_id: &str,
        prediction_id: &str,
        event_ms: i64,
        append_ms: i64,
        labels: &[(&str, Scalar)],
    ) {
        let mut values = vec![
            ("prediction_id", Scalar::String(prediction_id.to_owned())),
            ("event_id", Scalar::String(event_id.to_owned())),
            ("outcome_id", Scalar::String(event_id.to_owned())),
            ("revision", Scalar::Long(0)),
            ("op", Scalar::String("assert".to_owned())),
            ("op_time", Scalar::Timestamp(append_ms * 1000)),
            ("event_time", Scalar::Timestamp(event_ms * 1000)),
            ("contract_version", Scalar::Int(1)),
        ];
        values.extend(labels.iter().cloned());
        let value = self.encode(Kind::Outcomes, 1, &values);
        self.append(Kind::Outcomes, self.home(prediction_id), append_ms, Some(&value), &[]).await;
    }

    /// A gate record in every partition of the outcomes.
    pub async fn say(&self, time_ms: i64, record: &GateRecord) {
        for number in 0..self.partitions {
            self.append(Kind::Outcomes, number, time_ms, None, &[(wire::GATE, &record.to_header())]).await;
        }
    }

    /// A pipeline that owns all partitions, with an index of its own name.
    pub async fn pipeline(&self, index: &str) -> Pipeline {
        self.try_pipeline(index).await.unwrap()
    }

    /// The same, or why it does not start.
    pub async fn try_pipeline(&self, index: &str) -> Result<Pipeline, PipelineError> {
        let mut shared = self.shared.clone();
        let mut config = Config::clone(&shared.config);
        config.index.dir = self.dir.path().join(index);
        shared.config = Arc::new(config);
        let mut pipeline = Pipeline::open("m", &shared, &self.source.feeds()).await?;
        let all: Vec<i32> = (0..self.partitions).collect();
        pipeline.take_partitions(&all).await?;
        Ok(pipeline)
    }

    /// A partition of both topics more.
    pub fn add_partition(&mut self) {
        for kind in [Kind::Predictions, Kind::Outcomes] {
            self.begin_anew(kind, self.partitions);
        }
        self.partitions += 1;
    }

    /// A partition without a record, whatever it had.
    pub fn begin_anew(&mut self, kind: Kind, number: i32) {
        drop(self.logs.remove(&(kind, number)));
        let folder = Folder::new(&self.dir.path().join("log"));
        let place = folder.partition_dir(&wire::topic("flywheel", "m", kind), number);
        let _ = std::fs::remove_dir_all(&place);
        std::fs::create_dir_all(&place).unwrap();
        self.logs.insert((kind, number), Spool::open(&place, Options::default()).unwrap());
    }

    /// The log as another cluster.
    pub async fn change_cluster(&mut self) {
        let folder = Folder::new(&self.dir.path().join("log"));
        std::fs::write(folder.cluster_id_file(), "0b0a3f0e-55a5-4b54-9d0c-3f1d6a1f7a55").unwrap();
        self.source = Source::open(&self.shared.config.source()).await.unwrap();
        self.shared.cluster = self.source.cluster_id().to_owned();
    }

    /// Lands and seals all that is in the log.
    pub async fn run(&self, pipeline: &mut Pipeline) {
        read(pipeline).await.unwrap();
        pipeline.commit().await.unwrap();
        pipeline.seal().await.unwrap();
        pipeline.follow().await.unwrap();
    }

    /// The rows of a table, in the order of their coordinates.
    pub async fn rows(&self, table: &str) -> Vec<Row> {
        let Some(table) = self.shared.warehouse.load(table).await.unwrap() else { return Vec::new() };
        let schema = table.arrow_schema();
        let columns: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        let batches: Vec<_> = table.scan(&columns, Predicate::All).await.unwrap().try_collect().await.unwrap();
        let mut rows: Vec<Row> =
            batches.iter().flat_map(|batch| (0..batch.num_rows()).map(|row| oracle::cells(batch, row))).collect();
        let place = |row: &Row| -> Option<(i32, i64)> {
            Some((number(row.get("kafka_partition")?), number(row.get("kafka_offset")?)))
        };
        rows.sort_by_key(place);
        rows
    }

    /// The files of a table whose name ends so.
    pub fn files(&self, table: &str, end: &str) -> Vec<PathBuf> {
        let mut folders = vec![self.dir.path().join("warehouse/flywheel").join(table)];
        let mut files = Vec::new();
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    true => folders.push(path),
                    false => files.extend(path.to_str().unwrap().ends_with(end).then_some(path)),
                }
            }
        }
        files
    }

    /// How many of the ids 0 to 19 of an instant belong to a partition.
    pub fn of_partition(&self, number: i32, event_ms: i64) -> usize {
        (0..20_u8).filter(|n| self.home(&id::from_parts(event_ms, [*n; 10]).to_string()) == number).count()
    }

    /// A counter's or gauge's value; zero where it was never moved.
    pub fn metric(&self, name: &str) -> f64 {
        let text = self.shared.metrics.render().unwrap();
        let line = text.lines().find(|line| line.starts_with(&format!("flywheel_joiner_{name}")));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0.0)
    }
}

/// The values of a prediction under the first contract.
pub fn prediction(id: &str, event_ms: i64, x: f64) -> Vec<(&'static str, Scalar)> {
    vec![
        ("prediction_id", Scalar::String(id.to_owned())),
        ("event_time", Scalar::Timestamp(event_ms * 1000)),
        ("contract_version", Scalar::Int(1)),
        ("features.x", Scalar::Double(x)),
        ("prediction.p", Scalar::Double(0.5)),
    ]
}

/// Reads the log to its end.
pub async fn read(pipeline: &mut Pipeline) -> Result<(), PipelineError> {
    loop {
        let records = pipeline.feed.poll(1000, Duration::ZERO).await?;
        if records.is_empty() && pipeline.feed.at_end() {
            return Ok(());
        }
        pipeline.take(records).await?;
    }
}

/// The number in a cell, such as `Int(5)`.
pub fn number<T: std::str::FromStr>(cell: &str) -> T {
    let inner = cell.split(['(', ')']).nth(1).unwrap();
    inner.parse().unwrap_or_else(|_| panic!("{cell} is no number"))
}

/// The text in a cell, such as `String("a")`.
pub fn text(cell: &str) -> String {
    let inner = cell.strip_prefix("String(\"").and_then(|rest| rest.strip_suffix("\")"));
    inner.unwrap_or_else(|| panic!("{cell} is no text")).to_owned()
}

/// A timestamp as its cell says it.
pub fn at(time_ms: i64) -> String {
    format!("Timestamp({})", time_ms * 1000)
}
