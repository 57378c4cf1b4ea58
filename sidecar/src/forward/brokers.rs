//! Whether the brokers answer, said once each way: a client that looks for them says so many times a second.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// What is known of the brokers of the process's producer.
#[derive(Default)]
pub struct Brokers {
    away: AtomicBool,
    /// What was said since they last answered; as many words at most as librdkafka has codes.
    said: Mutex<BTreeSet<String>>,
}

impl Brokers {
    /// Whether no broker answers, as far as is known.
    pub fn are_away(&self) -> bool {
        self.away.load(Ordering::Relaxed)
    }

    /// None of them is connected. True where that is news.
    pub(super) fn lost(&self, reason: &str) -> bool {
        let is_news = !self.away.swap(true, Ordering::Relaxed);
        if is_news {
            tracing::warn!(reason, "Kafka is away; records are kept in the spool");
        } else {
            tracing::debug!(reason, "Kafka is still away");
        }
        is_news
    }

    /// One of them has answered. True where that is news. Called for every record.
    pub(super) fn answered(&self) -> bool {
        let is_news = self.are_away() && self.away.swap(false, Ordering::Relaxed);
        if is_news {
            self.said.lock().unwrap_or_else(PoisonError::into_inner).clear();
            tracing::info!("Kafka is back");
        }
        is_news
    }

    /// Something else is wrong, which `code` stands for. True where it was not said since they last came back.
    pub(super) fn complained(&self, code: &str, reason: &str) -> bool {
        let is_news = self.said.lock().unwrap_or_else(PoisonError::into_inner).insert(code.to_owned());
        if is_news {
            tracing::warn!(code, reason, "Kafka producer");
        } else {
            tracing::debug!(code, reason, "Kafka producer");
        }
        is_news
    }
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
}
