//! What comes after the base row: revisions, and statements without a place.
//!
//! Two tables follow the ticks of the training table, each with its own last tick done per partition, by the same
//! compare-and-set. Both are functions of the raw tables and of the bars, as sealing is; a joiner that ends between the
//! three commits leaves the rest to the next one.
//!
//! - `<model>_label_revisions` (`revisions`): at each open tick T with `as_of < T ≤ final` at which the value or the status of
//!   a label is another than at the open tick before, one row with all labels as they are at T; those of a batch job, whose
//!   revisions that job writes, are null.
//! - `<model>_unmatched` (`unmatched`): each statement that has found no place in any label when its time is over.
//!
//! `final` of a prediction is the first open tick at or after `max(event time + longest, ingest time + drain) + horizon`,
//! where longest is the greatest window + lateness of its contract: the last tick at which its labels may change.

mod candidates;
mod revisions;
mod unmatched;

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use flywheel_schemas::contract::Contract;

use crate::bar::Bars;
use crate::partition::{Follower, Partition};
use crate::pipeline::{Pipeline, PipelineError};
use crate::seal::{ROWS_MAX, Span, complete_through, tick_mark};
use crate::table::{Mark, Outcome, Table};

impl Pipeline {
    /// Brings the tables that follow the training table to its ticks.
    pub(crate) async fn follow(&mut self) -> Result<(), PipelineError> {
        for follower in Follower::ALL {
            // Each turn moves at least one partition by at least one tick, or ends.
            while self.follow_with(follower).await? {}
        }
        Ok(())
    }

    /// False where there is nothing to do, or another joiner did it meanwhile.
    async fn follow_with(&mut self, follower: Follower) -> Result<bool, PipelineError> {
        let goal =
            |part: &Partition| part.done_ms.filter(|done| part.followed_ms(follower).is_none_or(|at| at < *done));
        let mut goals: BTreeMap<i32, i64> =
            self.partitions.iter().filter_map(|(number, part)| Some((*number, goal(part)?))).collect();
        if goals.is_empty() {
            return Ok(false);
        }
        let mut rows_max = Some(ROWS_MAX);
        // Each turn halves the ticks of a partition, and the last one takes what there is.
        loop {
            let spans = self.spans(&goals, |part| part.followed_ms(follower));
            let rows = match follower {
                Follower::Revisions => self.revisions(&spans, rows_max).await?,
                Follower::Unmatched => self.unmatched(&spans, rows_max).await?,
            };
            match rows {
                Some(rows) => return self.record(follower, &spans, rows).await,
                None => rows_max = self.halve(&mut goals, |part| part.followed_ms(follower)).then_some(ROWS_MAX),
            }
        }
    }

    /// Commits rows with the ticks that they complete.
    async fn record(
        &mut self,
        follower: Follower,
        spans: &BTreeMap<i32, Span>,
        rows: Vec<RecordBatch>,
    ) -> Result<bool, PipelineError> {
        let from: BTreeMap<i32, Mark> = spans
            .keys()
            .filter_map(|number| Some((*number, tick_mark(self.partitions.get(number)?.followed_ms(follower)))))
            .collect();
        let to: BTreeMap<i32, Mark> =
            spans.iter().map(|(number, span)| (*number, tick_mark(Some(span.through)))).collect();
        let (complete, cluster) = (self.partition_count, self.cluster.clone());
        let count = rows.iter().map(RecordBatch::num_rows).sum();
        let table = self.table_of(follower);
        let mut writer = table.writer()?;
        for batch in &rows {
            writer.write(batch).await?;
        }
        let files = writer.close().await?;
        let properties = move |marks: &BTreeMap<i32, Mark>| complete_through(marks, complete);
        let outcome = table.commit_with(files, &from, &to, &cluster, &properties).await?;
        let name = table.name().to_owned();
        if let Outcome::Fenced(recorded) = &outcome {
            Pipeline::check_forward(table, &from, recorded)?;
        }
        match outcome {
            Outcome::Committed => {
                for (number, span) in spans {
                    if let Some(part) = self.partitions.get_mut(number) {
                        *part.followed_ms_mut(follower) = Some(span.through);
                    }
                }
                self.metrics.committed(&self.model, &name, count);
                Ok(true)
            }
            Outcome::Fenced(recorded) => {
                self.metrics.fenced(&self.model, &name);
                for number in spans.keys() {
                    if let Some(part) = self.partitions.get_mut(number) {
                        let mark = recorded.get(number).and_then(|mark| mark.known());
                        *part.followed_ms_mut(follower) = mark.map(|mark| mark.next);
                    }
                }
                Ok(false)
            }
        }
    }

    fn table_of(&mut self, follower: Follower) -> &mut Table {
        match follower {
            Follower::Revisions => &mut self.revisions,
            Follower::Unmatched => &mut self.unmatched,
        }
    }
}

/// The last tick at which labels of a prediction may change.
fn final_tick(contract: &Contract, bars: &Bars, event_ms: i64, ingest_ms: i64) -> i64 {
    let settled = (event_ms + contract.longest_ms()).max(ingest_ms + bars.drain_ms());
    bars.first_open(settled + contract.seal.horizon_ms, i64::MIN)
}
