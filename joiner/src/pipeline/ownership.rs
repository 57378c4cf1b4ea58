//! Partitions that come and go: each is begun from what the tables have recorded of it.

use std::collections::BTreeMap;
use std::time::Instant;

use flywheel_schemas::wire::{self, Kind};
use futures::TryStreamExt;

use super::{Pipeline, PipelineError};
use crate::bar::Bars;
use crate::gate::{Gate, Said};
use crate::partition::{Partition, Side};
use crate::table::{Mark, Predicate, Table};

/// The last tick that a table has recorded as done, by partition.
async fn ticks(table: &mut Table) -> Result<BTreeMap<i32, i64>, PipelineError> {
    let marks = table.progress().await?.map(|progress| progress.marks).unwrap_or_default();
    Ok(marks.into_iter().filter_map(|(number, mark)| Some((number, mark.known()?.next))).collect())
}

/// The property of the outcomes table with what gate records have said of a partition.
pub(crate) fn said_property(number: i32) -> String {
    format!("flywheel.gate.{number}")
}

impl Pipeline {
    /// Starts with partitions from what the tables have recorded.
    pub(super) async fn take_partitions(&mut self, numbers: &[i32]) -> Result<(), PipelineError> {
        let new: Vec<i32> = numbers.iter().copied().filter(|number| !self.partitions.contains_key(number)).collect();
        if new.is_empty() {
            return Ok(());
        }
        if let Some(number) = new.iter().copied().find(|number| *number >= self.partition_count) {
            return Err(PipelineError::AnotherTopic {
                topic: wire::topic(&self.config.log.prefix, &self.model, Kind::Predictions),
                partition: number,
                why: format!("it had {} partitions, and keys have moved", self.partition_count),
            });
        }
        let predictions = self.recorded(Kind::Predictions).await?;
        let outcomes = self.recorded(Kind::Outcomes).await?;
        let training = ticks(&mut self.training).await?;
        let revisions = ticks(&mut self.revisions).await?;
        let unmatched = ticks(&mut self.unmatched).await?;
        for number in new.iter().copied() {
            let part = Partition {
                predictions: Side::new(predictions.get(&number).copied()),
                outcomes: Side::new(outcomes.get(&number).copied()),
                done_ms: training.get(&number).copied(),
                revised_ms: revisions.get(&number).copied(),
                unmatched_ms: unmatched.get(&number).copied(),
                bars: Bars::new(self.grid_ms, self.drain_ms),
                gate: Gate::new(self.recorded_said(number)?),
            };
            if let Some(done) = part.done_ms
                && let Some(kind) = [Kind::Predictions, Kind::Outcomes]
                    .into_iter()
                    .find(|kind| part.side(*kind).last_ms().is_none_or(|last| last < done))
            {
                let behind = self.landings.get(kind).table.name().to_owned();
                let training = self.training.name().to_owned();
                return Err(PipelineError::Behind { behind, training, partition: number });
            }
            for kind in [Kind::Predictions, Kind::Outcomes] {
                self.start_side(kind, number, part.side(kind).landed).await?;
                self.heard.insert((kind, number), Instant::now());
            }
            self.metrics.partition_taken(&self.model, number, part.done_ms);
            self.partitions.insert(number, part);
        }
        self.metrics.partitions(&self.model, self.partitions.len());
        self.take_bars(&new).await?;
        // The first outcome record of a partition leaves a bar, before it is landed.
        let lost = new.iter().find(|number| {
            self.partitions.get(number).is_some_and(|part| part.outcomes.landed.is_some() && part.bars.is_empty())
        });
        if let Some(number) = lost {
            let (table, model) = (self.seal_log.name().to_owned(), self.model.clone());
            return Err(PipelineError::BarsLost { table, model, partition: *number });
        }
        self.catch_up().await
    }

    /// Seeks one record before the recorded offset, so that reading shows whether it is still the same topic.
    async fn start_side(&mut self, kind: Kind, number: i32, landed: Option<Mark>) -> Result<(), PipelineError> {
        let (low, end) = self.feed.offsets(kind, number).await?;
        let Some(mark) = landed else {
            if low > 0 {
                self.metrics.begins_late(&self.model, kind, number, low);
            }
            return Ok(self.feed.assign(kind, number, -1)?);
        };
        let topic = || wire::topic(&self.config.log.prefix, &self.model, kind);
        if end < mark.next {
            let why = format!("it ends at offset {end}, but {} is landed already", mark.next);
            return Err(PipelineError::AnotherTopic { topic: topic(), partition: number, why });
        }
        if low > mark.next {
            let why = format!("it begins at offset {low}: records from {} on went before they were landed", mark.next);
            return Err(PipelineError::AnotherTopic { topic: topic(), partition: number, why });
        }
        Ok(self.feed.assign(kind, number, (mark.next - 1).max(low))?)
    }

