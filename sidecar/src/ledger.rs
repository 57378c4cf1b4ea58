//! The ledger: per producer, model and kind, what was accepted, refused, sampled out and lost.
//!
//! A record closes a span of producer_seq: `first_seq` follows the `last_seq` of the record before, so the spans of a
//! producer are contiguous, and contiguity of producer_seq in the tables proves that nothing is missing. `accepted` is
//! the length of the span; refused and sampled_out are those since the record before.
//!
//! - Every [`INTERVAL`] where a count has grown (`interval`). Where only refusals or what sampling left out did, the span
//!   is empty: first_seq is then last_seq + 1.
//! - At the end of the process, after the spools are synced (`shutdown`), even where nothing has grown.
//! - At the start, for a predecessor that did not get to that (`recovery`): its last producer_seq is read from the spool,
//!   or from the cursor's note where the spool is forwarded; its last counts of refusals are lost with it.
//!
//! A loss (`loss`) is a record of its own, within the spans of the others: `dropped` of the rows from `first_seq` to
//! `last_seq` never reach the log, for the `reason` that it gives, and `accepted` is 0. The spans of losses of one producer,
//! model and kind do not overlap. So accepted = in the raw table + dropped; it may be less, where a row arrived although it
//! was given up (`forward::give_up`), but each number that is in no table lies in the span of a loss.
//!
//! Records are distinct by (producer_id, model, kind, last_seq, closed_by, at): copies of one that was sent again are the
//! same to the byte, and spans that are empty differ in the time. A start that crashes between writing a recovery record
//! and noting so finds it in the ledger's spool.
//!
//! The records go through a spool of their own to the ledger topic. What was recorded last, of losses too, stands in
//! [`FILE`] and, where the process died before it was written, in the ids of the records in that spool.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use flywheel_schemas::avro::ledger_schema;
use flywheel_schemas::wire::Kind;
use flywheel_spool::{AppendError, SchemaKey, Spool, SpoolError};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::forward::{Loss, Reason};
use crate::metrics::Metrics;
use crate::models::{Counts, Model};
use crate::record::{Envelope, Note, ProducerSeq, RecordKind};
use crate::transcode::avro::{put_bytes, put_long};

/// The directory of the spool; no model has this name.
pub(crate) const SPOOL: &str = "_ledger";
/// What was recorded last, beside the spools.
const FILE: &str = "_ledger.json";
/// How often a record is written while rows come in.
pub(crate) const INTERVAL: Duration = Duration::from_secs(60);
/// A record has some 150 bytes of numbers and names.
pub(crate) const RECORD_BYTES_MAX: usize = 4 << 10;
/// The disk takes a few bytes within this, or it is in trouble, which is not to hold up a stop.
const ACCEPTED_WITHIN: Duration = Duration::from_secs(5);
/// Read from the spool at a time.
const READ_BYTES: usize = 1 << 20;

const KINDS: [Kind; 2] = [Kind::Predictions, Kind::Outcomes];

/// What ended a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClosedBy {
    Interval,
    Shutdown,
    Recovery,
    /// Nothing: rows of other spans are lost.
    Loss,
}

impl ClosedBy {
    fn name(self) -> &'static str {
        match self {
            ClosedBy::Interval => "interval",
            ClosedBy::Shutdown => "shutdown",
            ClosedBy::Recovery => "recovery",
            ClosedBy::Loss => "loss",
        }
    }
}

/// The last record of one model and kind, or the last loss of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Last {
    /// A UUID.
    producer_id: String,
    last_seq: u64,
    /// Nothing more comes from this producer.
    closed: bool,
}

/// By model and kind; that of losses by `<kind>/loss`.
type Lasts = BTreeMap<String, BTreeMap<String, Last>>;

/// One record.
#[derive(Debug)]
struct Span<'a> {
    producer_id: &'a str,
    model: &'a str,
    kind: Kind,
    first_seq: u64,
    last_seq: u64,
    refused: u64,
    sampled_out: u64,
    dropped: u64,
    closed_by: ClosedBy,
    reason: Option<Reason>,
}

