//! Commits: their latency as snapshots add up, and what describes a table after a week of them.
//!
//! Against Iceberg's REST catalog over an S3 store on this machine, a table of 64 partitions' progress is committed
//! to, a file of a few rows each time. The latencies of the commits after the 2,000th, over the median of those after the
//! 10th: as many as a merge of manifests and an expiry of snapshots take turns in. [`WEEK_AREA`] goes through a week of a
//! commit a minute, on a SQLite catalog in a folder, and looks at the sizes of the newest `metadata.json` and manifest list.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use flywheel_joiner::table::{CatalogConfig, Mark, Outcome, Table, Warehouse};
use flywheel_schemas::table::predictions;

use super::{HOUR, START_MS, contract};
use crate::bench::{Area, Bar, Measure, median};
use crate::servers::{RestCatalog, S3, S3_ACCESS_KEY, S3_REGION, S3_SECRET_KEY};

pub const AREA: Area = Area {
    name: "commit",
    about: "latency of a commit after 2,000 commits ÷ after 10, REST catalog",
    run: || runtime()?.block_on(with_server()),
};

pub const WEEK_AREA: Area = Area {
    name: "week",
    about: "MB of metadata.json and manifest list in a week of a commit a minute, 64 partitions",
    run: || runtime()?.block_on(week()),
};

const PARTITIONS: i32 = 64;
const CLUSTER: &str = "bench";
/// Commits of which the median is taken.
const WINDOW: usize = 15;
const FEW: usize = 10;
const MANY: usize = 2_000;
/// Longer than it takes from one expiry or merge to the next.
const TURNS: usize = 120;
/// A commit a minute.
const WEEK: usize = 7 * 1_440;

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}

/// A table that is committed to again and again.
struct Committed {
    table: Table,
    next: i64,
}

impl Committed {
    async fn new(config: &CatalogConfig) -> Result<Committed, Box<dyn Error>> {
        let warehouse = Warehouse::open(config).await?;
        let table = warehouse.table(&predictions(&contract(&HOUR)?), &[]).await?;
        Ok(Committed { table, next: 0 })
    }

    /// One commit, of a row for each partition: the milliseconds that the commit took, its file not counted.
    async fn commit(&mut self) -> Result<f64, Box<dyn Error>> {
        let mut writer = self.table.writer()?;
        writer.write(&self.rows()?).await?;
        let files = writer.close().await?;
        let from = self.marks();
        self.next += 1;
        let start = Instant::now();
        match self.table.commit(files, &from, &self.marks(), CLUSTER, &[]).await? {
            Outcome::Committed => Ok(start.elapsed().as_secs_f64() * 1e3),
            Outcome::Fenced(_) => Err("fenced, though nobody else commits".into()),
        }
    }

    fn marks(&self) -> BTreeMap<i32, Mark> {
        let mark = match self.next {
            0 => Mark::NONE,
            next => Mark { next: next * 1_000, time_ms: START_MS + next * 60_000 },
        };
        (0..PARTITIONS).map(|partition| (partition, mark)).collect()
    }

    fn rows(&self) -> Result<RecordBatch, Box<dyn Error>> {
        let times = || -> ArrayRef {
            let times = (0..PARTITIONS).map(|_| (START_MS + self.next * 60_000) * 1_000);
            Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("+00:00"))
        };
        let ids = (0..PARTITIONS).map(|partition| format!("{}-{partition}", self.next));
        let columns: [(&str, ArrayRef); 5] = [
            ("prediction_id", Arc::new(StringArray::from_iter_values(ids))),
            ("event_time", times()),
            ("ingest_time", times()),
            ("kafka_partition", Arc::new(Int32Array::from_iter_values(0..PARTITIONS))),
            ("kafka_offset", Arc::new(Int64Array::from_iter_values((0..PARTITIONS).map(|_| self.next * 1_000)))),
        ];
        Ok(RecordBatch::try_from_iter(columns)?)
    }

    /// The latencies of the next commits, in milliseconds.
    async fn latencies(&mut self, commits: usize) -> Result<Vec<f64>, Box<dyn Error>> {
        let mut latencies = Vec::with_capacity(commits);
        for _ in 0..commits {
            latencies.push(self.commit().await?);
        }
        Ok(latencies)
    }
}

async fn with_server() -> Result<Vec<Measure>, Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let s3 = S3::start(dir.path())?;
    let catalog = RestCatalog::start(dir.path(), &s3)?;
    let properties = [
        ("s3.endpoint", s3.address()),
        ("s3.access-key-id", S3_ACCESS_KEY),
        ("s3.secret-access-key", S3_SECRET_KEY),
        ("s3.region", S3_REGION),
        ("s3.path-style-access", "true"),
    ];
    let config = CatalogConfig {
        url: catalog.address().to_owned(),
        name: "bench".to_owned(),
        namespace: "bench".to_owned(),
        warehouse: "s3://warehouse/".to_owned(),
        properties: properties.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
    };
    let mut committed = Committed::new(&config).await?;
    committed.latencies(FEW).await?;
    let few = median(&mut committed.latencies(WINDOW).await?);
    committed.latencies(MANY - FEW - WINDOW).await?;
    let mut many = committed.latencies(TURNS).await?;
    let ratios = many.iter().map(|late| late / few).collect();
    let note = format!("{:.0} ms ÷ {few:.0} ms", median(&mut many));
    Ok(vec![Measure { name: "after 2,000 commits", ratios, bar: Bar::AtMost(3.0), note }])
}

/// A commit a minute for a week.
async fn week() -> Result<Vec<Measure>, Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let warehouse = dir.path().join("warehouse");
    let config = CatalogConfig {
        url: format!("sqlite:{}", dir.path().join("catalog.db").display()),
        name: "bench".to_owned(),
        namespace: "bench".to_owned(),
        warehouse: warehouse.display().to_string(),
        properties: BTreeMap::new(),
    };
    let mut committed = Committed::new(&config).await?;
    let (mut first, mut last) = (Vec::new(), Vec::new());
    let (mut metadata, mut lists) = (Vec::new(), Vec::new());
    for minute in 0..WEEK {
        let latency = committed.commit().await?;
        if (FEW..FEW + WINDOW).contains(&minute) {
            first.push(latency);
        }
        if minute >= WEEK - TURNS {
            last.push(latency);
        }
        if minute % 7 == 0 {
            metadata.push(newest(&warehouse, ".metadata.json")? as f64 / 1e6);
            lists.push(newest(&warehouse, "snap-")? as f64 / 1e6);
        }
    }
    let note = format!(
        "at {PARTITIONS} partitions; a commit {:.0} ms, after the first {FEW} {:.0} ms",
        median(&mut last),
        median(&mut first),
    );
    let measure = |name, ratios, note| Measure { name, ratios, bar: Bar::AtMost(1.0), note };
    Ok(vec![measure("metadata.json, MB", metadata, note), measure("manifest list, MB", lists, String::new())])
}

/// Bytes of the newest file that describes the table and whose name has this in it.
fn newest(warehouse: &Path, part: &str) -> Result<u64, Box<dyn Error>> {
    let mut newest = None;
    for entry in std::fs::read_dir(warehouse.join("bench").join("bench_predictions").join("metadata"))? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().contains(part) {
            let metadata = entry.metadata()?;
            newest = newest.max(Some((metadata.modified()?, metadata.len())));
        }
    }
    newest.map(|(_, bytes)| bytes).ok_or_else(|| format!("no file with {part}").into())
}
