//! The writer of a `file:` log: topics and partitions as folders, each partition a spool of its own.
//!
//! The folder and the records are described in [`flywheel_schemas::log`]. This process is the log's one writer and holds
//! its lock; readers take none. A record's append time is set here: that of its envelope in a replay, else
//! `max(now, the last one in its partition)`. It is written and synced before it counts as delivered.
//!
//! A task of the log, the keeper, looks every second at the joiner's markers and lets go of the segments below them, and
//! appends a tick record to every partition of every model at each multiple of 5 minutes of the clock (in a replay ticks
//! are records of the replay). A partition is bounded; when it is full the forwarder waits, and with it nothing else.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use flywheel_schemas::log::{self, Folder};
use flywheel_schemas::partition;
use flywheel_schemas::wire::{Kind, REPLAY_TICK_MS};
use flywheel_spool::{Accepted, AppendError, Options, Pending, SchemaKey, Spool};
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::headers::TICK;
use super::policy::{Failure, FailureKind};
use super::{DestinationError, Message, Place, Report, SendError};

/// How often the keeper looks.
const KEEP_INTERVAL: Duration = Duration::from_secs(1);
/// The most partitions of a topic: each is a folder, and a thread of the writer.
const PARTITIONS_MAX: i32 = 1024;

/// Read at a time where the last record is looked for.
const READ_BYTES: usize = 256 * 1024;

/// The bounds of each partition.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Of records that are not landed yet: hours of a busy model, and no machine's whole disk.
    pub(super) partition_bytes_max: u64,
    /// Small enough that what is landed is soon let go.
    pub(super) segment_bytes: u64,
    /// Above what intake lets pass, headers included.
    pub(super) record_bytes_max: usize,
}

const BOUNDS: Bounds = Bounds {
    partition_bytes_max: 1024 * 1024 * 1024,
    segment_bytes: 16 * 1024 * 1024,
    record_bytes_max: 8 * 1024 * 1024,
};

/// The log. Clones are the same log; it is closed with the last one.
#[derive(Clone)]
pub struct Log {
    inner: Arc<Inner>,
}

struct Inner {
    folder: Folder,
    partitions: i32,
    replay: bool,
    bounds: Bounds,
    topics: Mutex<HashMap<String, Arc<Topic>>>,
    keeper: Mutex<Option<JoinHandle<()>>>,
    /// Held as long as the log is open.
    _lock: File,
}

struct Topic {
    name: String,
    partitions: Vec<Partition>,
}

struct Partition {
    spool: Spool,
    /// The append time of the last record.
    last_ms: Mutex<i64>,
}

impl Log {
    /// Opens the log in `dir` for writing, making it where there is none, with all of its topics. `partitions` is for
    /// topics that are yet to be made. Blocks for the disk; to be called within a runtime, which the keeper needs.
    pub fn open(dir: &Path, partitions: i32, replay: bool) -> Result<Log, DestinationError> {
        Log::open_within(dir, partitions, replay, BOUNDS)
    }

    pub(super) fn open_within(
        dir: &Path,
        partitions: i32,
        replay: bool,
        bounds: Bounds,
    ) -> Result<Log, DestinationError> {
        let folder = Folder::new(dir);
        let fault = |what: &str, error: std::io::Error| DestinationError::Local {
            dir: dir.to_path_buf(),
            cause: format!("{what}: {error}"),
        };
        if !(1..=PARTITIONS_MAX).contains(&partitions) {
            let what =
                format!("log.partitions is {partitions}; a file: log has 1 to {PARTITIONS_MAX} partitions per topic");
            return Err(DestinationError::Config { what });
        }
        std::fs::create_dir_all(folder.topics_dir()).map_err(|error| fault("cannot make the folder", error))?;
        let lock = File::create(folder.lock_file()).map_err(|error| fault("cannot make the lock", error))?;
        lock.try_lock().map_err(|error| DestinationError::Local {
            dir: dir.to_path_buf(),
            cause: format!("another sidecar writes to this log ({error}); a file: log has one writer"),
        })?;
        if folder.cluster_id().map_err(|error| fault("cannot read cluster-id", error))?.is_none() {
            let id = Uuid::new_v4().to_string();
            log::replace(&folder.cluster_id_file(), &id).map_err(|error| fault("cannot write cluster-id", error))?;
        }
        let mut topics = HashMap::new();
        for name in folder.topics().map_err(|error| fault("cannot list the topics", error))? {
            topics.insert(name.clone(), Arc::new(Topic::open(&folder, &name, bounds)?));
        }
        let (topics, keeper) = (Mutex::new(topics), Mutex::new(None));
        let inner = Arc::new(Inner { folder, partitions, replay, bounds, topics, keeper, _lock: lock });
        let keeper = tokio::spawn(keep(Arc::downgrade(&inner), (!replay).then(now_ms)));
        *lock_of(&inner.keeper) = Some(keeper);
        Ok(Log { inner })
    }

