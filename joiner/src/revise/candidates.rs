//! Reading what a span of ticks may concern: statements by when they were ingested, predictions by id.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::{Array as _, Int32Array, StringArray, TimestampMicrosecondArray};
use flywheel_schemas::contract::Ids;
use flywheel_schemas::id::time_ms_of;
use futures::TryStreamExt;

use crate::label::{SERVED, Statement};
use crate::letters::column;
use crate::map::HashMap;
use crate::pipeline::{Pipeline, PipelineError};
use crate::seal::{Copies, EARLIEST_MS, IDS_PER_SCAN, Seen, Span};
use crate::table::Predicate;

/// Ids whose times are further apart than this are looked for in ranges of their own, in milliseconds.
const APART_MS: i64 = 3_600_000;
/// Ranges of times in one filter at most; beyond it the nearest are joined.
const RANGES_MAX: usize = 32;

/// First copies of predictions, with what labels ask of them.
#[derive(Default)]
pub(super) struct Found {
    pub seen: Seen,
    /// By place, of those that are not `served`.
    exposures: HashMap<(i32, i64), String>,
    pub rows: usize,
}

impl Found {
    /// The exposure of the copy at a place.
    pub fn exposure(&self, place: (i32, i64)) -> Option<&str> {
        self.exposures.get(&place).map(String::as_str)
    }
}

/// Milliseconds from the first to before the second.
pub(super) type Times = (i64, i64);

impl Pipeline {
    /// Whether all ids of the model hold their times.
    pub(super) fn has_minted_ids(&self) -> bool {
        self.contracts.versions().all(|contract| contract.ids == Ids::Minted)
    }

    /// Ids of which a statement was ingested at a time that `is_meant` says it is, by partition and time. Reads what was
    /// ingested in `times`.
    pub(super) async fn stated(
        &self,
        times: Times,
        is_meant: impl Fn(&str, i32, i64) -> bool,
    ) -> Result<BTreeSet<String>, PipelineError> {
        let columns = ["prediction_id", "kafka_partition", "ingest_time"];
        let predicate = Predicate::IngestTimeBetween(times.0.max(EARLIEST_MS), times.1);
        let mut stream = Box::pin(self.landings.outcomes.table.scan(&columns, predicate).await?);
        let mut ids = BTreeSet::new();
        while let Some(batch) = stream.try_next().await? {
            let texts: &StringArray = column(&batch, columns[0])?;
            let partitions: &Int32Array = column(&batch, columns[1])?;
            let ingest: &TimestampMicrosecondArray = column(&batch, columns[2])?;
            for row in 0..batch.num_rows() {
                let id = texts.value(row);
                if is_meant(id, partitions.value(row), ingest.value(row).div_euclid(1000)) && !ids.contains(id) {
                    ids.insert(id.to_owned());
                }
            }
        }
        Ok(ids)
    }

    /// All copies of these predictions, and of those of an event time in `slices`, in the partitions of `spans`.
    pub(super) async fn predictions(
        &self,
        spans: &BTreeMap<i32, Span>,
        ids: &BTreeSet<String>,
        slices: &[Times],
        rows_max: Option<usize>,
    ) -> Result<Option<Found>, PipelineError> {
        let mut found = Found::default();
        let mut predicates: Vec<Predicate> = Vec::new();
        let mut times: Vec<Times> = slices.to_vec();
        if self.has_minted_ids() {
            times.extend(ids.iter().filter_map(|id| time_ms_of(id)).map(|time| (time, time + 1)));
        } else {
            let ids: Vec<String> = ids.iter().cloned().collect();
            predicates.extend(ids.chunks(IDS_PER_SCAN).map(|ids| Predicate::PredictionIds(ids.to_vec())));
        }
        let ranges = joined(times);
        if !ranges.is_empty() {
            let ranges = ranges.into_iter().map(|(from, before)| Predicate::EventTimeBetween(from, before)).collect();
            predicates.insert(0, Predicate::Or(ranges));
        }
        for predicate in predicates {
            let table = &self.landings.predictions.table;
            let mut stream = Box::pin(table.scan(&Copies::COLUMNS, predicate).await?);
            while let Some(batch) = stream.try_next().await? {
                let copies = Copies::of(&batch)?;
                for row in 0..batch.num_rows() {
                    if !spans.contains_key(&copies.partitions.value(row)) {
                        continue;
                    }
                    let (id, copy) = (copies.ids.value(row), copies.copy(row));
                    let is_in = |(from, before): &Times| (*from..*before).contains(&copy.event_ms);
                    if !slices.iter().any(is_in) && !ids.contains(id) {
                        continue;
                    }
                    if !copies.exposures.is_null(row) && copies.exposures.value(row) != SERVED {
                        found.exposures.insert(copy.place(), copies.exposures.value(row).to_owned());
                    }
                    found.rows += 1;
                    found.seen.add(id, copy);
                }
                if rows_max.is_some_and(|rows_max| found.rows > rows_max) {
                    return Ok(None);
                }
            }
        }
        Ok(Some(found))
    }

