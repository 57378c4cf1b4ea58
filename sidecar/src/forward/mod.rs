//! From the spool to the log: Kafka, or a folder.
//!
//! One [`Forwarder`] tails one spool directory, in order, into a [`Destination`] that all forwarders share. A record goes
//! out as `frame(schema id) + datum` with its prediction id as key; the id is looked up here, so that neither a registry
//! nor a broker that is away refuses a record at intake. Whatever stops one directory (a topic that is missing, a schema
//! that is not registered) stops no other.
//!
//! The cursor of the spool moves in order, and only behind records that the log has acknowledged; it is persisted every
//! 200 ms and at the end, with a note of what went before it. After a crash, and after any failure, records are sent again
//! from the first one that is not acknowledged: every record comes at least once, in order within its partition, and the
//! joiner removes the copies by their ids. What each kind of failure leads to is said in [`policy`].
//!
//! Bounds: at most 10,000 records and 8 MiB of each directory are on their way (`window`), beside what librdkafka queues
//! for all; a broker that is away for hours costs that much memory and no more. The rest is on the spool's disk.
//!
//! A time record (replay) becomes a tick record in every partition of both topics, at its place among the others.
//! A record that can never be sent (longer than the topic takes, damaged, without its schema) is handed to
//! [`Watcher::dead_letter`], and the cursor moves on once it is taken there.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use flywheel_schemas::registry::Registry;
use flywheel_schemas::wire;
use flywheel_spool::{Reader, Record, Spool, SpoolError};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::time::Instant;

pub mod brokers;
mod headers;
pub mod kafka;
pub mod local;
pub mod policy;
mod schema_ids;
mod topics;
mod window;

use brokers::Brokers;
use headers::{Header, TICK, Texts};
use policy::{Action, BackOff, Failure, FailureKind};
use schema_ids::SchemaIds;
pub use topics::Topics;
use window::Window;

use crate::record::{Envelope, Note, RecordKind};

/// How often the cursor is persisted while it moves: two syncs each time, and so much is sent again after a crash.
const PERSIST_INTERVAL: Duration = Duration::from_millis(200);
/// Read from the spool at a time.
const READ_BYTES: usize = 1024 * 1024;
/// Reports taken at a time, so that the cursor and the next records do not wait long.
const REPORTS_MAX: usize = 1_000;
/// The wait where the destination's queue is full: short beside the time that a full queue lasts.
const FULL_WAIT: Duration = Duration::from_millis(50);

/// Where the log is.
#[derive(Debug, Clone, Default)]
pub struct LogConfig {
    /// `kafka://host:port,host:port` or `file:DIR`.
    pub url: String,
    /// The first part of every topic's name.
    pub prefix: String,
    /// `file:` only: how many partitions a new topic gets.
    pub partitions: i32,
    /// The time of a record is that of its envelope (Kafka: its create time), and time records become ticks.
    pub replay: bool,
    /// Options that are passed on to librdkafka; those that the promises rest on are refused.
    pub librdkafka: BTreeMap<String, String>,
}

/// Why a destination cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum DestinationError {
    #[error("{what}")]
    Config { what: String },
    #[error("{}: {cause}", dir.display())]
    Local { dir: PathBuf, cause: String },
}

/// The log, for all forwarders of the process. Clones are the same one.
#[derive(Clone)]
pub enum Destination {
    Kafka(kafka::Producer),
    Local(local::Log),
}

impl Destination {
    /// Opens the log. Kafka need not be there; a `file:` folder is made where there is none, and locked.
    pub async fn open(config: &LogConfig) -> Result<Destination, DestinationError> {
        if let Some(servers) = config.url.strip_prefix("kafka://") {
            Ok(Destination::Kafka(kafka::Producer::open(servers, config)?))
        } else if let Some(dir) = config.url.strip_prefix("file:") {
            let dir = dir.strip_prefix("//").unwrap_or(dir);
            Ok(Destination::Local(local::Log::open(Path::new(dir), config.partitions, config.replay)?))
        } else {
            let what = format!("log.url is {:?}; it is kafka://host:port,… or file:DIR", config.url);
            Err(DestinationError::Config { what })
        }
    }

