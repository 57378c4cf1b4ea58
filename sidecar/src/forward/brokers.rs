//! Whether the brokers answer, and let this client in; said once each way: a client that looks for them says so many times
//! a second.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What is known of the brokers of the process's producer.
#[derive(Default)]
pub struct Brokers {
    away: AtomicBool,
    /// Whether there is a refusal.
    refuse: AtomicBool,
    /// Why, as it was said last.
    refusal: Mutex<Option<String>>,
    /// Why one of them could not be reached, as it was said last.
    trouble: Mutex<Option<String>>,
    /// What was said since they last answered, [`SAID_MAX`] of it.
    said: Mutex<BTreeSet<String>>,
}

/// More different complaints than a fault has; above, nothing is news.
const SAID_MAX: usize = 64;

impl Brokers {
    /// Whether no broker answers, as far as is known.
    pub fn are_away(&self) -> bool {
        self.away.load(Ordering::Relaxed)
    }

    /// Why they do not let this client in, or it not them (a password, a token, a certificate); none where they do, as
    /// far as is known.
    pub fn refusal(&self) -> Option<String> {
        // Asked for often, and mostly there is none.
        if !self.refuse.load(Ordering::Relaxed) {
            return None;
        }
        locked(&self.refusal).clone()
    }

    /// They do not let this client in, or it not them. True where it was not said, in other words than these, since they
    /// last answered.
    pub(super) fn refused(&self, reason: &str) -> bool {
        let is_news = self.is_news(&wording(reason));
        if is_news {
            *locked(&self.refusal) = Some(reason.to_owned());
            tracing::error!(reason, "Kafka refuses this client; records are kept in the spool");
        } else {
            tracing::debug!(reason, "Kafka still refuses this client");
        }
        self.refuse.store(true, Ordering::Relaxed);
        is_news
    }

    /// There is a new client, with other credentials perhaps: what they said about the old one counts no more.
    pub(super) fn forget(&self) {
        self.refuse.store(false, Ordering::Relaxed);
        locked(&self.said).clear();
    }

    /// One of several cannot be reached, which says little; of the last one [`lost`](Brokers::lost) is called as well.
    pub(super) fn troubled(&self, reason: &str) {
        tracing::debug!(reason, "Kafka producer");
        *locked(&self.trouble) = Some(reason.to_owned());
    }

    /// None of them is connected. True where that is news.
    pub(super) fn lost(&self, reason: &str) -> bool {
        let is_news = !self.away.swap(true, Ordering::Relaxed);
        if is_news {
            let why = locked(&self.trouble).take().unwrap_or_default();
            tracing::warn!(reason, why, "Kafka is away; records are kept in the spool");
        } else {
            tracing::debug!(reason, "Kafka is still away");
        }
        is_news
    }

    /// One of them has answered. True where that is news. Called for every record.
    pub(super) fn answered(&self) -> bool {
        if !self.are_away() && !self.refuse.load(Ordering::Relaxed) {
            return false;
        }
        let were_away = self.away.swap(false, Ordering::Relaxed);
        let have_refused = self.refuse.swap(false, Ordering::Relaxed);
        if were_away || have_refused {
            locked(&self.said).clear();
            tracing::info!("Kafka is back");
        }
        were_away || have_refused
    }

    /// Something else is wrong. True where it was not said, in other words than these, since they last came back.
    pub(super) fn complained(&self, code: &str, reason: &str) -> bool {
        let is_news = self.is_news(&wording(reason));
        if is_news {
            tracing::warn!(code, reason, "Kafka producer");
        } else {
            tracing::debug!(code, reason, "Kafka producer");
        }
        is_news
    }
}

impl Brokers {
    fn is_news(&self, words: &str) -> bool {
        let mut said = locked(&self.said);
        said.len() < SAID_MAX && said.insert(words.to_owned())
    }
}

/// What is the same in each attempt: not its duration, nor the broker's number.
fn wording(reason: &str) -> String {
    reason.chars().filter(|character| !character.is_ascii_digit()).collect()
}

/// Plain values, which are whole between statements.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_is_said_once() {
        let brokers = Brokers::default();
        assert!(!brokers.answered());
        assert!(brokers.complained("Authentication", "wrong password"));
        assert!(brokers.lost("1/1 brokers are down"));
        assert!(brokers.are_away());
        for _ in 0..100 {
            assert!(!brokers.lost("1/1 brokers are down"));
            assert!(!brokers.complained("Authentication", "wrong password"));
        }
        assert!(brokers.answered());
        assert!(!brokers.answered() && !brokers.are_away());
        assert!(brokers.complained("Authentication", "wrong password"));
        assert!(brokers.lost("1/1 brokers are down"));
    }

    #[test]
    fn a_refusal_lasts_until_they_answer() {
        let brokers = Brokers::default();
        assert_eq!(brokers.refusal(), None);
        assert!(brokers.refused("no certificate"));
        assert!(brokers.refused("wrong password, after 5 ms"));
        assert!(!brokers.refused("wrong password, after 7 ms") && !brokers.refused("no certificate"));
        assert_eq!(brokers.refusal().as_deref(), Some("wrong password, after 5 ms"));
        assert!(brokers.answered() && !brokers.answered());
        assert_eq!(brokers.refusal(), None);
        assert!(brokers.refused("wrong password, after 9 ms"));
        brokers.forget();
        assert_eq!(brokers.refusal(), None);
    }
}
