//! Giving up what the log does not take: the oldest records where newer ones need their room, and those that are too old.
//!
//! The spool itself only refuses. Giving up is done here, by the one owner of the cursor, when it persists it, and in this
//! order: the records that are to go are read, for their numbers; what of them is on its way is forgotten; the losses are named
//! in the ledger; then the cursor is persisted behind them, which makes room. Where the ledger takes nothing the rest waits, and
//! the spool refuses. librdkafka may hold such a record still, and it may arrive after
//! all: the loss then says too much. It never says too little. While a question to the broker or the registry is on its way
//! (5 s and 15 s at most) nothing is given up, and rows are refused where that takes too long.

use std::collections::BTreeSet;
use std::time::Duration;

use flywheel_spool::{Spool, SpoolError};
use tokio::time::Instant;

use super::losses::{Losses, Reason};
use super::{Forwarder, PERSIST_INTERVAL, READ_BYTES};
use crate::record::{Envelope, Note};

/// The longest time between two looks at the age of the oldest record: a record is kept for so much longer than it may be.
const AGE_LOOK_MAX: Duration = Duration::from_secs(60);
/// After the spool could not be read: a message in the log each time, and room soon after the cause is gone.
const RETRY: Duration = Duration::from_secs(1);
/// Sixteen looks within the age, so that what is given up goes in a few parts with a ledger record each.
const AGE_LOOKS: u32 = 16;

/// When accepted records are given up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retention {
    /// Where newer ones would be refused for lack of room.
    pub drop_oldest: bool,
    /// Where they were received so long ago, by the clock.
    pub max_age: Option<Duration>,
}

/// From the cursor on, what goes.
#[derive(Debug, Clone, Copy)]
enum Portion {
    /// All below this sequence, the beginning of a segment.
    Below(u64),
    /// All up to the first that was received at this time, in ms, or later.
    ReceivedBefore(i64),
}

impl Portion {
    /// Where it ends, when all before `sequence` was read.
    fn end(self, sequence: u64) -> u64 {
        match self {
            Portion::Below(end) => end,
            Portion::ReceivedBefore(_) => sequence,
        }
    }
}

/// What is there to be given up.
struct Survey {
    /// With those of the portion.
    losses: Losses,
    /// The sequence after the portion.
    until: u64,
    note: Note,
}

impl Forwarder {
    /// Gives up what is due.
    pub(super) async fn give_up_due(&mut self) {
        if Instant::now() < self.give_up_at {
            return;
        }
        if let Some(portion) = self.over_full() {
            self.give_up_portion(portion, Reason::SpoolFull).await;
        }
        if let Some(portion) = self.too_old() {
            self.give_up_portion(portion, Reason::TooOld).await;
        }
    }

    /// What must go so that the spool takes what may come until the next look.
    ///
    /// The margin is an eighth of the bound, or a segment, as only whole segments make room; and beyond that the room without
    /// which the spool refuses. A quarter of the bound is the most that a segment takes, so even of the least spool, which
    /// takes four of the longest records, one may be filled while another is given up.
    fn over_full(&self) -> Option<Portion> {
        let usage = self.spool.usage();
        let margin = (usage.max_bytes / 8).max(usage.segment_bytes) + usage.room_bytes;
        let free = usage.max_bytes.saturating_sub(usage.bytes);
        if !self.retention.drop_oldest || free >= margin {
            return None;
        }
        let until = self.spool.boundary(margin - free);
        (until > self.window.cursor()).then_some(Portion::Below(until))
    }

    fn too_old(&mut self) -> Option<Portion> {
        let max_age = self.retention.max_age?;
        if Instant::now() < self.age_look_at || self.window.cursor() >= self.spool.next_sequence() {
            return None;
        }
        self.age_look_at = Instant::now() + (max_age / AGE_LOOKS).clamp(PERSIST_INTERVAL, AGE_LOOK_MAX);
        let max_age_ms = i64::try_from(max_age.as_millis()).unwrap_or(i64::MAX);
        Some(Portion::ReceivedBefore(crate::api::now_ms().saturating_sub(max_age_ms)))
    }

    async fn give_up_portion(&mut self, portion: Portion, reason: Reason) {
        let (spool, losses, note) = (self.spool.clone(), self.losses.clone(), *self.window.note());
        let (cursor, arrived) = (self.window.cursor(), self.window.arrived());
        let work = tokio::task::spawn_blocking(move || survey(&spool, losses, note, cursor, portion, reason, &arrived));
        let surveyed = match work.await {
            Ok(Ok(surveyed)) => surveyed,
            Ok(Err(error)) => {
                tracing::warn!(model = self.topics.name(), %error, "nothing given up: the spool cannot be read");
                self.give_up_at = Instant::now() + RETRY;
                return;
            }
            Err(error) => {
                tracing::error!(model = self.topics.name(), %error, "nothing given up");
                return;
            }
        };
        let Survey { losses, until, note } = surveyed;
        if until == cursor {
            return;
        }
        self.losses = losses;
        self.window.skip_to(until, note);
        while self.ahead.front().is_some_and(|record| record.sequence < until) {
            self.ahead.pop_front();
            self.opened = None;
        }
        if self.ahead.is_empty() && self.reader.position() < until {
            self.reader.seek(until);
        }
        // Names them, and only then makes room.
        self.persist().await;
    }
}

/// Reads what is to go. Blocks for as long as that takes: a segment as a rule.
fn survey(
    spool: &Spool,
    mut losses: Losses,
    mut note: Note,
    cursor: u64,
    portion: Portion,
    reason: Reason,
    arrived: &BTreeSet<u64>,
) -> Result<Survey, SpoolError> {
    let mut reader = spool.reader(cursor);
    let mut until = cursor;
    loop {
        let records = reader.read(READ_BYTES)?;
        for record in &records {
            let envelope = Envelope::read(&record.payload);
            let stays = match portion {
                Portion::Below(end) => record.sequence >= end,
                Portion::ReceivedBefore(time_ms) => {
                    envelope.as_ref().is_some_and(|envelope| envelope.time_ms >= time_ms)
                }
            };
            if stays {
                // What is damaged before it goes with the portion; its hole is found with the next record that is passed.
                until = portion.end(record.sequence);
                return Ok(Survey { losses, until, note });
            }
            until = record.sequence + 1;
            // One that cannot be read has no number; the hole that it leaves is found with the next.
            let Some(envelope) = envelope else { continue };
            losses.pass(&note, &envelope);
            if arrived.contains(&record.sequence) {
                losses.step_over(&envelope);
            } else {
                losses.give_up(&envelope, reason);
            }
            note.pass(&envelope);
        }
        if records.is_empty() {
            until = portion.end(until);
            return Ok(Survey { losses, until, note });
        }
    }
}

#[cfg(test)]
mod tests;
