//! What a pipeline does beside landing and sealing: it keeps the time of silent partitions, commits again what failed
//! to be committed, and keeps its index small.

use std::time::{Duration, Instant};

use flywheel_schemas::contract::Ids;
use flywheel_schemas::wire::Kind;

use super::{Pipeline, PipelineError, RETRY};
use crate::partition::Partition;

/// An idle partition gets a tick record after this time, by the broker's clock.
const TICK_AFTER: Duration = Duration::from_secs(10);

/// A batch that is not committed after this time is read again: clean-up by other engines takes files that no snapshot
/// names for left behind, after a day at the earliest.
const BATCH_AGE_MAX: Duration = Duration::from_secs(12 * 60 * 60);

/// A commit that is put off.
#[derive(Debug)]
pub(super) struct PutOff {
    /// Since when.
    pub since: Instant,
    /// The wait after the next failure.
    wait: Duration,
    pub retry_at: Instant,
}

impl PutOff {
    pub fn is_due(&self) -> bool {
        self.retry_at <= Instant::now()
    }
}

/// How much of what it may take the index takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IndexLevel {
    Low,
    /// From four fifths on: an alarm.
    High,
    /// Landing pauses.
    Full,
}

impl IndexLevel {
    fn of(bytes: u64, max_bytes: u64) -> IndexLevel {
        match bytes {
            _ if bytes >= max_bytes => IndexLevel::Full,
            _ if bytes >= max_bytes - max_bytes / 5 => IndexLevel::High,
            _ => IndexLevel::Low,
        }
    }
}

impl Pipeline {
    /// Commits and seals. Where table or store are away, or answer that somebody else was first for too long, the batch
    /// stays as it is, its files included, and is tried again: a commit may be repeated with the same batch after any
    /// error. All other errors end the pipeline, which is then begun anew from what the tables have recorded.
    pub(super) async fn settle(&mut self) -> Result<(), PipelineError> {
        match self.commit_and_seal().await {
            Ok(()) => {
                self.put_off = None;
                Ok(())
            }
            Err(PipelineError::Table(error)) if error.is_passing() => {
                let now = Instant::now();
                let put_off = self.put_off.get_or_insert(PutOff { since: now, wait: RETRY.0, retry_at: now });
                if put_off.since.elapsed() >= BATCH_AGE_MAX {
                    return Err(error.into());
                }
                self.metrics.commit_put_off(&self.model, &error.to_string(), put_off.wait);
                put_off.retry_at = now + put_off.wait;
                put_off.wait = (put_off.wait * 2).min(RETRY.1);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    async fn commit_and_seal(&mut self) -> Result<(), PipelineError> {
        self.commit().await?;
        self.seal().await?;
        self.follow().await
    }

    /// Appends tick records to partitions that were silent, unless the writers keep the time. A log that is away gets
    /// them when it is back.
    pub(super) async fn keep_time(&mut self) -> Result<(), PipelineError> {
        if self.config.writer_keeps_time() {
            return Ok(());
        }
        self.heard.retain(|(_, number), _| self.partitions.contains_key(number));
        let silent: Vec<(Kind, i32)> =
            self.heard.iter().filter(|(_, at)| at.elapsed() >= TICK_AFTER).map(|(key, _)| *key).collect();
        for (kind, number) in silent {
            self.heard.insert((kind, number), Instant::now());
            match self.feed.append_tick(kind, number).await {
                // The others would meet the same.
                Err(error) if error.is_passing() => {
                    self.metrics.tick_failed(&self.model, kind, number, &error.to_string());
                    return Ok(());
                }
                appended => appended?,
            }
        }
        Ok(())
    }

    /// Before which event time no prediction needs the index: as far before the last open tick that is done in every
    /// table and partition as the longest window, lateness and horizon together. What is sealed nevertheless reads its statements
    /// from the table. None where ids do not tell their time.
    fn index_horizon_ms(&self) -> Option<i64> {
        let done = |part: &Partition| part.complete_ms().and_then(|done| part.bars.last_open(done));
        let done_ms = self.partitions.values().map(done).min().flatten()?;
        let mut kept_ms = 0;
        for contract in self.contracts.versions() {
            if contract.ids != Ids::Minted {
                return None;
            }
            kept_ms = kept_ms.max(contract.longest_ms() + contract.seal.horizon_ms);
        }
        Some(done_ms - kept_ms)
    }

    /// Removes from the index what is of no more use, a bounded number of statements at a time: more than a turn lands.
    pub(super) fn expire_index(&mut self) -> Result<(), PipelineError> {
        if let Some(before_ms) = self.index_horizon_ms().filter(|before_ms| *before_ms > self.index_expired_ms)
            && self.index.expire(before_ms)?
        {
            self.index_expired_ms = before_ms;
        }
        Ok(())
    }

    /// Sounds the alarm where the index is large, and stops landing where it is as large as it may be.
    pub(super) fn measure_index(&mut self) -> Result<(), PipelineError> {
        let bytes = self.index.bytes()?;
        let level = IndexLevel::of(bytes, self.config.index.max_bytes);
        let changed = level != self.index_level;
        self.index_level = level;
        self.metrics.index_bytes(&self.model, bytes);
        match level {
            IndexLevel::High if changed => self.metrics.index_high(&self.model, bytes, self.config.index.max_bytes),
            IndexLevel::Full if changed => self.metrics.index_full(&self.model, bytes, self.config.index.max_bytes),
            _ => {}
        }
        Ok(())
    }
}
