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
use crate::partition::{Partition, Ticked};
use crate::pipeline::{Pipeline, PipelineError};
use crate::seal::ROWS_MAX;

impl Pipeline {
    /// Brings the tables that follow the training table to its ticks.
    pub(crate) async fn follow(&mut self) -> Result<(), PipelineError> {
        for table in Ticked::FOLLOWERS {
            // Each turn moves at least one partition by at least one tick, or ends.
            while self.follow_with(table).await? {}
        }
        Ok(())
    }

    /// False where there is nothing to do, or another joiner did it meanwhile.
    async fn follow_with(&mut self, table: Ticked) -> Result<bool, PipelineError> {
        let goal = |part: &Partition| part.done_ms.filter(|done| part.tick_of(table).is_none_or(|at| at < *done));
        let mut goals: BTreeMap<i32, i64> =
            self.partitions.iter().filter_map(|(number, part)| Some((*number, goal(part)?))).collect();
        if goals.is_empty() {
            return Ok(false);
        }
        let mut rows_max = Some(ROWS_MAX);
        // Each turn halves the ticks of a partition, and the last one takes what there is.
        loop {
            let spans = self.spans(&goals, |part| part.tick_of(table));
            let rows = match table {
                Ticked::Unmatched => self.unmatched(&spans, rows_max).await?,
                _ => self.revisions(&spans, rows_max).await?,
            };
            match rows {
                Some(rows) => {
                    let mut writer = self.table_of(table).writer()?;
                    for batch in &rows {
                        writer.write(batch).await?;
                    }
                    let rows = rows.iter().map(RecordBatch::num_rows).sum();
                    return self.commit_ticks(table, &spans, writer.close().await?, rows).await;
                }
                None => rows_max = self.halve(&mut goals, |part| part.tick_of(table)).then_some(ROWS_MAX),
            }
        }
    }
}

/// The last tick at which labels of a prediction may change.
fn final_tick(contract: &Contract, bars: &Bars, event_ms: i64, ingest_ms: i64) -> i64 {
    let settled = (event_ms + contract.longest_ms()).max(ingest_ms + bars.drain_ms());
    bars.first_open(settled + contract.seal.horizon_ms, i64::MIN)
}