    /// A lane for one forwarder.
    pub fn lane(&self) -> Lane {
        Lane { log: self.clone(), topics: HashMap::new(), waiting: VecDeque::new() }
    }

    /// The topic, made with all of its partitions where it is not there.
    fn topic(&self, name: &str, single: bool) -> Result<Arc<Topic>, DestinationError> {
        let inner = &self.inner;
        let mut topics = lock_of(&inner.topics);
        if let Some(topic) = topics.get(name) {
            return Ok(topic.clone());
        }
        let count = if single { 1 } else { inner.partitions };
        let fault = |error: std::io::Error| DestinationError::Local {
            dir: inner.folder.topic_dir(name),
            cause: format!("cannot make the topic: {error}"),
        };
        // Made aside and renamed, so that a reader never sees a part of the partitions.
        let aside = inner.folder.topics_dir().join(format!(".{name}"));
        match std::fs::remove_dir_all(&aside) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(fault(error)),
            _ => {}
        }
        for partition in 0..count {
            std::fs::create_dir_all(aside.join(partition.to_string())).map_err(fault)?;
        }
        std::fs::rename(&aside, inner.folder.topic_dir(name)).map_err(fault)?;
        let topic = Arc::new(Topic::open(&inner.folder, name, inner.bounds)?);
        topics.insert(name.to_string(), topic.clone());
        Ok(topic)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(keeper) = lock_of(&self.keeper).take() {
            keeper.abort();
        }
    }
}

impl Topic {
    fn open(folder: &Folder, name: &str, bounds: Bounds) -> Result<Topic, DestinationError> {
        let dir = folder.topic_dir(name);
        let local = |cause: String| DestinationError::Local { dir: dir.clone(), cause };
        let count = folder.partition_count(name).map_err(|error| local(error.to_string()))?;
        let count = count.ok_or_else(|| local("a topic without partitions; remove the folder".to_string()))?;
        let mut partitions = Vec::new();
        for partition in 0..count {
            let options = Options {
                segment_bytes: bounds.segment_bytes,
                max_bytes: bounds.partition_bytes_max,
                record_bytes_max: bounds.record_bytes_max,
                accepted: Accepted::Disk,
                ..Options::default()
            };
            let dir = folder.partition_dir(name, partition);
            let spool = Spool::open(&dir, options).map_err(|error| local(error.to_string()))?;
            let last_ms = last_time_ms(&spool).map_err(|error| local(error.to_string()))?;
            partitions.push(Partition { spool, last_ms: Mutex::new(last_ms) });
        }
        Ok(Topic { name: name.to_string(), partitions })
    }

    fn count(&self) -> i32 {
        self.partitions.len() as i32
    }

    fn partition(&self, partition: i32) -> Option<&Partition> {
        self.partitions.get(usize::try_from(partition).ok()?)
    }

    /// Whether it is one of a model's two topics, whose time ticks.
    fn ticks(&self) -> bool {
        let kinds = [Kind::Predictions, Kind::Outcomes];
        kinds.iter().any(|kind| self.name.strip_suffix(kind.name()).is_some_and(|rest| rest.ends_with('.')))
    }
}

impl Partition {
    /// Appends a record; `time_ms` none: now.
    fn append(
        &self,
        time_ms: Option<i64>,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&str, Option<&[u8]>)],
    ) -> Result<Pending, AppendError> {
        // The time is set under the same lock as the place, so that times do not go back within a partition.
        let mut last_ms = lock_of(&self.last_ms);
        let time_ms = time_ms.unwrap_or_else(|| now_ms().max(*last_ms));
        let pending = self.spool.append(SchemaKey::NONE, |_, out| log::encode(out, time_ms, key, value, headers))?;
        *last_ms = time_ms.max(*last_ms);
        Ok(pending)
    }
}

/// The append time of the last record; the least of all times where there is none.
fn last_time_ms(spool: &Spool) -> Result<i64, flywheel_spool::SpoolError> {
    let mut last_ms = i64::MIN;
    let mut reader = spool.reader(spool.next_sequence().saturating_sub(1));
    loop {
        let records = reader.read(READ_BYTES)?;
        if records.is_empty() {
            return Ok(last_ms);
        }
        let times = records.iter().filter_map(|record| log::decode(&record.payload)).map(|record| record.time_ms);
        last_ms = times.fold(last_ms, i64::max);
    }
}

