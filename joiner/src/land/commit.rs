//! From the batch to the raw tables, with the offsets in the same commit.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use flywheel_schemas::wire::Kind;

use crate::gate::Gate;
use crate::partition::{Partition, Side};
use crate::pipeline::{Pipeline, PipelineError, said_property};
use crate::table::{Mark, Outcome};

/// Progress without rows is committed after this time at the latest.
const PROGRESS_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

impl Pipeline {
    /// Whether there is a reason to commit now.
    pub(crate) fn is_due(&self) -> bool {
        let interval = Duration::from_millis(self.config.commit.interval_ms);
        let bytes = self.landings.predictions.bytes() + self.landings.outcomes.bytes() + self.aside.bytes();
        if bytes >= self.config.commit.bytes || self.aside.since.is_some_and(|since| since.elapsed() >= interval) {
            return true;
        }
        // A tick that has passed waits for the progress alone: early where nothing more is coming, else once an interval.
        let waits = self.partitions.values().any(|part| part.waiting_ms().is_some() || part.is_followed_late());
        if waits && (self.quiet || self.committed.elapsed() >= interval) {
            return true;
        }
        // Where no tick can pass, one topic's progress must not stay behind what the log keeps.
        self.committed.elapsed() >= PROGRESS_AFTER && self.partitions.values().any(Partition::is_ahead)
    }

    /// Commits what was read: first what the raw tables do not keep, then each raw table, then the index.
    pub(crate) async fn commit(&mut self) -> Result<(), PipelineError> {
        self.keep_aside().await?;
        for kind in [Kind::Outcomes, Kind::Predictions] {
            self.commit_raw(kind).await?;
        }
        self.aside.since = None;
        self.committed = Instant::now();
        Ok(())
    }

    pub(crate) async fn keep_aside(&mut self) -> Result<(), PipelineError> {
        if !self.aside.dead_letters.is_empty() {
            crate::letters::append(&mut self.dead_letter, &self.aside.dead_letters).await?;
            self.aside.dead_letters.clear();
        }
        if !self.aside.bars.is_empty() {
            crate::letters::append_bars(&mut self.seal_log, &self.model, &self.aside.bars).await?;
            self.aside.bars.clear();
        }
        Ok(())
    }

    async fn commit_raw(&mut self, kind: Kind) -> Result<(), PipelineError> {
        let mut from = BTreeMap::new();
        let mut to = BTreeMap::new();
        for (number, part) in &self.partitions {
            let side = part.side(kind);
            if let Some(read) = side.read.filter(|read| side.landed != Some(*read)) {
                from.insert(*number, side.landed.unwrap_or(Mark::NONE));
                to.insert(*number, read);
            }
        }
        if to.is_empty() {
            return Ok(());
        }
        let landing = self.landings.get_mut(kind);
        landing.cut()?;
        let files = landing.files().await?;
        let said = match kind {
            Kind::Predictions => Vec::new(),
            Kind::Outcomes => said(&self.partitions, to.keys()),
        };
        match landing.table.commit(files, &from, &to, &self.cluster, &said).await? {
            Outcome::Committed => {
                let rows = landing.batches.iter().map(RecordBatch::num_rows).sum();
                self.metrics.committed(&self.model, landing.table.name(), rows);
                self.count_committed(kind)?;
                let landing = self.landings.get_mut(kind);
                let statements = std::mem::take(&mut landing.statements);
                // The rows go before the index takes memory for the statements.
                landing.clear();
                if kind == Kind::Outcomes {
                    let stamp = to.iter().map(|(number, mark)| (*number, mark.next)).collect();
                    self.index.apply(statements, &stamp)?;
                }
                for (number, mark) in to {
                    if let Some(part) = self.partitions.get_mut(&number) {
                        part.side_mut(kind).landed = Some(mark);
                        if kind == Kind::Outcomes {
                            part.gate.landed = part.gate.read.clone();
                        }
                    }
                    self.feed.landed(kind, number, mark.next);
                }
            }
            Outcome::Fenced(recorded) => {
                Pipeline::check_forward(&self.landings.get(kind).table, &from, &recorded)?;
                self.metrics.fenced(&self.model, self.landings.get(kind).table.name());
                let numbers: Vec<i32> = to.into_keys().collect();
                // First what can fail, since the batch may be tried again after it.
                if kind == Kind::Outcomes {
                    // Gaps in what this joiner has not read itself; whoever landed it has kept them before.
                    self.take_bars(&numbers).await?;
                    self.catch_up().await?;
                }
                self.landings.get_mut(kind).clear();
                for number in &numbers {
                    self.rewind(kind, *number, recorded.get(number).and_then(|mark| mark.known()))?;
                }
            }
        }
        Ok(())
    }

    /// Reads a partition again from what the table has recorded: another joiner landed what this one held.
    fn rewind(&mut self, kind: Kind, number: i32, recorded: Option<Mark>) -> Result<(), PipelineError> {
        self.rates.end(number);
        let said = self.recorded_said(number)?;
        if let Some(part) = self.partitions.get_mut(&number) {
            *part.side_mut(kind) = Side::new(recorded);
            if kind == Kind::Outcomes {
                part.gate = Gate { through_ms: part.gate.through_ms, ..Gate::new(said) };
            }
            self.feed.assign(kind, number, recorded.map_or(-1, |mark| mark.next))?;
        }
        Ok(())
    }
}

/// What gate records have newly said of these partitions, as properties.
fn said<'a>(partitions: &BTreeMap<i32, Partition>, numbers: impl Iterator<Item = &'a i32>) -> Vec<(String, String)> {
    let gates = numbers.filter_map(|number| Some((number, &partitions.get(number)?.gate)));
    let new = gates.filter(|(_, gate)| gate.read != gate.landed);
    // A tree of texts and numbers always has JSON.
    new.map(|(number, gate)| (said_property(*number), serde_json::to_string(&gate.read).unwrap_or_default())).collect()
}
