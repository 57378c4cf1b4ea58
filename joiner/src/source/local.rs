//! A `file:` log as source: the folder that a sidecar writes, read without a lock.
//!
//! The folder and the records are described in [`flywheel_schemas::log`]. All partitions of all models are this process's,
//! as soon as both topics of a model are there. What is landed is said by a marker beside the records, and the writer lets
//! go of what lies below. Reading is by plain files, as a rule from the page cache, and looks again every 20 ms.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flywheel_schemas::log::{self, Folder};
use flywheel_schemas::wire::{self, Kind};
use flywheel_spool::{Extent, Reader, SpoolError};
use tokio::time::Instant;

use super::{Record, SourceConfig, SourceError, SourceEvent, model_of, share};

/// How often the folder is looked at for new models.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// How often a feed looks for new records.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// Read from a partition at a time, and held of each at most.
const READ_BYTES: usize = 256 * 1024;

/// The log, as this process sees it.
pub struct Source {
    log: Arc<Log>,
    assigned: BTreeSet<String>,
    /// Found and not handed out yet; at most the models of the folder.
    found: VecDeque<(String, Vec<i32>)>,
}

/// The folder and its names.
pub struct Log {
    folder: Folder,
    prefix: String,
    cluster_id: String,
}

impl Source {
    pub fn open(dir: &Path, config: &SourceConfig) -> Result<Source, SourceError> {
        let folder = Folder::new(dir);
        let cluster_id = folder.cluster_id().map_err(|error| passing(dir, error))?;
        let cluster_id =
            cluster_id.ok_or_else(|| passing(dir, "no log is there yet; the sidecar makes it at its start"))?;
        let log = Arc::new(Log { folder, prefix: config.prefix.clone(), cluster_id });
        Ok(Source { log, assigned: BTreeSet::new(), found: VecDeque::new() })
    }

    pub fn log(&self) -> &Arc<Log> {
        &self.log
    }

    pub async fn next(&mut self) -> SourceEvent {
        loop {
            if let Some((model, partitions)) = self.found.pop_front() {
                return SourceEvent::Assigned { model, partitions };
            }
            match self.look() {
                Ok(()) if self.found.is_empty() => tokio::time::sleep(LOOK_INTERVAL).await,
                Ok(()) => {}
                Err(error) => {
                    tokio::time::sleep(LOOK_INTERVAL).await;
                    tracing::warn!(%error, "the log's folder cannot be looked at; it is tried again");
                }
            }
        }
    }