impl<'a> Span<'a> {
    /// A span with nothing left out of it.
    fn new(
        producer_id: &'a str,
        model: &'a str,
        kind: Kind,
        numbers: RangeInclusive<u64>,
        closed_by: ClosedBy,
    ) -> Self {
        let (first_seq, last_seq) = numbers.into_inner();
        let (refused, sampled_out, dropped) = (0, 0, 0);
        Span { producer_id, model, kind, first_seq, last_seq, refused, sampled_out, dropped, closed_by, reason: None }
    }
}

/// Why the ledger cannot be opened or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LedgerError {
    #[error(transparent)]
    Spool(#[from] SpoolError),
    #[error("ledger: {0}")]
    Append(#[from] AppendError),
    #[error("ledger: the disk did not take the record in time")]
    Slow,
    #[error("{}: {cause}", path.display())]
    File { path: PathBuf, cause: String },
}

/// Where records are appended.
#[derive(Clone)]
pub(crate) struct Book {
    spool: Spool,
    schema: SchemaKey,
    producer_id: Uuid,
    metrics: Arc<Metrics>,
    lasts: Arc<Mutex<Lasts>>,
}

pub(crate) struct Ledger {
    book: Book,
    path: PathBuf,
    /// The counts of this process as of the last record, by model and kind.
    recorded: BTreeMap<(String, Kind), Counts>,
}

impl Ledger {
    /// Reads what was recorded last. `dir` holds the spools.
    pub(crate) fn open(
        dir: &Path,
        spool: Spool,
        producer_id: Uuid,
        metrics: Arc<Metrics>,
    ) -> Result<Ledger, LedgerError> {
        let schema = spool.add_schema(&ledger_schema())?;
        let path = dir.join(FILE);
        let mut lasts = load(&path)?;
        let mut reader = spool.reader(spool.usage().oldest);
        loop {
            let records = reader.read(READ_BYTES)?;
            if records.is_empty() {
                break;
            }
            for record in &records {
                let id = Envelope::read(&record.payload).and_then(|envelope| str::from_utf8(envelope.event_id).ok());
                if let Some((model, lane, last)) = id.and_then(parse_id) {
                    lasts.entry(model).or_default().insert(lane, last);
                }
            }
        }
        let book = Book { spool, schema, producer_id, metrics, lasts: Arc::new(Mutex::new(lasts)) };
        Ok(Ledger { book, path, recorded: BTreeMap::new() })
    }

    /// For the losses that forwarders find.
    pub(crate) fn book(&self) -> Book {
        self.book.clone()
    }

    /// Writes the closing records of the predecessor, where it did not get to it. `note` is the end of the model's spool.
    pub(crate) async fn recover(&mut self, model: &str, note: &Note) -> Result<(), LedgerError> {
        for kind in KINDS {
            let place = match kind {
                Kind::Predictions => note.predictions,
                Kind::Outcomes => note.outcomes,
            };
            let last = self.book.last(model, kind.name());
            let found = place.map(|place| (Uuid::from_bytes(place.producer_id).to_string(), place.producer_seq));
            // What the spool says is newer than what the ledger says, unless it is of the same producer and less.
            let (producer_id, last_seq, known) = match (found, &last) {
                (Some((producer_id, seq)), Some(last)) if producer_id == last.producer_id => {
                    (producer_id, seq.max(last.last_seq), Some(last))
                }
                (Some((producer_id, seq)), _) => (producer_id, seq, None),
                (None, Some(last)) => (last.producer_id.clone(), last.last_seq, Some(last)),
                (None, None) => continue,
            };
            let first_seq = known.map_or(1, |last| last.last_seq + 1);
            if first_seq > last_seq && known.is_some_and(|last| last.closed) {
                continue;
            }
            let closed_by = ClosedBy::Recovery;
            let producer_id = producer_id.as_str();
            self.book.append(&Span::new(producer_id, model, kind, first_seq..=last_seq, closed_by)).await?;
            tracing::info!(
                model,
                kind = kind.name(),
                producer_id,
                first_seq,
                last_seq,
                "closed the predecessor's ledger"
            );
        }
        Ok(())
    }

    /// Writes what has changed since the last record; with [`ClosedBy::Shutdown`] the last record of each. What cannot be
    /// written now is part of the next record.
    pub(crate) async fn write(&mut self, models: &[Arc<Model>], closed_by: ClosedBy) {
        for model in models {
            for kind in KINDS {
                if let Err(error) = self.write_lane(model, kind, closed_by).await {
                    self.book.metrics.ledger_postponed(&error);
                }
            }
        }
        if let Err(error) = self.store() {
            self.book.metrics.ledger_postponed(&error);
        }
    }

    async fn write_lane(&mut self, model: &Model, kind: Kind, closed_by: ClosedBy) -> Result<(), LedgerError> {
        let counts = model.lane(kind).counts();
        let key = (model.name().to_owned(), kind);
        let before = self.recorded.get(&key).copied().unwrap_or_default();
        let is_due = match closed_by {
            ClosedBy::Shutdown => counts != Counts::default(),
            _ => counts != before,
        };
        if !is_due {
            return Ok(());
        }
        let own_id = self.book.producer_id.to_string();
        let numbers = before.last_seq + 1..=counts.last_seq;
        let mut span = Span::new(&own_id, model.name(), kind, numbers, closed_by);
        span.refused = counts.refused - before.refused;
        span.sampled_out = counts.sampled_out - before.sampled_out;
        self.book.append(&span).await?;
        self.recorded.insert(key, counts);
        Ok(())
    }

    /// Notes what was recorded last.
    pub(crate) fn store(&self) -> Result<(), LedgerError> {
        let failed = |cause: String| LedgerError::File { path: self.path.clone(), cause };
        let text = serde_json::to_vec_pretty(&*self.book.lasts()).map_err(|error| failed(error.to_string()))?;
        let new = self.path.with_extension("json.new");
        let write = || {
            let mut file = std::fs::File::create(&new)?;
            std::io::Write::write_all(&mut file, &text)?;
            file.sync_data()?;
            std::fs::rename(&new, &self.path)
        };
        write().map_err(|error| failed(error.to_string()))
    }
}

impl Book {
    /// Puts losses of a model on record, in order; gives how many of them are, of which the first is the first. Logs and
    /// counts those.
    pub(crate) async fn lose(&self, model: &str, losses: &[Loss]) -> usize {
        for (done, loss) in losses.iter().enumerate() {
            let producer_id = Uuid::from_bytes(loss.producer_id).to_string();
            let mut span = Span::new(&producer_id, model, loss.kind, loss.first_seq..=loss.last_seq, ClosedBy::Loss);
            (span.dropped, span.reason) = (loss.count, Some(loss.reason));
            if let Err(error) = self.append(&span).await {
                self.metrics.ledger_postponed(&error);
                return done;
            }
            self.metrics.lost(model, loss);
        }
        losses.len()
    }

    /// The last losses of a model that are on record, by kind.
    pub(crate) fn last_losses(&self, model: &str) -> Note {
        self.places(model, |kind| lane_of_losses(kind.name()))
    }

    /// What a model's predecessor accepted last, by kind.
    pub(crate) fn last_accepted(&self, model: &str) -> Note {
        self.places(model, |kind| kind.name().to_owned())
    }

    fn places(&self, model: &str, lane: impl Fn(Kind) -> String) -> Note {
        let mut note = Note::default();
        for kind in KINDS {
            let last =
                self.last(model, &lane(kind)).and_then(|last| Some((last.producer_id.parse().ok()?, last.last_seq)));
            if let Some((producer_id, producer_seq)) = last {
                note.set(kind, ProducerSeq { producer_id: Uuid::into_bytes(producer_id), producer_seq });
            }
        }
        note
    }

    async fn append(&self, span: &Span<'_>) -> Result<(), LedgerError> {
        let now_ms = crate::api::now_ms();
        let id = id(span, now_ms);
        let mut datum = Vec::new();
        write(span, now_ms, &mut datum);
        let pending = self.spool.append(self.schema, |_, out| {
            let envelope = Envelope {
                kind: RecordKind::Ledger,
                time_ms: now_ms,
                producer_id: self.producer_id.into_bytes(),
                producer_seq: 0,
                key: span.producer_id.as_bytes(),
                event_id: id.as_bytes(),
                traceparent: None,
                datum: &datum,
            };
            envelope.write(out);
        })?;
        tokio::time::timeout(ACCEPTED_WITHIN, pending).await.map_err(|_| LedgerError::Slow)??;
        if let Some((model, lane, last)) = parse_id(&id) {
            self.lasts().entry(model).or_default().insert(lane, last);
        }
        self.metrics.ledger_written(span.closed_by.name());
        Ok(())
    }

    fn last(&self, model: &str, lane: &str) -> Option<Last> {
        self.lasts().get(model)?.get(lane).cloned()
    }

    /// Whole between statements, whoever panicked.
    fn lasts(&self) -> MutexGuard<'_, Lasts> {
        self.lasts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lane_of_losses(kind: &str) -> String {
    format!("{kind}/loss")
}

/// What the end of a spool says: the cursor's note, and the records after it.
pub(crate) fn end_of(spool: &Spool) -> Result<Note, SpoolError> {
    let cursor = spool.cursor();
    let mut note = Note::decode(&cursor.note);
    let mut reader = spool.reader(cursor.sequence);
    loop {
        let records = reader.read(READ_BYTES)?;
        if records.is_empty() {
            return Ok(note);
        }
        records.iter().filter_map(|record| Envelope::read(&record.payload)).for_each(|envelope| note.pass(&envelope));
    }
}

fn load(path: &Path) -> Result<Lasts, LedgerError> {
    let failed = |cause: String| LedgerError::File { path: path.to_path_buf(), cause };
    match std::fs::read(path) {
        Ok(text) => serde_json::from_slice(&text).map_err(|error| failed(error.to_string())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Lasts::new()),
        Err(error) => Err(failed(error.to_string())),
    }
}

/// The CloudEvents id of a record, by which a start finds what was recorded last.
fn id(span: &Span<'_>, now_ms: i64) -> String {
    let (producer_id, model, kind) = (span.producer_id, span.model, span.kind.name());
    format!("{producer_id}/{now_ms}/{model}/{kind}/{}/{}/{}", span.first_seq, span.last_seq, span.closed_by.name())
}

/// Model, lane and what the record says about it. None for a producer that accepted nothing: the last place in the spool is
/// then still that of one before it.
fn parse_id(id: &str) -> Option<(String, String, Last)> {
    let [producer_id, _, model, kind, _, last_seq, closed_by] = id.split('/').collect::<Vec<_>>().try_into().ok()?;
    let closed = closed_by != ClosedBy::Interval.name();
    let last = Last { producer_id: producer_id.to_owned(), last_seq: last_seq.parse().ok()?, closed };
    let lane = if closed_by == ClosedBy::Loss.name() { lane_of_losses(kind) } else { kind.to_owned() };
    (last.last_seq > 0).then(|| (model.to_owned(), lane, last))
}

/// The fields in the order of the fixed schema, `flywheel_schemas::avro::ledger_schema`.
fn write(span: &Span<'_>, now_ms: i64, out: &mut Vec<u8>) {
    put_bytes(out, span.producer_id.as_bytes());
    put_bytes(out, span.model.as_bytes());
    put_bytes(out, span.kind.name().as_bytes());
    let accepted = match span.closed_by {
        ClosedBy::Loss => 0,
        _ => (span.last_seq + 1).saturating_sub(span.first_seq),
    };
    for number in [span.first_seq, span.last_seq, accepted, span.refused, span.sampled_out, span.dropped] {
        put_long(out, i64::try_from(number).unwrap_or(i64::MAX));
    }
    put_bytes(out, span.closed_by.name().as_bytes());
    put_long(out, now_ms.saturating_mul(1000));
    // The branches of a union with null first.
    match span.reason {
        None => put_long(out, 0),
        Some(reason) => {
            put_long(out, 1);
            put_bytes(out, reason.name().as_bytes());
        }
    }
}

#[cfg(test)]
mod tests;
