//! What gives way when a bound on clients is reached: who uses what others wait for and does nothing with it.
//!
//! In quiet times a client may be idle or slow for as long as `limits.header_timeout_ms` and `limits.body_timeout_ms` say.
//! While others wait for a connection, or for room for their bodies, it may be so for [`PATIENCE`] and no longer: a
//! connection without a request is closed, and a body that is still not there is answered with 408. So clients that hold
//! on to connections, or trickle, cost the others that second.

use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// A client that works takes no second between two bytes; one that pauses for longer connects again in a millisecond.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);

/// Those who may have to give way.
#[derive(Debug, Default)]
pub(crate) struct Crowd {
    pressed: Notify,
}

impl Crowd {
    /// Somebody waits.
    pub(crate) fn press(&self) {
        self.pressed.notify_waiters();
    }

    /// Resolves when somebody waits.
    pub(crate) async fn pressed(&self) {
        self.pressed.notified().await;
    }

    /// Resolves when somebody waits and [`PATIENCE`] has gone by since the call.
    pub(crate) async fn lose_patience(&self) {
        let since = Instant::now();
        loop {
            self.pressed().await;
            if since.elapsed() >= PATIENCE {
                return;
            }
        }
    }
}
