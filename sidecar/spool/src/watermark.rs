//! A number that only grows, and the tasks that wait for it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;

/// Takes a lock whose holder may have panicked: what these locks guard is right between any two statements.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The next sequence that is not yet written, or not yet synced.
#[derive(Debug, Default)]
pub(crate) struct Watermark {
    value: AtomicU64,
    /// By what they wait for; the second number tells apart who waits for the same.
    waiting: Mutex<BTreeMap<(u64, u64), Waker>>,
}

impl Watermark {
    pub(crate) fn new(value: u64) -> Watermark {
        Watermark { value: AtomicU64::new(value), waiting: Mutex::default() }
    }

    pub(crate) fn get(&self) -> u64 {
        self.value.load(Ordering::SeqCst)
    }

    /// Raises the value and wakes those whose wait is over.
    pub(crate) fn raise(&self, value: u64) {
        self.value.fetch_max(value, Ordering::SeqCst);
        let over = {
            let mut waiting = lock(&self.waiting);
            if waiting.is_empty() {
                return;
            }
            let rest = waiting.split_off(&(value.saturating_add(1), 0));
            std::mem::replace(&mut *waiting, rest)
        };
        over.into_values().for_each(Waker::wake);
    }

    /// Wakes everybody, to look at something else than the value.
    pub(crate) fn wake_all(&self) {
        let all = std::mem::take(&mut *lock(&self.waiting));
        all.into_values().for_each(Waker::wake);
    }

    /// Registers a waker for when the value is at least `value`. The caller looks at the state again afterwards: it may
    /// have changed before the waker was in place.
    pub(crate) fn wait(&self, value: u64, who: u64, waker: &Waker) {
        lock(&self.waiting)
            .entry((value, who))
            .and_modify(|known| known.clone_from(waker))
            .or_insert_with(|| waker.clone());
    }

    pub(crate) fn forget(&self, value: u64, who: u64) {
        lock(&self.waiting).remove(&(value, who));
    }
}