    /// What is known of the brokers; none where there are none.
    pub fn brokers(&self) -> Option<Arc<Brokers>> {
        match self {
            Destination::Kafka(producer) => Some(producer.brokers()),
            Destination::Local(_) => None,
        }
    }

    fn lane(&self) -> Lane {
        match self {
            Destination::Kafka(producer) => Lane::Kafka(producer.lane()),
            Destination::Local(log) => Lane::Local(log.lane()),
        }
    }
}

/// What goes to the log.
pub struct Message<'a> {
    pub topic: &'a str,
    pub place: Place,
    /// Used in a replay.
    pub time_ms: i64,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub headers: &'a [Header<'a>],
}

/// Which partition.
#[derive(Debug, Clone, Copy)]
pub enum Place {
    /// That of the key; any where there is no key.
    Key,
    Partition(i32),
}

/// What became of one message.
pub struct Report {
    pub token: u64,
    pub result: Result<(), Failure>,
}

/// Why a message was not taken.
#[derive(Debug)]
pub enum SendError {
    /// The queue is at its bound; later there is room.
    Full,
    Failed(Failure),
}

/// One forwarder's way into the destination. Reports come for every message taken, once.
enum Lane {
    Kafka(kafka::Lane),
    Local(local::Lane),
}

impl Lane {
    /// How many partitions a topic has.
    async fn partitions(&mut self, topic: &str, single: bool) -> Result<i32, Failure> {
        match self {
            Lane::Kafka(lane) => lane.partitions(topic).await,
            Lane::Local(lane) => lane.partitions(topic, single),
        }
    }

    fn send(&mut self, token: u64, message: &Message<'_>) -> Result<(), SendError> {
        match self {
            Lane::Kafka(lane) => lane.send(token, message),
            Lane::Local(lane) => lane.send(token, message),
        }
    }

    async fn report(&mut self) -> Report {
        match self {
            Lane::Kafka(lane) => lane.report().await,
            Lane::Local(lane) => lane.report().await,
        }
    }

    /// A new beginning after a fatal error: what was on its way is reported no more.
    async fn renew(&mut self) -> Result<(), Failure> {
        match self {
            Lane::Kafka(lane) => lane.renew().await,
            Lane::Local(lane) => {
                lane.renew();
                Ok(())
            }
        }
    }
}

/// Why a forwarder stands still.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocked {
    /// A stable word: `registry`, `schema`, `topic`, `denied`, `rejected`, `log`, `full`, `spool`, `dead_letter`.
    pub cause: &'static str,
    pub detail: String,
    /// Whether a person is needed.
    pub alarm: bool,
}

/// A record that can never be sent.
#[derive(Debug)]
pub struct Undeliverable<'a> {
    pub sequence: u64,
    /// None where the payload cannot be read.
    pub envelope: Option<Envelope<'a>>,
    /// The payload as it is in the spool.
    pub payload: &'a [u8],
    /// A stable word: `too_large`, `unreadable`, `schema_lost`, `misplaced`.
    pub reason: &'static str,
    pub detail: String,
}

/// Who is told how it goes: metrics, alarms, dead letters.
pub trait Watcher: Send + Sync + 'static {
    /// A record is in the log and the cursor may pass it.
    fn delivered(&self, kind: RecordKind, bytes: usize) {
        let _ = (kind, bytes);
    }

    /// The forwarder stands still for another reason than before, or goes on (none).
    fn blocked(&self, blocked: Option<&Blocked>) {
        let _ = blocked;
    }

    /// Takes a record that can never be sent. False: not now; it is asked again, and nothing else goes on meanwhile.
    fn dead_letter<'a>(&'a self, letter: Undeliverable<'a>) -> BoxFuture<'a, bool> {
        tracing::error!(sequence = letter.sequence, reason = letter.reason, detail = letter.detail, "record given up");
        Box::pin(std::future::ready(true))
    }
}

/// What was not forwarded when a forwarder stopped; it stays in the spool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remaining {
    pub records: u64,
}

