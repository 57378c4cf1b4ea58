//! What is done about each kind of failure on the way to the log: the one table.
//!
//! | failure | for example | action |
//! |---|---|---|
//! | [`UnknownTopic`](FailureKind::UnknownTopic) | the contract is not registered yet, a partition went | alarm, try again |
//! | [`Denied`](FailureKind::Denied) | no right to write the topic, wrong password | alarm, try again |
//! | [`Rejected`](FailureKind::Rejected) | the topic's rules refuse the record: its time, a missing key | alarm, try again |
//! | [`TooLarge`](FailureKind::TooLarge) | this record passes `message.max.bytes` here | dead letter |
//! | [`BatchTooLarge`](FailureKind::BatchTooLarge) | a batch passes the topic's `max.message.bytes` | send one by one; the one that still fails is a dead letter |
//! | [`Fatal`](FailureKind::Fatal) | the producer lost its sequence | new producer, read again from the cursor |
//! | [`Expelled`](FailureKind::Expelled) | no topic at all may be written, so the producer gets no id | alarm; new producer, read again from the cursor |
//! | [`Dropped`](FailureKind::Dropped) | the producer was replaced with this record in its queue: its credentials have changed | the new producer, read again from the cursor |
//! | [`Passing`](FailureKind::Passing) | everything else | try again |
//! | [`Stalled`](FailureKind::Stalled) | too few replicas are in sync, no broker answers | said once; librdkafka tries again |
//!
//! A schema's id that the registry does not give is asked for again in any case, no sooner than a `Retry-After` says (at
//! most a minute): it is `registry`; with an alarm `denied` for 401 and 403, `schema` where the text is not registered, and
//! `registry` for answers that are none of a registry.
//!
//! What librdkafka itself tries again (broker away, leader moved, too few replicas in sync, not let in) fails no record:
//! records do not time out. That nothing comes through is said all the same, and as `Denied` where the brokers refuse this
//! client. After a failure the records from the first failed one on are sent again, so the order within a
//! partition holds; copies of what had gone through behind it are removed by the joiner.

use std::time::Duration;

use uuid::Uuid;

/// What kind of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureKind {
    UnknownTopic,
    Denied,
    Rejected,
    TooLarge,
    BatchTooLarge,
    Fatal,
    Expelled,
    Dropped,
    Passing,
    Stalled,
}

impl FailureKind {
    /// The stable word for it.
    pub fn cause(self) -> &'static str {
        match self {
            FailureKind::UnknownTopic => "topic",
            FailureKind::Denied | FailureKind::Expelled => "denied",
            FailureKind::Rejected => "rejected",
            _ => "log",
        }
    }

    /// Whether nothing goes on without a person.
    pub fn needs_person(self) -> bool {
        use FailureKind::{Denied, Expelled, Rejected, UnknownTopic};
        matches!(self, UnknownTopic | Denied | Expelled | Rejected)
    }
}

/// Why a record, or a question, did not get through.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{cause}")]
pub struct Failure {
    pub kind: FailureKind,
    pub cause: String,
}

impl Failure {
    pub fn new(kind: FailureKind, cause: impl Into<String>) -> Failure {
        Failure { kind, cause: cause.into() }
    }
}

/// What is done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Wait, then go on from the first record that failed.
    Retry,
    /// The same; a person is needed for it to succeed.
    Alarm,
    /// Go on from the first record that failed, each record alone until the failed ones are past.
    SendAlone,
    /// The record cannot be sent, ever. It goes to the dead letters.
    DeadLetter,
    /// Make a new producer and go on from the first record that failed.
    Rebuild,
}

/// The table. `alone`: nothing else was in flight.
pub fn action(kind: FailureKind, alone: bool) -> Action {
    match kind {
        FailureKind::UnknownTopic | FailureKind::Denied | FailureKind::Rejected => Action::Alarm,
        FailureKind::TooLarge => Action::DeadLetter,
        FailureKind::BatchTooLarge if alone => Action::DeadLetter,
        FailureKind::BatchTooLarge => Action::SendAlone,
        FailureKind::Fatal | FailureKind::Expelled | FailureKind::Dropped => Action::Rebuild,
        FailureKind::Passing | FailureKind::Stalled => Action::Retry,
    }
}

/// The first wait after a failure.
const WAIT_MIN: Duration = Duration::from_millis(100);
/// The longest: what a person has put right takes effect within it.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// Who asks for a longer wait than this is asked again nevertheless.
const ASKED_MAX: Duration = Duration::from_secs(60);

/// Growing waits between attempts, each shortened at random by up to a half so that sidecars do not come back in step.
#[derive(Debug, Clone)]
pub struct BackOff {
    next: Duration,
}

impl Default for BackOff {
    fn default() -> BackOff {
        BackOff { next: WAIT_MIN }
    }
}

impl BackOff {
    /// The wait before the next attempt.
    pub fn wait(&mut self) -> Duration {
        let wait = self.next;
        self.next = (wait * 2).min(WAIT_MAX);
        let random = u32::from(Uuid::new_v4().as_bytes()[0]);
        wait - wait * random / 512
    }

    /// The same where the other side has said how long to stay away, which is no less and at most a minute; some of it
    /// comes on top at random.
    pub fn wait_as_asked(&mut self, asked: Duration) -> Duration {
        asked.min(ASKED_MAX) + self.wait()
    }

    /// An attempt succeeded.
    pub fn reset(&mut self) {
        self.next = WAIT_MIN;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_that_is_too_large_is_taken_apart_before_anything_is_given_up() {
        assert_eq!(action(FailureKind::BatchTooLarge, false), Action::SendAlone);
        assert_eq!(action(FailureKind::BatchTooLarge, true), Action::DeadLetter);
    }

    #[test]
    fn waits_grow_to_a_bound() {
        let mut back_off = BackOff::default();
        let waits: Vec<_> = (0..20).map(|_| back_off.wait()).collect();
        assert!(waits[0] <= WAIT_MIN && waits[0] >= WAIT_MIN / 2);
        assert!(waits[19] <= WAIT_MAX && waits[19] >= WAIT_MAX / 2);
        back_off.reset();
        assert!(back_off.wait() <= WAIT_MIN);
    }

    #[test]
    fn waits_differ_between_sidecars_and_keep_to_what_is_asked() {
        let waits: std::collections::BTreeSet<_> = (0..100).map(|_| BackOff::default().wait()).collect();
        assert!(waits.len() > 20, "{waits:?}");
        let asked = Duration::from_secs(7);
        let wait = BackOff::default().wait_as_asked(asked);
        assert!(wait > asked && wait <= asked + WAIT_MIN);
        assert!(BackOff::default().wait_as_asked(Duration::from_secs(86_400)) <= ASKED_MAX + WAIT_MIN);
    }
}