    /// Leaves partitions to others: what was read of them and not committed is read by their next owner.
    pub(super) fn leave_partitions(&mut self, numbers: &[i32]) -> Result<(), PipelineError> {
        for number in numbers {
            if self.partitions.remove(number).is_some() {
                self.rates.end(*number);
                self.feed.unassign(*number);
                self.metrics.partition_left(&self.model, *number);
            }
        }
        self.metrics.partitions(&self.model, self.partitions.len());
        // Rows of the partitions left are mixed with the others' in the batch; all that stay are read again.
        self.landings.predictions.clear();
        self.landings.outcomes.clear();
        self.held.retain(|(_, number), _| self.partitions.contains_key(number));
        for (number, part) in &mut self.partitions {
            part.gate.read = part.gate.landed.clone();
            for kind in [Kind::Predictions, Kind::Outcomes] {
                let landed = part.side(kind).landed;
                *part.side_mut(kind) = Side::new(landed);
                self.feed.assign(kind, *number, landed.map_or(-1, |mark| mark.next))?;
            }
        }
        Ok(())
    }

    /// Takes back the alarms of partitions that wait: the next start reads them again.
    pub(super) fn forget_held(&mut self) {
        for (kind, number) in std::mem::take(&mut self.held).into_keys() {
            self.metrics.partition_forgotten(&self.model, kind, number);
        }
    }

    /// An error where a table stands before what was recorded in it: there marks move forward alone.
    pub(crate) fn check_forward(
        table: &Table,
        known: &BTreeMap<i32, Mark>,
        recorded: &BTreeMap<i32, Mark>,
    ) -> Result<(), PipelineError> {
        let next = |number: &i32| recorded.get(number).map_or(-1, |mark| mark.next);
        match known.iter().find(|(number, mark)| next(number) < mark.next) {
            None => Ok(()),
            Some((number, mark)) => Err(PipelineError::WentBack {
                table: table.name().to_owned(),
                partition: *number,
                recorded: next(number),
                known: mark.next,
            }),
        }
    }

    async fn recorded(&mut self, kind: Kind) -> Result<BTreeMap<i32, Mark>, PipelineError> {
        let cluster = self.cluster.clone();
        let landing = self.landings.get_mut(kind);
        match landing.table.progress().await? {
            None => Ok(BTreeMap::new()),
            Some(progress) if progress.cluster == cluster => {
                self.feed.count_from(kind, &progress.bases);
                Ok(progress.marks)
            }
            Some(progress) => Err(PipelineError::AnotherTopic {
                topic: wire::topic(&self.config.log.prefix, &self.model, kind),
                partition: 0,
                why: format!("it is on cluster {cluster}, the tables were filled from cluster {}", progress.cluster),
            }),
        }
    }

    /// What gate records have said of a partition, as the outcomes table has recorded it.
    pub(crate) fn recorded_said(&self, number: i32) -> Result<Said, PipelineError> {
        let table = &self.landings.outcomes.table;
        let Some(text) = table.property(&said_property(number)) else { return Ok(Said::default()) };
        serde_json::from_str(&text).map_err(|error| PipelineError::Said { partition: number, cause: error.to_string() })
    }

    /// Takes over what the seal log has barred for these partitions.
    pub(crate) async fn take_bars(&mut self, numbers: &[i32]) -> Result<(), PipelineError> {
        self.seal_log.refresh().await?;
        for (number, bar) in crate::letters::read_bars(&self.seal_log, &self.model, numbers).await? {
            if let Some(part) = self.partitions.get_mut(&number) {
                part.bars.add(bar);
            }
        }
        Ok(())
    }

    /// Brings the index up to what the outcomes table has recorded.
    pub(crate) async fn catch_up(&mut self) -> Result<(), PipelineError> {
        let recorded = self.recorded(Kind::Outcomes).await?;
        let mut stamp = self.index.stamp()?;
        let ahead = stamp.iter().any(|(number, next)| recorded.get(number).is_none_or(|mark| mark.next < *next));
        if ahead {
            self.index.clear()?;
            stamp.clear();
        }
        for (number, mark) in recorded.iter().filter(|(number, _)| self.partitions.contains_key(number)) {
            let from = stamp.get(number).copied().unwrap_or(0);
            if from >= mark.next {
                continue;
            }
            let predicate = Predicate::And(vec![Predicate::Partition(*number), Predicate::OffsetFrom(from)]);
            let table = &self.landings.outcomes.table;
            let columns: Vec<String> = table.arrow_schema().fields().iter().map(|field| field.name().clone()).collect();
            let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
            let mut stream = Box::pin(table.scan(&columns, predicate).await?);
            while let Some(batch) = stream.try_next().await? {
                let mut statements = crate::decode::statements(&batch).map_err(PipelineError::decode)?;
                statements.retain(|(_, statement)| {
                    statement.partition == *number && (from..mark.next).contains(&statement.offset)
                });
                // Only the last batch may move the stamp: before it the partition is not whole.
                self.index.apply(statements, &BTreeMap::new())?;
            }
            drop(stream);
            self.index.apply(Vec::new(), &BTreeMap::from([(*number, mark.next)]))?;
            self.metrics.caught_up(&self.model, *number, mark.next - from);
        }
        Ok(())
    }
}
