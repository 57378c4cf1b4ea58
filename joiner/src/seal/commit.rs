//! From the rows of ticks to their table, with the ticks in the same commit.

use std::collections::BTreeMap;

use super::Span;
use crate::partition::Ticked;
use crate::pipeline::{COMPLETE_THROUGH, Pipeline, PipelineError};
use crate::table::{DataFile, Mark, Outcome, Table};

impl Pipeline {
    /// Commits rows with the ticks that they complete. False where another joiner did so meanwhile, from whose ticks is gone
    /// on then.
    pub(crate) async fn commit_ticks(
        &mut self,
        table: Ticked,
        spans: &BTreeMap<i32, Span>,
        files: Vec<DataFile>,
        rows: usize,
    ) -> Result<bool, PipelineError> {
        let from = |(number, _): (&i32, &Span)| Some((*number, tick_mark(self.partitions.get(number)?.tick_of(table))));
        let from: BTreeMap<i32, Mark> = spans.iter().filter_map(from).collect();
        let to = spans.iter().map(|(number, span)| (*number, tick_mark(Some(span.through)))).collect();
        let (partitions, cluster) = (self.partition_count, self.cluster.clone());
        let properties = move |marks: &BTreeMap<i32, Mark>| complete_through(marks, partitions);
        let committed = self.table_of(table);
        let outcome = committed.commit_with(files, &from, &to, &cluster, &properties).await?;
        let name = committed.name().to_owned();
        if let Outcome::Fenced(recorded) = &outcome {
            Pipeline::check_forward(committed, &from, recorded)?;
            self.metrics.fenced(&self.model, &name);
        } else {
            self.metrics.committed(&self.model, &name, rows);
        }
        for (number, span) in spans {
            let Some(part) = self.partitions.get_mut(number) else { continue };
            match &outcome {
                Outcome::Committed => part.set_tick(table, Some(span.through)),
                Outcome::Fenced(recorded) => {
                    let mark = recorded.get(number).and_then(|mark| mark.known());
                    part.set_tick(table, mark.map(|mark| mark.next));
                }
            }
        }
        Ok(outcome == Outcome::Committed)
    }

    pub(crate) fn table_of(&mut self, table: Ticked) -> &mut Table {
        match table {
            Ticked::Training => &mut self.training,
            Ticked::Revisions => &mut self.revisions,
            Ticked::Unmatched => &mut self.unmatched,
        }
    }
}

/// What such a table records of a partition: the last tick done.
fn tick_mark(tick_ms: Option<i64>) -> Mark {
    tick_ms.map_or(Mark::NONE, |tick| Mark { next: tick, time_ms: tick })
}

/// The property that tells a scheduler how far the table is complete: the least tick done over all partitions, as
/// RFC 3339; none while a partition has none.
fn complete_through(marks: &BTreeMap<i32, Mark>, partitions: i32) -> Vec<(String, String)> {
    if marks.len() < usize::try_from(partitions).unwrap_or(usize::MAX) {
        return Vec::new();
    }
    let least = marks.values().map(|mark| mark.next).min();
    let text = least.and_then(chrono::DateTime::from_timestamp_millis).map(|time| time.to_rfc3339());
    text.map(|text| (COMPLETE_THROUGH.to_owned(), text)).into_iter().collect()
}