/// The keeper: ends with the log. `ticked_ms` is the time up to which ticks were appended; none where it appends none.
async fn keep(log: Weak<Inner>, mut ticked_ms: Option<i64>) {
    loop {
        tokio::time::sleep(until_next_look(ticked_ms)).await;
        let Some(inner) = log.upgrade() else { return };
        let topics: Vec<_> = lock_of(&inner.topics).values().cloned().collect();
        if let Some(last_ms) = &mut ticked_ms {
            let now_ms = now_ms();
            if now_ms.div_euclid(REPLAY_TICK_MS) > last_ms.div_euclid(REPLAY_TICK_MS) {
                *last_ms = now_ms;
                tick(&topics);
            }
        }
        let (folder, segment_bytes) = (inner.folder.clone(), inner.bounds.segment_bytes);
        // The log itself is not held over the wait: it may be closed meanwhile.
        drop(inner);
        let work =
            tokio::task::spawn_blocking(move || topics.iter().for_each(|topic| release(&folder, topic, segment_bytes)));
        if let Err(error) = work.await {
            tracing::error!(%error, "the file: log's keeper failed; it goes on");
        }
    }
}

/// A second, and less where a multiple of 5 minutes comes before.
fn until_next_look(ticked_ms: Option<i64>) -> Duration {
    let Some(_) = ticked_ms else { return KEEP_INTERVAL };
    let left_ms = REPLAY_TICK_MS - now_ms().rem_euclid(REPLAY_TICK_MS);
    KEEP_INTERVAL.min(Duration::from_millis(left_ms.unsigned_abs()))
}

fn tick(topics: &[Arc<Topic>]) {
    for topic in topics.iter().filter(|topic| topic.ticks()) {
        for (number, partition) in topic.partitions.iter().enumerate() {
            // A tick that finds no room is none: the records that fill the partition say the time as well.
            if let Err(error) = partition.append(None, None, None, &TICK) {
                tracing::warn!(topic = topic.name, partition = number, %error, "no tick record appended");
            }
        }
    }
}

/// Lets go of what lies below the joiner's markers.
fn release(folder: &Folder, topic: &Topic, segment_bytes: u64) {
    for (number, partition) in (0..).zip(&topic.partitions) {
        let usage = partition.spool.usage();
        // Only whole segments go, so below one there is nothing to gain.
        if usage.bytes < segment_bytes {
            continue;
        }
        let released = match folder.landed(&topic.name, number) {
            Ok(Some(landed)) if landed > usage.cursor => {
                partition.spool.advance(landed, b"").map_err(|error| error.to_string())
            }
            Ok(_) => Ok(()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = released {
            tracing::warn!(topic = topic.name, partition = number, error, "landed segments are still kept");
        }
    }
}

/// One forwarder's way into the log.
pub struct Lane {
    log: Log,
    topics: HashMap<String, Arc<Topic>>,
    /// Appended, and not yet said to be synced; bounded by the forwarder's window.
    waiting: VecDeque<(u64, Pending)>,
}

impl Lane {
    /// How many partitions the topic has; it is made where it is not there.
    pub fn partitions(&mut self, topic: &str, single: bool) -> Result<i32, Failure> {
        if let Some(topic) = self.topics.get(topic) {
            return Ok(topic.count());
        }
        let opened = self.log.topic(topic, single);
        let opened = opened.map_err(|error| Failure::new(FailureKind::Passing, error.to_string()))?;
        let count = opened.count();
        self.topics.insert(topic.to_string(), opened);
        Ok(count)
    }

    pub fn send(&mut self, token: u64, message: &Message<'_>) -> Result<(), SendError> {
        let topic = self.topics.get(message.topic);
        let partition = topic.and_then(|topic| match message.place {
            Place::Key => topic.partition(partition::of(message.key.unwrap_or_default(), topic.count())),
            Place::Partition(partition) => topic.partition(partition),
        });
        let Some(partition) = partition else {
            return Err(SendError::Failed(Failure::new(FailureKind::UnknownTopic, "no such partition in the log")));
        };
        let time_ms = self.log.inner.replay.then_some(message.time_ms);
        match partition.append(time_ms, message.key, message.value, message.headers) {
            Ok(pending) => {
                self.waiting.push_back((token, pending));
                Ok(())
            }
            Err(AppendError::Full) => Err(SendError::Full),
            Err(error) => Err(SendError::Failed(failure(error))),
        }
    }

    /// The next report; waits for ever where nothing is on its way. Dropping the future loses none.
    pub async fn report(&mut self) -> Report {
        let Some((token, pending)) = self.waiting.front_mut() else { return std::future::pending().await };
        let (token, result) = (*token, pending.await);
        self.waiting.pop_front();
        Report { token, result: result.map(|_| ()).map_err(failure) }
    }

    /// Forgets what is on its way.
    pub fn renew(&mut self) {
        self.waiting.clear();
    }
}

fn failure(error: AppendError) -> Failure {
    let kind = match error {
        AppendError::TooLarge => FailureKind::TooLarge,
        AppendError::Full | AppendError::Failed | AppendError::Closed => FailureKind::Passing,
    };
    Failure::new(kind, format!("file: log: {error}"))
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// A lock whose holder panicked guards plain values that are whole between statements.
fn lock_of<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
