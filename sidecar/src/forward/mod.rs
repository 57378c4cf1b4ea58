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
//! What was accepted and never reaches the log, given up (`give_up`) or damaged (`losses`), is named in the ledger before the
//! cursor is persisted behind it.
//!
//! A time record (replay) becomes a tick record in every partition of both topics, at its place among the others; what a
//! source of labels says goes to every partition of the outcomes likewise.
//! A record that can never be sent (longer than the topic takes, damaged, without its schema) is handed to
//! [`Watcher::dead_letter`], and the cursor moves on once it is taken there.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use flywheel_schemas::registry::Registry;
use flywheel_spool::{Reader, Record, Spool, SpoolError};
use futures::FutureExt;
use tokio::time::Instant;

pub mod brokers;
mod destination;
mod give_up;
mod headers;
pub mod kafka;
pub mod local;
mod losses;
pub mod policy;
mod schema_ids;
mod sending;
mod topics;
mod watcher;
mod window;

use destination::Lane;
pub use destination::{Destination, DestinationError, LogConfig, Message, Place, Report, SendError};
pub use give_up::Retention;
use headers::Texts;
pub(crate) use headers::write_rfc3339;
pub use losses::{Loss, Losses, Reason};
use policy::{Action, BackOff, Failure, FailureKind};
use schema_ids::SchemaIds;
use sending::Sent;
pub use topics::Topics;
pub use watcher::{Blocked, Remaining, Undeliverable, Watcher};
use window::Window;

use crate::record::{Envelope, Note};

/// How often the cursor is persisted while it moves: two syncs each time, and so much is sent again after a crash.
const PERSIST_INTERVAL: Duration = Duration::from_millis(200);
/// After the end of the spool the next records gather for so long: to be woken for each of them would cost more than all
/// else at a few hundred a second, and the log has them a twentieth of a second later.
const GATHER: Duration = Duration::from_millis(50);
/// Read from the spool at a time.
const READ_BYTES: usize = 1024 * 1024;
/// Reports taken at a time, so that the cursor and the next records do not wait long.
const REPORTS_MAX: usize = 1_000;
/// So long nothing on its way comes through before that is said; a change of leader takes some seconds.
const STALL_TIME: Duration = Duration::from_secs(10);
/// The wait where the destination's queue is full: short beside the time that a full queue lasts.
const FULL_WAIT: Duration = Duration::from_millis(50);

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
    losses: Losses,
    retention: Retention,
    age_look_at: Instant,
    /// Nothing is given up before.
    give_up_at: Instant,
    persisted: u64,
    texts: Texts,
    value: Vec<u8>,
    back_off: BackOff,
    blocked: Option<Blocked>,
    /// When something last came through, or nothing was on its way.
    moved_at: Instant,
    /// Nothing is sent before.
    resume_at: Option<Instant>,
    /// The spool was read to its end, and is not looked at before.
    gather_until: Instant,
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

