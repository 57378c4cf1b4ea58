//! What a forwarder says about itself.

use futures::future::BoxFuture;

use super::losses::Loss;
use crate::record::{Envelope, RecordKind};

/// Why a forwarder stands still.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocked {
    /// One of [`Blocked::CAUSES`].
    pub cause: &'static str,
    pub detail: String,
    /// Whether a person is needed.
    pub alarm: bool,
}

impl Blocked {
    /// Stable words.
    pub const CAUSES: [&'static str; 10] =
        ["registry", "schema", "topic", "denied", "rejected", "log", "full", "spool", "dead_letter", "ledger"];
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

    /// Names losses. Gives how many of them, from the first on, are on record now; the others are asked for again.
    fn lost<'a>(&'a self, losses: &'a [Loss]) -> BoxFuture<'a, usize> {
        tracing::error!(?losses, "accepted records are lost");
        Box::pin(std::future::ready(losses.len()))
    }
}

/// What was not forwarded when a forwarder stopped; it stays in the spool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remaining {
    pub records: u64,
}
