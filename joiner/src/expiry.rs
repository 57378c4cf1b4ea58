//! When tables are rid of old snapshots: once an hour, by whoever writes them. Nothing depends on it, so a failure is
//! told and left to the next hour. The tables of all models (dead letters, ledger, seal log) are expired by each of
//! their writers, of which the first finds something to do.

use std::time::{Duration, Instant};

use crate::metrics::Metrics;
use crate::table::Table;

const INTERVAL: Duration = Duration::from_secs(60 * 60);

/// One table may hold up its writer for so long at most; a commit that is dropped then lands or does not.
const PATIENCE: Duration = Duration::from_secs(60);

/// When it is due next.
#[derive(Debug)]
pub(crate) struct Expiry {
    due: Instant,
}

impl Expiry {
    /// Due at once: a writer that is restarted more than once an hour must not put it off for ever.
    pub fn due() -> Expiry {
        Expiry { due: Instant::now() }
    }

    pub fn is_due(&self) -> bool {
        self.due <= Instant::now()
    }

    /// Expires what is old at `now_ms` in each of the tables, and is due again in an hour.
    pub async fn expire<const N: usize>(&mut self, tables: [&mut Table; N], now_ms: i64, metrics: &Metrics) {
        self.due = Instant::now() + INTERVAL;
        for table in tables {
            let error = match tokio::time::timeout(PATIENCE, table.expire(now_ms)).await {
                Ok(Ok(_)) => continue,
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("no answer within {} s", PATIENCE.as_secs()),
            };
            metrics.expiry_failed(table.name(), &error);
        }
    }
}