/// What became of a record that the log refused.
enum Buried {
    Kept,
    /// It cannot be read any more.
    Lost,
    NotNow,
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
            losses: Losses::new(Note::default(), Note::default(), spool.recovery().cursor_damaged),
            retention: Retention::default(),
            age_look_at: Instant::now(),
            give_up_at: Instant::now(),
            persisted: cursor.sequence,
            texts: Texts::default(),
            value: Vec::new(),
            back_off: BackOff::default(),
            blocked: None,
            moved_at: Instant::now(),
            resume_at: None,
            gather_until: Instant::now(),
            rewinding: false,
            alone_until: 0,
            spool,
        }
    }

    /// Gives up records as `retention` says; without this none. `named` are by kind the last losses that the ledger has,
    /// `ended` what it says was accepted last before this start.
    pub fn with_retention(mut self, retention: Retention, named: Note, ended: Note) -> Forwarder {
        self.retention = retention;
        self.losses = Losses::new(named, ended, self.spool.recovery().cursor_damaged);
        self
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
            // With the intake at its end nothing is worth waiting for.
            let gather_until = if stop.deadline.is_none() { self.gather_until } else { Instant::now() };
            tokio::select! {
                biased;
                event = stop.next() => match event {
                    StopEvent::Asked => continue,
                    StopEvent::Expired => break,
                },
                _ = persist.tick() => {
                    self.look_for_stall();
                    self.persist().await;
                    // With the intake at its end nothing needs the room, and what is left may be sent after the next start.
                    if stop.deadline.is_none() {
                        self.give_up_due().await;
                    }
                }
                report = self.lane.report() => self.take_reports(report).await,
                () = tokio::time::sleep_until(resume_at), if waits => self.resume_at = None,
                () = async {
                    tokio::time::sleep_until(gather_until).await;
                    self.reader.wait().await;
                }, if reads => self.gather_until = Instant::now(),
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
            let Some(head) = passed.head else { continue };
            self.losses.pass(&passed.before, &head);
            if passed.lost {
                self.losses.give_up(&head, Reason::Damaged);
            } else {
                self.watcher.delivered(head.kind, passed.bytes);
            }
        }
        if self.window.cursor() > before && !self.rewinding {
            self.moved_at = Instant::now();
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
                if !self.window.has_room() || Instant::now() < self.gather_until {
                    return;
                }
                if !self.read().await {
                    self.gather_until = Instant::now() + GATHER;
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
                    Buried::Kept => self.window.give_up(report.token),
                    Buried::Lost => self.window.lose(report.token),
                    Buried::NotNow => self.rewinding = true,
                }
            }
            Err(failure) => {
                self.window.landed(report.token, false);
                self.act(failure, alone).await;
            }
        }
    }

    /// Hands a record that the log refused for its length to the dead letters, read once more from the spool.
    async fn bury(&mut self, sequence: u64, detail: String) -> Buried {
        let record = match self.spool.reader(sequence).read(1) {
            Ok(records) => records.into_iter().next().filter(|record| record.sequence == sequence),
            Err(error) => {
                self.wait_for("spool", error.to_string(), true);
                return Buried::NotNow;
            }
        };
        let Some(record) = record else {
            tracing::error!(model = self.topics.name(), sequence, "a refused record is damaged in the spool");
            return Buried::Lost;
        };
        let envelope = Envelope::read(&record.payload);
        let letter = Undeliverable { sequence, envelope, payload: &record.payload, reason: "too_large", detail };
        if !self.watcher.dead_letter(letter).await {
            self.wait_for("dead_letter", "the dead letters take nothing at present".to_string(), true);
            return Buried::NotNow;
        }
        Buried::Kept
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
            match renewed {
                Err(failure) => {
                    self.hold(failure);
                    return;
                }
                // Nothing is wrong: it goes on with the new one.
                Ok(()) if failure.kind == FailureKind::Dropped => return,
                Ok(()) => {}
            }
        }
        if self.resume_at.is_none() {
            self.hold(failure);
        }
    }

    /// Waits before going on after a failure.
    fn hold(&mut self, failure: Failure) -> Sent {
        self.wait_for(failure.kind.cause(), failure.cause, failure.kind.needs_person());
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

    /// Says so where nothing that is on its way comes through: librdkafka goes on trying, and reports nothing meanwhile.
    fn look_for_stall(&mut self) {
        if self.window.flying() == 0 {
            self.moved_at = Instant::now();
            return;
        }
        let failure = match self.lane.refusal() {
            Some(reason) => Failure::new(FailureKind::Denied, reason),
            None if self.moved_at.elapsed() < STALL_TIME => return,
            None => Failure::new(FailureKind::Stalled, "no broker acknowledges what was sent"),
        };
        let alarm = failure.kind.needs_person();
        self.set_blocked(Blocked { cause: failure.kind.cause(), detail: failure.cause, alarm });
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

    /// Names the losses before the cursor, and persists it.
    async fn persist(&mut self) {
        let cursor = self.window.cursor();
        if cursor == self.persisted {
            return;
        }
        if !self.losses.unnamed().is_empty() {
            let named = self.watcher.lost(self.losses.unnamed()).await;
            self.losses.name(named);
            if !self.losses.unnamed().is_empty() {
                // Nothing more is sent meanwhile, which bounds what there may be to name.
                self.wait_for("ledger", "losses cannot be put on record at present".to_string(), true);
                return;
            }
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
