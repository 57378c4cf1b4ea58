//! The two topics of all models: what sidecars refused, and what they say they accepted. Appended to `dead_letter` and
//! `ledger` at least once; the offsets follow the append.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flywheel_schemas::avro::Layout;
use flywheel_schemas::registry::Registry;
use flywheel_schemas::table as spec;
use flywheel_schemas::wire;

use crate::decode::{Decoder, Origin, Rows};
use crate::metrics::Metrics;
use crate::pipeline::PipelineError;
use crate::source::{Feeds, Record};
use crate::table::{Table, Warehouse};

const RECORDS_PER_TURN: usize = 4096;
const TURN: Duration = Duration::from_millis(200);
const RETRY: Duration = Duration::from_secs(5);

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SideTopic {
    Ledger,
    DeadLetters,
}

impl SideTopic {
    pub fn topic(self, prefix: &str) -> String {
        match self {
            SideTopic::Ledger => wire::ledger_topic(prefix),
            SideTopic::DeadLetters => wire::dead_letter_topic(prefix),
        }
    }

    fn table(self) -> spec::Table {
        match self {
            SideTopic::Ledger => spec::ledger(),
            SideTopic::DeadLetters => spec::dead_letter(),
        }
    }
}

/// Appends one side topic to its table until `stop` says so.
pub(crate) async fn run(
    which: SideTopic,
    topic: String,
    feeds: Feeds,
    warehouse: Arc<Warehouse>,
    registry: Registry,
    interval: Duration,
    metrics: Metrics,
    mut stop: tokio::sync::watch::Receiver<bool>,
) {
    loop {
        let error = tokio::select! {
            result = append_all(which, &topic, &feeds, &warehouse, &registry, interval, &metrics) => match result {
                Ok(never) => match never {},
                Err(error) => error,
            },
            _ = stop.wait_for(|stop| *stop) => return,
        };
        metrics.side_failed(&topic, &error.to_string());
        tokio::select! {
            () = tokio::time::sleep(RETRY) => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}

async fn append_all(
    which: SideTopic,
    topic: &str,
    feeds: &Feeds,
    warehouse: &Warehouse,
    registry: &Registry,
    interval: Duration,
    metrics: &Metrics,
) -> Result<std::convert::Infallible, PipelineError> {
    let mut table = warehouse.table(&which.table(), &[]).await?;
    let mut feed = feeds.side_feed(topic)?;
    let mut decoders = Decoders::new();
    let mut batch: Vec<Record> = Vec::new();
    let mut since = Instant::now();
    loop {
        let records = feed.poll(RECORDS_PER_TURN, TURN).await?;
        if batch.is_empty() {
            since = Instant::now();
        }
        let silent = records.is_empty();
        batch.extend(records);
        // Early where nothing more is coming: these rows are few and somebody looks for them.
        if batch.is_empty() || !(silent || batch.len() >= RECORDS_PER_TURN || since.elapsed() >= interval) {
            continue;
        }
        append(&mut table, registry, &mut decoders, &batch, metrics).await?;
        feed.commit().await?;
        batch.clear();
    }
}

/// By schema id; for one that is not that of the table, why it cannot be read by it. Somebody else may write to the topic.
type Decoders = HashMap<u32, Result<Decoder, String>>;

fn decoder(schema: &str, rows: &Rows) -> Result<Decoder, String> {
    let layout = Layout::parse(schema).map_err(|error| error.to_string())?;
    let decoder = Decoder::plain(&layout).map_err(|error| error.to_string())?;
    rows.fits(&decoder).map_err(|error| error.to_string())?;
    Ok(decoder)
}

async fn append(
    table: &mut Table,
    registry: &Registry,
    decoders: &mut Decoders,
    records: &[Record],
    metrics: &Metrics,
) -> Result<(), PipelineError> {
    let mut rows = Rows::new(table.arrow_schema());
    for record in records {
        let Some((id, datum)) = record.value.as_deref().and_then(wire::unframe) else {
            metrics.side_skipped(table.name(), record.partition, record.offset, "not framed");
            continue;
        };
        let known = match decoders.entry(id) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(vacant) => vacant.insert(decoder(&registry.schema(id).await?, &rows)),
        };
        let sound = known
            .as_ref()
            .map_err(Clone::clone)
            .and_then(|decoder| decoder.check_plain(datum).map(|_| decoder).map_err(|error| error.to_string()));
        let decoder = match sound {
            Ok(decoder) => decoder,
            Err(why) => {
                metrics.side_skipped(table.name(), record.partition, record.offset, &format!("schema id {id}: {why}"));
                continue;
            }
        };
        let origin = Origin {
            ingest_time_ms: record.time_ms,
            partition: record.partition,
            offset: record.offset,
            producer_id: record.producer_id.as_deref(),
            producer_seq: record.producer_seq,
        };
        rows.push(decoder, datum, &origin);
    }
    if rows.is_empty() {
        return Ok(());
    }
    let batch = rows.finish().map_err(PipelineError::decode)?;
    let mut writer = table.writer()?;
    writer.write(&batch).await?;
    let files = writer.close().await?;
    Ok(table.append(files).await?)
}