/// Tails one spool directory into the log.
pub struct Forwarder {
    spool: Spool,
    topics: Topics,
    ids: SchemaIds,
    lane: Lane,
    watcher: Arc<dyn Watcher>,
    reader: Reader,
    /// Read and not sent; at most one reading.
    ahead: VecDeque<Record>,
    /// The first of `ahead`, where it is opened in the window and some of its copies were sent.
    opened: Option<Opened>,
    window: Window,
    persisted: u64,
    texts: Texts,
    value: Vec<u8>,
    back_off: BackOff,
    blocked: Option<Blocked>,
    /// Nothing is sent before.
    resume_at: Option<Instant>,
    /// A failure was met: once nothing is in flight, go back to the cursor.
    rewinding: bool,
    /// Up to this sequence records go one by one.
    alone_until: u64,
}

#[derive(Clone, Copy)]
struct Opened {
    token: u64,
    copies: u32,
}

/// Where the shutdown stands.
struct Stop<F> {
    asked: Pin<Box<F>>,
    drain: Duration,
    deadline: Option<Instant>,
}

enum StopEvent {
    Asked,
    Expired,
}

impl<F: Future<Output = ()>> Stop<F> {
    /// Dropping the future loses nothing.
    async fn next(&mut self) -> StopEvent {
        match self.deadline {
            Some(deadline) => {
                tokio::time::sleep_until(deadline).await;
                StopEvent::Expired
            }
            None => {
                self.asked.as_mut().await;
                self.deadline = Some(Instant::now() + self.drain);
                StopEvent::Asked
            }
        }
    }
}

/// How an attempt to send ended.
enum Sent {
    Whole,
    /// The rest of it, or it itself, has to wait.
    NotNow,
}

impl Forwarder {
    pub fn new(
        spool: Spool,
        topics: Topics,
        registry: Registry,
        auto_register: bool,
        destination: &Destination,
        watcher: Arc<dyn Watcher>,
    ) -> Forwarder {
        let cursor = spool.cursor();
        Forwarder {
            reader: spool.reader(cursor.sequence),
            topics,
            ids: SchemaIds::new(registry, auto_register),
            lane: destination.lane(),
            watcher,
            ahead: VecDeque::new(),
            opened: None,
            window: Window::new(cursor.sequence, Note::decode(&cursor.note)),
            persisted: cursor.sequence,
            texts: Texts::default(),
            value: Vec::new(),
            back_off: BackOff::default(),
            blocked: None,
            resume_at: None,
            rewinding: false,
            alone_until: 0,
            spool,
        }
    }