    /// Finds models that are new.
    fn look(&mut self) -> Result<(), SourceError> {
        let log = self.log.clone();
        let topics = log.folder.topics().map_err(|error| passing(log.folder.dir(), error))?;
        for topic in topics {
            let Some(model) = model_of(&topic, &log.prefix).filter(|model| !self.assigned.contains(*model)) else {
                continue;
            };
            let outcomes = wire::topic(&log.prefix, model, Kind::Outcomes);
            match (log.partition_count(&topic), log.partition_count(&outcomes)) {
                (Ok(count), Ok(_)) => {
                    self.assigned.insert(model.to_string());
                    self.found.push_back((model.to_string(), (0..count).collect()));
                }
                // The writer makes one topic after the other.
                (Err(SourceError::UnknownTopic { .. }), _) | (_, Err(SourceError::UnknownTopic { .. })) => {}
                (Err(error), _) | (_, Err(error)) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Log {
    pub fn cluster_id(&self) -> &str {
        &self.cluster_id
    }

    pub fn partition_count(&self, topic: &str) -> Result<i32, SourceError> {
        let count = self.folder.partition_count(topic).map_err(|error| passing(self.folder.dir(), error))?;
        count.ok_or_else(|| SourceError::UnknownTopic { topic: topic.to_string() })
    }

    pub fn feed(self: &Arc<Log>, model: &str) -> Feed {
        let topic = |kind| wire::topic(&self.prefix, model, kind);
        let topics = [topic(Kind::Predictions), topic(Kind::Outcomes)];
        Feed { log: self.clone(), topics, partitions: BTreeMap::new(), turn: 0 }
    }

    pub fn side_feed(self: &Arc<Log>, topic: &str) -> SideFeed {
        SideFeed { log: self.clone(), topic: topic.to_string(), partitions: Vec::new() }
    }

    fn extent(&self, topic: &str, partition: i32) -> Result<Extent, SourceError> {
        let dir = self.folder.partition_dir(topic, partition);
        if !dir.is_dir() {
            return Err(SourceError::UnknownTopic { topic: format!("{topic} partition {partition}") });
        }
        flywheel_spool::extent(&dir).map_err(spool_error)
    }

    /// Opens a partition at `next`, or at its beginning; out of range where that offset is not there.
    fn open(&self, topic: &str, partition: i32, next: Option<u64>) -> Result<Reader, SourceError> {
        let Extent { oldest, next: end } = self.extent(topic, partition)?;
        let from = next.unwrap_or(oldest);
        if from < oldest || from > end {
            let topic = topic.to_string();
            let number = |offset: u64| i64::try_from(offset).unwrap_or(i64::MAX);
            let (offset, low, end) = (number(from), number(oldest), number(end));
            return Err(SourceError::OutOfRange { topic, partition, offset, low, end });
        }
        Reader::open(&self.folder.partition_dir(topic, partition), from).map_err(spool_error)
    }

    fn set_landed(&self, topic: &str, partition: i32, next_offset: u64) -> Result<(), SourceError> {
        self.folder.set_landed(topic, partition, next_offset).map_err(|error| passing(self.folder.dir(), error))
    }
}

/// One partition that is read.
struct Partition {
    kind: Kind,
    number: i32,
    /// Where to begin; none: at the beginning.
    from: Option<u64>,
    /// Opened at the first poll.
    reader: Option<Reader>,
    ahead: VecDeque<Record>,
    at_end: bool,
    paused: bool,
}

impl Partition {
    fn new(kind: Kind, number: i32, from: Option<u64>) -> Partition {
        Partition { kind, number, from, reader: None, ahead: VecDeque::new(), at_end: false, paused: false }
    }

    /// Reads ahead where nothing is.
    fn fill(&mut self, log: &Log, topic: &str) -> Result<(), SourceError> {
        if !self.ahead.is_empty() {
            return Ok(());
        }
        let reader = match &mut self.reader {
            Some(reader) => reader,
            None => self.reader.insert(log.open(topic, self.number, self.from)?),
        };
        let (expected, skipped) = (reader.position(), reader.skipped().spans);
        let records = reader.read(READ_BYTES).map_err(spool_error)?;
        if let Some(first) = records.first().filter(|first| first.sequence > expected) {
            // Segments go when they are landed; the reader was overtaken only where the marker was another's. Damage is
            // passed: it is said here once, and the rest goes on.
            if reader.skipped().spans == skipped {
                let number = |offset: u64| i64::try_from(offset).unwrap_or(i64::MAX);
                let (offset, low, end) = (number(expected), number(first.sequence), number(reader.position()));
                self.reader = None;
                self.from = Some(expected);
                return Err(SourceError::OutOfRange { topic: topic.into(), partition: self.number, offset, low, end });
            }
            let (partition, missing) = (self.number, first.sequence - expected);
            tracing::error!(topic, partition, missing, "records of the file: log are damaged and lost to the tables");
        }
        self.at_end = records.is_empty();
        for record in records {
            if let Some(record) = read(self.kind, self.number, &record) {
                self.ahead.push_back(record);
                continue;
            }
            // It is met again when what lies before it is handed out, and each time after.
            self.reader = None;
            self.from = Some(record.sequence);
            if self.ahead.is_empty() {
                let (number, offset) = (self.number, record.sequence);
                return Err(SourceError::Config {
                    what: format!(
                        "{topic} partition {number} offset {offset}: a record of a form that this program does not \
                         know; use the version that wrote it"
                    ),
                });
            }
            break;
        }
        Ok(())
    }

    /// Hands out what was read ahead.
    fn take(&mut self, max: usize, out: &mut Vec<Record>) {
        let count = max.min(self.ahead.len());
        out.extend(self.ahead.drain(..count));
    }
}

/// The reader of one model's topics.
pub struct Feed {
    log: Arc<Log>,
    topics: [String; 2],
    partitions: BTreeMap<(Kind, i32), Partition>,
    /// Which partition comes first at the next poll, so that none waits behind another's backlog.
    turn: usize,
}

impl Feed {
    fn topic(&self, kind: Kind) -> &str {
        &self.topics[usize::from(kind == Kind::Outcomes)]
    }

    pub fn assign(&mut self, kind: Kind, partition: i32, next_offset: i64) -> Result<(), SourceError> {
        let from = u64::try_from(next_offset).ok();
        self.partitions.insert((kind, partition), Partition::new(kind, partition, from));
        Ok(())
    }

    pub fn unassign(&mut self, partition: i32) {
        self.partitions.retain(|(_, number), _| *number != partition);
    }

    pub fn pause(&mut self, kind: Kind, partition: i32) {
        if let Some(partition) = self.partitions.get_mut(&(kind, partition)) {
            partition.paused = true;
            partition.reader = None;
            partition.ahead.clear();
        }
    }

    pub async fn poll(&mut self, records_max: usize, wait: Duration) -> Result<Vec<Record>, SourceError> {
        let until = Instant::now() + wait;
        loop {
            let records = self.take(records_max)?;
            let left = until.saturating_duration_since(Instant::now());
            if !records.is_empty() || left.is_zero() {
                return Ok(records);
            }
            tokio::time::sleep(left.min(POLL_INTERVAL)).await;
        }
    }

    /// What is there: from each partition its share, and more from those that have more.
    fn take(&mut self, records_max: usize) -> Result<Vec<Record>, SourceError> {
        let (log, topics) = (self.log.clone(), self.topics.clone());
        let mut active: Vec<_> = self.partitions.values_mut().filter(|partition| !partition.paused).collect();
        if active.is_empty() {
            return Ok(Vec::new());
        }
        let share = share(&mut active, &mut self.turn, records_max);
        let mut records = Vec::new();
        let mut failed = None;
        loop {
            let before = records.len();
            for partition in &mut active {
                let room = share.min(records_max.saturating_sub(records.len()));
                if room == 0 {
                    break;
                }
                match partition.fill(&log, &topics[usize::from(partition.kind == Kind::Outcomes)]) {
                    Ok(()) => partition.take(room, &mut records),
                    Err(error) => failed = Some(error),
                }
            }
            if records.len() == before || records.len() >= records_max || failed.is_some() {
                break;
            }
        }
        // What was read before an error is handed out; the error comes again with the next call.
        match failed {
            Some(error) if records.is_empty() => Err(error),
            _ => Ok(records),
        }
    }

    pub fn at_end(&self) -> bool {
        let mut active = self.partitions.values().filter(|partition| !partition.paused);
        active.all(|partition| partition.at_end && partition.ahead.is_empty())
    }

    pub fn landed(&mut self, kind: Kind, partition: i32, next_offset: i64) {
        let Ok(next_offset) = u64::try_from(next_offset) else { return };
        if let Err(error) = self.log.set_landed(self.topic(kind), partition, next_offset) {
            // The log keeps more than it need until the next marker is written.
            tracing::warn!(%error, topic = self.topic(kind), partition, "what is landed could not be marked");
        }
    }

    pub fn offsets(&self, kind: Kind, partition: i32) -> Result<(i64, i64), SourceError> {
        let Extent { oldest, next } = self.log.extent(self.topic(kind), partition)?;
        Ok((i64::try_from(oldest).unwrap_or(i64::MAX), i64::try_from(next).unwrap_or(i64::MAX)))
    }
}

/// The reader of a topic of all models; its marker is what it has committed.
pub struct SideFeed {
    log: Arc<Log>,
    topic: String,
    /// With the offset after the last record handed out, where one was.
    partitions: Vec<(Partition, Option<u64>)>,
}

impl SideFeed {
    pub async fn poll(&mut self, max: usize, wait: Duration) -> Result<Vec<Record>, SourceError> {
        let until = Instant::now() + wait;
        loop {
            let records = self.take(max)?;
            let left = until.saturating_duration_since(Instant::now());
            if !records.is_empty() || left.is_zero() {
                return Ok(records);
            }
            tokio::time::sleep(left.min(POLL_INTERVAL)).await;
        }
    }

    fn take(&mut self, max: usize) -> Result<Vec<Record>, SourceError> {
        if self.partitions.is_empty() {
            // The writer makes the topic with its first record.
            let count = match self.log.partition_count(&self.topic) {
                Err(SourceError::UnknownTopic { .. }) => return Ok(Vec::new()),
                other => other?,
            };
            for number in 0..count {
                let landed = self.log.folder.landed(&self.topic, number);
                let from = landed.map_err(|error| passing(self.log.folder.dir(), error))?;
                self.partitions.push((Partition::new(Kind::Predictions, number, from), None));
            }
        }
        let mut records = Vec::new();
        for (partition, handed_out) in &mut self.partitions {
            partition.fill(&self.log, &self.topic)?;
            let before = records.len();
            partition.take(max.saturating_sub(before), &mut records);
            if let Some(last) = records[before..].last() {
                *handed_out = u64::try_from(last.offset + 1).ok();
            }
        }
        Ok(records)
    }

    pub fn commit(&mut self) -> Result<(), SourceError> {
        for (partition, handed_out) in &mut self.partitions {
            if let Some(next) = *handed_out {
                self.log.set_landed(&self.topic, partition.number, next)?;
                *handed_out = None;
            }
        }
        Ok(())
    }
}

fn read(kind: Kind, partition: i32, record: &flywheel_spool::Record) -> Option<Record> {
    let found = log::decode(&record.payload)?;
    let bytes = |part: Option<&[u8]>| part.map(|part| record.payload.slice_ref(part));
    let text = |value: Option<&[u8]>| value.and_then(|value| std::str::from_utf8(value).ok()).map(str::to_string);
    let mut read = Record {
        kind,
        partition,
        offset: i64::try_from(record.sequence).ok()?,
        time_ms: found.time_ms,
        time_by_log: true,
        key: bytes(found.key),
        value: bytes(found.value),
        producer_id: None,
        producer_seq: None,
        tick: false,
        gate: None,
        headers: Vec::<(String, Option<Bytes>)>::new(),
    };
    for (name, value) in found.headers {
        match name {
            wire::PRODUCER_ID => read.producer_id = text(value),
            wire::PRODUCER_SEQ => read.producer_seq = text(value).and_then(|text| text.parse().ok()),
            wire::TICK => read.tick = true,
            wire::GATE => read.gate = Some(bytes(value).unwrap_or_default()),
            _ => {}
        }
    }
    Some(read)
}

fn passing(dir: &Path, cause: impl ToString) -> SourceError {
    SourceError::Passing { what: format!("file: log in {}", dir.display()), cause: cause.to_string() }
}

fn spool_error(error: SpoolError) -> SourceError {
    match error {
        SpoolError::Version { .. } => SourceError::Config { what: error.to_string() },
        error => SourceError::Passing { what: "file: log".to_string(), cause: error.to_string() },
    }
}
