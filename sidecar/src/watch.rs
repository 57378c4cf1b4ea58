//! What a forwarder has to say: metrics, and records that can never be sent.

use std::sync::Arc;

use futures::future::BoxFuture;
use prometheus_client::metrics::counter::Counter;

use crate::dead_letter::{self, Letter};
use crate::forward::{Blocked, Loss, Undeliverable, Watcher};
use crate::record::RecordKind;
use crate::shared::Shared;

/// Watches the forwarder of one spool.
pub(crate) struct SpoolWatcher {
    shared: Arc<Shared>,
    spool: String,
    /// By [`RecordKind::ALL`].
    delivered: [Counter; RecordKind::ALL.len()],
}

impl SpoolWatcher {
    pub(crate) fn new(shared: Arc<Shared>, spool: &str) -> SpoolWatcher {
        let delivered = RecordKind::ALL.map(|kind| shared.metrics.delivered(spool, kind));
        SpoolWatcher { shared, spool: spool.to_owned(), delivered }
    }
}

impl Watcher for SpoolWatcher {
    fn delivered(&self, kind: RecordKind, _bytes: usize) {
        let place = RecordKind::ALL.iter().position(|other| *other == kind);
        if let Some(counter) = place.and_then(|place| self.delivered.get(place)) {
            counter.inc();
        }
    }

    fn blocked(&self, blocked: Option<&Blocked>) {
        self.shared.metrics.forward_blocked(&self.spool, blocked);
    }

    fn lost<'a>(&'a self, losses: &'a [Loss]) -> BoxFuture<'a, usize> {
        Box::pin(self.shared.book.lose(&self.spool, losses))
    }

    fn dead_letter<'a>(&'a self, letter: Undeliverable<'a>) -> BoxFuture<'a, bool> {
        Box::pin(async move {
            let (sequence, reason) = (letter.sequence, letter.reason);
            let spool = self.spool.as_str();
            if spool == dead_letter::SPOOL {
                tracing::error!(spool, sequence, reason, detail = letter.detail, "dead letter given up");
                return true;
            }
            tracing::error!(
                spool,
                sequence,
                reason,
                detail = letter.detail,
                "record cannot be sent: it is a dead letter"
            );
            let kind = match letter.envelope.as_ref().map(|envelope| envelope.kind) {
                Some(RecordKind::Outcome) => "outcomes",
                Some(RecordKind::Ledger) => "ledger",
                _ => "predictions",
            };
            // Privacy was seen to before it came into the spool.
            let body = letter.envelope.as_ref().map_or(letter.payload, |envelope| envelope.datum);
            let kept = self.shared.dead_letters.keep(&Letter {
                model: spool,
                kind,
                reason,
                faults: std::slice::from_ref(&letter.detail),
                body: Some(body),
                body_bytes: body.len(),
                received_ms: letter.envelope.as_ref().map_or_else(crate::api::now_ms, |envelope| envelope.time_ms),
            });
            match kept {
                Ok(pending) => pending.await.is_ok(),
                Err(_) => false,
            }
        })
    }
}