    /// The statements about each of these predictions with an ingest time before that given for it, the first `max` in the
    /// order of ingest: from the index, or from the table where the index does not have them any more.
    pub(super) async fn statements_about<'a>(
        &self,
        ids: &[(&'a str, i64)],
        max: usize,
    ) -> Result<HashMap<&'a str, Vec<Statement>>, PipelineError> {
        let expired_before_ms = self.index.expired_before_ms()?;
        let is_expired = |id: &str| expired_before_ms > 0 && time_ms_of(id).is_none_or(|time| time < expired_before_ms);
        let indexed = ids.iter().filter(|(id, _)| !is_expired(id)).copied().collect();
        let mut all: HashMap<&str, Vec<Statement>> = self.index.statements_of(indexed, max)?;
        let expired: Vec<(&str, i64)> = ids.iter().filter(|(id, _)| is_expired(id)).copied().collect();
        for ids in expired.chunks(IDS_PER_SCAN) {
            let bounds: HashMap<&str, (&'a str, i64)> =
                ids.iter().map(|(id, before_ms)| (*id, (*id, *before_ms))).collect();
            let names: Vec<&str> = ids.iter().map(|(id, _)| *id).collect();
            for (id, statement) in self.landed_statements(&names).await? {
                if let Some((id, before_ms)) = bounds.get(id.as_str())
                    && statement.ingest_time_ms < *before_ms
                {
                    all.entry(id).or_default().push(statement);
                }
            }
            for id in names {
                if let Some(statements) = all.get_mut(id) {
                    statements.sort_unstable_by_key(Statement::order);
                    statements.truncate(max);
                }
            }
        }
        Ok(all)
    }
}

/// Ranges that hold all of these, few and in order: the widest gaps between them stay gaps.
fn joined(mut times: Vec<Times>) -> Vec<Times> {
    times.retain(|(from, before)| from < before);
    times.sort_unstable();
    let ranges = closer_than(APART_MS, &times);
    let mut gaps: Vec<i64> = ranges.windows(2).map(|pair| pair[1].0.saturating_sub(pair[0].1)).collect();
    gaps.sort_unstable_by(|a, b| b.cmp(a));
    match gaps.get(RANGES_MAX - 1) {
        Some(gap) => closer_than(*gap, &ranges),
        None => ranges,
    }
}

/// Joins ranges, which are in order, that are no further apart than this.
fn closer_than(apart_ms: i64, times: &[Times]) -> Vec<Times> {
    let mut ranges: Vec<Times> = Vec::new();
    for (from, before) in times {
        match ranges.last_mut() {
            Some(last) if *from <= last.1.saturating_add(apart_ms) => last.1 = last.1.max(*before),
            _ => ranges.push((*from, *before)),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_joined_into_few_ranges_that_hold_them_all() {
        assert_eq!(joined(vec![(5, 6), (1, 2), (4, 4)]), [(1, 6)]);
        let far: Vec<Times> = (0..1000).map(|n| (n * n * APART_MS, n * n * APART_MS + 1)).collect();
        let ranges = joined(far.clone());
        assert!(ranges.len() <= RANGES_MAX && ranges.len() > 1);
        for (from, before) in far {
            assert!(ranges.iter().any(|range| range.0 <= from && before <= range.1));
        }
    }
}