    /// Forwards until `shutdown` resolves, and then on until the spool is empty or `drain` is over. Persists the cursor and
    /// says what is left. Intake is to be stopped, and the spool synced, before `shutdown` resolves.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>, drain: Duration) -> Remaining {
        let mut stop = Stop { asked: Box::pin(shutdown), drain, deadline: None };
        let mut persist = tokio::time::interval(PERSIST_INTERVAL);
        persist.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        if let Err(failure) = self.open_topics().await {
            tracing::debug!(model = self.topics.name(), %failure, "topics are not there yet");
        }
        loop {
            self.settle();
            if stop.deadline.is_some() && self.window.cursor() >= self.spool.next_sequence() {
                break;
            }
            // Registry and metadata are asked in here, so a stop must be able to end it.
            tokio::select! {
                biased;
                event = stop.next() => match event {
                    StopEvent::Asked => continue,
                    StopEvent::Expired => break,
                },
                () = self.send_on() => {}
            }
            let resume_at = self.resume_at.unwrap_or_else(|| Instant::now() + PERSIST_INTERVAL);
            let waits = self.resume_at.is_some();
            let reads = !waits && !self.rewinding && self.ahead.is_empty() && self.window.has_room();
            tokio::select! {
                biased;
                event = stop.next() => match event {
                    StopEvent::Asked => continue,
                    StopEvent::Expired => break,
                },
                _ = persist.tick() => self.persist().await,
                report = self.lane.report() => self.take_reports(report).await,
                () = tokio::time::sleep_until(resume_at), if waits => self.resume_at = None,
                () = self.reader.wait(), if reads => {}
            }
        }
        self.settle();
        self.persist().await;
        let records = self.spool.next_sequence().saturating_sub(self.window.cursor());
        if records > 0 {
            tracing::warn!(model = self.topics.name(), records, "records stay in the spool for the next start");
        }
        Remaining { records }
    }

    /// Makes the topics of a `file:` log, so that the joiner finds the model before its first record.
    async fn open_topics(&mut self) -> Result<(), Failure> {
        for target in self.topics.all().to_vec() {
            self.lane.partitions(&target.topic, target.single).await?;
        }
        Ok(())
    }

    /// Moves the cursor behind what is delivered, and goes back to it after a failure once nothing is in flight.
    fn settle(&mut self) {
        let before = self.window.cursor();
        while let Some(passed) = self.window.advance() {
            if let Some(head) = passed.head {
                self.watcher.delivered(head.kind, passed.bytes);
            }
        }
        if self.window.cursor() > before && !self.rewinding {
            self.clear_blocked();
        }
        if self.rewinding && self.window.flying() == 0 {
            self.window.rewind();
            self.reader.seek(self.window.cursor());
            self.ahead.clear();
            self.opened = None;
            self.rewinding = false;
        }
    }

    /// Sends what there is, until the window is full, the spool is at its end, or something makes it wait.
    async fn send_on(&mut self) {
        while self.resume_at.is_none() && !self.rewinding {
            if self.ahead.is_empty() {
                if !self.window.has_room() || !self.read().await {
                    return;
                }
                continue;
            }
            if self.opened.is_none() && !self.may_open() {
                return;
            }
            let Some(record) = self.ahead.front().cloned() else { return };
            match self.send(&record).await {
                Sent::Whole => {
                    self.ahead.pop_front();
                    self.opened = None;
                }
                Sent::NotNow => return,
            }
        }
    }

    /// Whether one more record may be on its way.
    fn may_open(&self) -> bool {
        let alone = self.ahead.front().is_some_and(|record| record.sequence < self.alone_until);
        if alone { self.window.is_empty() } else { self.window.has_room() }
    }

    /// Reads ahead; false where nothing is there.
    async fn read(&mut self) -> bool {
        // Mostly from the page cache; after an outage from the disk, in pieces of a megabyte.
        match self.reader.read(READ_BYTES) {
            Ok(records) => {
                let any = !records.is_empty();
                self.ahead.extend(records);
                any
            }
            Err(error) => {
                self.wait_for("spool", error.to_string(), true);
                false
            }
        }
    }

    async fn send(&mut self, record: &Record) -> Sent {
        let Some(envelope) = Envelope::read(&record.payload) else {
            return self.give_up(record, None, "unreadable", "the payload is of no known form".to_string()).await;
        };
        if envelope.kind == RecordKind::Time {
            return self.send_ticks(record, &envelope).await;
        }
        let Some(target) = self.topics.target(envelope.kind).cloned() else {
            let detail = format!("{:?} records have no topic here", envelope.kind);
            return self.give_up(record, Some(&envelope), "misplaced", detail).await;
        };
        if let Err(failure) = self.lane.partitions(&target.topic, target.single).await {
            return self.hold(failure);
        }
        let id = match self.ids.known(envelope.kind, record.schema) {
            Some(id) => id,
            None => {
                let Some(text) = self.spool.schema(record.schema) else {
                    let detail = format!("the spool has no schema {:?}", record.schema);
                    return self.give_up(record, Some(&envelope), "schema_lost", detail).await;
                };
                match self.ids.find(envelope.kind, record.schema, &target.subject, &text).await {
                    Ok(id) => id,
                    Err(error) => {
                        let passing = error.is_passing();
                        self.wait_for(if passing { "registry" } else { "schema" }, error.to_string(), !passing);
                        return Sent::NotNow;
                    }
                }
            }
        };
        self.value.clear();
        self.value.extend_from_slice(&wire::frame(id));
        self.value.extend_from_slice(envelope.datum);
        let opened = self.open(record, &envelope);
        let headers = self.texts.headers(&envelope, self.topics.source(), &target);
        let message = Message {
            topic: &target.topic,
            place: Place::Key,
            time_ms: envelope.time_ms,
            key: (!envelope.key.is_empty()).then_some(envelope.key),
            value: Some(&self.value),
            headers: &headers,
        };
        match self.lane.send(opened.token, &message) {
            Ok(()) => {
                self.window.sent(opened.token);
                self.window.close(opened.token);
                Sent::Whole
            }
            Err(SendError::Full) => self.hold_full(),
            Err(SendError::Failed(failure)) => match policy::action(failure.kind, true) {
                Action::DeadLetter => self.give_up(record, Some(&envelope), "too_large", failure.cause).await,
                _ => {
                    self.act(failure, false).await;
                    Sent::NotNow
                }
            },
        }
    }

    /// One tick record to each partition of each topic.
    async fn send_ticks(&mut self, record: &Record, envelope: &Envelope<'_>) -> Sent {
        let mut places = Vec::new();
        for target in self.topics.all().to_vec() {
            match self.lane.partitions(&target.topic, target.single).await {
                Ok(count) => places.extend((0..count).map(|partition| (target.topic.clone(), partition))),
                Err(failure) => return self.hold(failure),
            }
        }
        let opened = self.open(record, envelope);
        for (topic, partition) in places.iter().skip(opened.copies as usize) {
            let message = Message {
                topic,
                place: Place::Partition(*partition),
                time_ms: envelope.time_ms,
                key: None,
                value: None,
                headers: &TICK,
            };
            match self.lane.send(opened.token, &message) {
                Ok(()) => {
                    self.window.sent(opened.token);
                    if let Some(opened) = &mut self.opened {
                        opened.copies += 1;
                    }
                }
                Err(SendError::Full) => return self.hold_full(),
                Err(SendError::Failed(failure)) => {
                    self.act(failure, false).await;
                    return Sent::NotNow;
                }
            }
        }
        self.window.close(opened.token);
        Sent::Whole
    }

    fn open(&mut self, record: &Record, envelope: &Envelope<'_>) -> Opened {
        let (window, bytes, alone) = (&mut self.window, record.payload.len(), record.sequence < self.alone_until);
        let open = || Opened { token: window.open(record.sequence, bytes, Some(envelope), alone), copies: 0 };
        *self.opened.get_or_insert_with(open)
    }

    /// Hands a record to the dead letters; the cursor passes it when it is taken there.
    async fn give_up(
        &mut self,
        record: &Record,
        envelope: Option<&Envelope<'_>>,
        reason: &'static str,
        detail: String,
    ) -> Sent {
        let letter = Undeliverable {
            sequence: record.sequence,
            envelope: envelope.cloned(),
            payload: &record.payload,
            reason,
            detail,
        };
        if !self.watcher.dead_letter(letter).await {
            self.wait_for("dead_letter", format!("{reason}: the dead letters take nothing at present"), true);
            return Sent::NotNow;
        }
        let token = match self.opened {
            Some(opened) => opened.token,
            None => self.window.open(record.sequence, record.payload.len(), envelope, true),
        };
        self.window.give_up(token);
        Sent::Whole
    }

    /// Takes a report and those that are there behind it.
    async fn take_reports(&mut self, first: Report) {
        self.take_report(first).await;
        for _ in 1..REPORTS_MAX {
            let Some(report) = self.lane.report().now_or_never() else { return };
            self.take_report(report).await;
        }
    }

    async fn take_report(&mut self, report: Report) {
        // Records that were on their way when the order was given to send alone are not alone: their batch failed.
        let alone = self.window.is_alone(report.token);
        match report.result {
            Ok(()) => self.window.landed(report.token, true),
            Err(failure) if policy::action(failure.kind, alone) == Action::DeadLetter => {
                self.window.landed(report.token, false);
                let Some(sequence) = self.window.sequence(report.token) else { return };
                match self.bury(sequence, failure.cause).await {
                    true => self.window.give_up(report.token),
                    false => self.rewinding = true,
                }
            }
            Err(failure) => {
                self.window.landed(report.token, false);
                self.act(failure, alone).await;
            }
        }
    }

    /// Hands a record that the log refused for its length to the dead letters, read once more from the spool.
    async fn bury(&mut self, sequence: u64, detail: String) -> bool {
        let record = match self.spool.reader(sequence).read(1) {
            Ok(records) => records.into_iter().next().filter(|record| record.sequence == sequence),
            Err(error) => {
                self.wait_for("spool", error.to_string(), true);
                return false;
            }
        };
        let Some(record) = record else {
            tracing::error!(model = self.topics.name(), sequence, "a refused record is damaged in the spool");
            return true;
        };
        let envelope = Envelope::read(&record.payload);
        let letter = Undeliverable { sequence, envelope, payload: &record.payload, reason: "too_large", detail };
        let taken = self.watcher.dead_letter(letter).await;
        if !taken {
            self.wait_for("dead_letter", "the dead letters take nothing at present".to_string(), true);
        }
        taken
    }

    /// Does what the policy says about a failure.
    async fn act(&mut self, failure: Failure, alone: bool) {
        self.rewinding = true;
        let action = policy::action(failure.kind, alone);
        if action == Action::SendAlone {
            self.alone_until = self.alone_until.max(self.window.end());
        }
        if action == Action::Rebuild {
            // What was in flight is reported no more; all of it is read again.
            let renewed = self.lane.renew().await;
            self.window.rewind();
            if let Err(failure) = renewed {
                self.wait_for("log", failure.cause, true);
                return;
            }
        }
        if self.resume_at.is_none() {
            self.hold(failure);
        }
    }

    /// Waits before going on after a failure.
    fn hold(&mut self, failure: Failure) -> Sent {
        let cause = match failure.kind {
            FailureKind::UnknownTopic => "topic",
            FailureKind::Denied => "denied",
            FailureKind::Rejected => "rejected",
            _ => "log",
        };
        let alarm = policy::action(failure.kind, false) == Action::Alarm;
        self.wait_for(cause, failure.cause, alarm);
        Sent::NotNow
    }

    fn hold_full(&mut self) -> Sent {
        self.resume_at = Some(Instant::now() + FULL_WAIT);
        if self.window.flying() == 0 {
            self.set_blocked(Blocked {
                cause: "full",
                detail: "the log takes no more at present".into(),
                alarm: false,
            });
        }
        Sent::NotNow
    }

    fn wait_for(&mut self, cause: &'static str, detail: String, alarm: bool) {
        self.resume_at = Some(Instant::now() + self.back_off.wait());
        self.set_blocked(Blocked { cause, detail, alarm });
    }

    /// Says once what it waits for.
    fn set_blocked(&mut self, blocked: Blocked) {
        if self.blocked.as_ref() == Some(&blocked) {
            return;
        }
        let (model, cause, detail) = (self.topics.name(), blocked.cause, &blocked.detail);
        if blocked.alarm {
            tracing::error!(model, cause, detail, "forwarding waits for a person; records are kept in the spool");
        } else {
            tracing::warn!(model, cause, detail, "forwarding waits; records are kept in the spool");
        }
        self.watcher.blocked(Some(&blocked));
        self.blocked = Some(blocked);
    }

    fn clear_blocked(&mut self) {
        self.back_off.reset();
        if self.blocked.take().is_some() {
            tracing::info!(model = self.topics.name(), "forwarding goes on");
            self.watcher.blocked(None);
        }
    }

    async fn persist(&mut self) {
        let cursor = self.window.cursor();
        if cursor == self.persisted {
            return;
        }
        let (spool, note) = (self.spool.clone(), self.window.note().encode());
        let result = tokio::task::spawn_blocking(move || spool.advance(cursor, &note)).await;
        match result {
            Ok(Ok(())) => self.persisted = cursor,
            // The records are sent again after a restart; nothing is lost, and it is tried again.
            Ok(Err(error @ SpoolError::Closed)) => tracing::debug!(%error, "cursor not persisted"),
            Ok(Err(error)) => tracing::warn!(model = self.topics.name(), %error, "cursor not persisted"),
            Err(error) => tracing::error!(model = self.topics.name(), %error, "cursor not persisted"),
        }
    }
}

#[cfg(test)]
mod tests;
