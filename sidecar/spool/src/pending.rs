//! What a caller waits with.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use crate::AppendError;
use crate::shared::Shared;

/// Resolves to the record's sequence once it is accepted. Dropping it takes nothing back.
///
/// An idle writer is woken when this is polled for the second time, or dropped: at the first poll it steps back once
/// behind the other tasks that are ready. What they append goes into the same block, and the writer, for which the
/// threads of a small machine make way, is woken once for all of them.
#[derive(Debug)]
#[must_use = "the record is accepted when this resolves"]
pub struct Pending {
    shared: Arc<Shared>,
    sequence: u64,
    wake: Wake,
}

/// What was done to wake an idle writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wake {
    NotYet,
    SteppedBack,
    Done,
}

impl Pending {
    pub(crate) fn new(shared: Arc<Shared>, sequence: u64) -> Pending {
        Pending { shared, sequence, wake: Wake::NotYet }
    }

    /// The record's sequence, known before it is accepted.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    fn state(&self) -> Poll<Result<u64, AppendError>> {
        // Read before the watermark: what is accepted by then was accepted whatever came after.
        let (ended, failed) = (self.shared.has_ended(), self.shared.is_failed());
        if self.shared.accepted().get() > self.sequence {
            Poll::Ready(Ok(self.sequence))
        } else if failed {
            Poll::Ready(Err(AppendError::Failed))
        } else if ended {
            Poll::Ready(Err(AppendError::Closed))
        } else {
            Poll::Pending
        }
    }
}

impl Future for Pending {
    type Output = Result<u64, AppendError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(result) = self.state() {
            return Poll::Ready(result);
        }
        match self.wake {
            Wake::NotYet => {
                self.wake = Wake::SteppedBack;
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            Wake::SteppedBack => {
                self.wake = Wake::Done;
                self.shared.wake_writer();
            }
            Wake::Done => {}
        }
        self.shared.accepted().wait(self.sequence + 1, 0, context.waker());
        // The writer may have come by between the look and the registration.
        self.state()
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if self.wake != Wake::Done && self.state().is_pending() {
            self.shared.wake_writer();
        }
    }
}

/// Tells apart those who wait for the same sequence to be synced; 0 is the record's own [`Pending`].
#[derive(Debug)]
pub(crate) struct Ids(AtomicU64);

impl Ids {
    pub(crate) fn new() -> Ids {
        Ids(AtomicU64::new(1))
    }

    pub(crate) fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

/// Resolves to true once everything below `target` is on the disk, to false after an attempt at that failed.
#[derive(Debug)]
pub(crate) struct Flush {
    pub(crate) shared: Arc<Shared>,
    pub(crate) target: u64,
    pub(crate) who: u64,
    /// The failed rounds there had been when it was asked for.
    pub(crate) failures: u64,
}

impl Flush {
    fn state(&self) -> Poll<bool> {
        let (ended, failures) = (self.shared.has_ended(), self.shared.failures());
        if self.shared.synced.get() >= self.target {
            Poll::Ready(true)
        } else if ended || failures > self.failures {
            Poll::Ready(false)
        } else {
            Poll::Pending
        }
    }
}

impl Future for Flush {
    type Output = bool;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<bool> {
        if let Poll::Ready(result) = self.state() {
            return Poll::Ready(result);
        }
        self.shared.synced.wait(self.target, self.who, context.waker());
        self.state()
    }
}

impl Drop for Flush {
    fn drop(&mut self) {
        self.shared.synced.forget(self.target, self.who);
    }
}
