//! How many predictions and outcomes came in, by partition and grid.
//!
//! The rule for tick T, a label with lateness m and r outcomes asked for per prediction: look back from T over whole
//! distances of the grid, over `m` at least, and on until at [`EXPECTED_MIN`] outcomes or more are asked for, but over no
//! more than a day. Where the predictions of a day do not ask for as many, nothing can be said, and the tick is open.
//! The label's source is dead where fewer came in than were asked for.
//!
//! Why `m`: of a prediction that is due at T and misses an outcome that would have been sent, the source was silent from
//! before the end of its window on, which is `m` before T at the latest. So a source that sends nothing at all is found out
//! before the first prediction that needed it is sealed, if ten outcomes are asked for within `m`.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use arrow::array::{Array, Int32Array, RecordBatch, TimestampMicrosecondArray};
use flywheel_schemas::wire::Kind;

use crate::letters::column;
use crate::pipeline::PipelineError;

/// No count looks further back, in milliseconds.
pub(crate) const DAY_MS: i64 = 86_400_000;

/// Below so many nothing is said: of a source at three times the rate that is asked for, fewer than ten where thirty are
/// usual is a matter of one tick in 100,000 (Poisson).
const EXPECTED_MIN: f64 = 10.0;

/// The counts of partitions.
#[derive(Debug)]
pub(crate) struct Rates {
    grid_ms: i64,
    partitions: BTreeMap<i32, Counts>,
}

/// The counts of a partition. As many as a day has ticks, and those that are not sealed yet.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    grid_ms: i64,
    /// By the beginning of their time.
    buckets: BTreeMap<i64, Bucket>,
}

#[derive(Debug, Default)]
struct Bucket {
    predictions: u64,
    /// The greatest contract version among them.
    version: i32,
    /// Outcomes, by label.
    outcomes: BTreeMap<String, u64>,
}

/// What is read of a raw table to count its rows.
pub(super) fn columns(kind: Kind, labels: &BTreeSet<String>) -> Vec<String> {
    let mut columns = vec!["ingest_time".to_owned(), "kafka_partition".to_owned()];
    match kind {
        Kind::Predictions => columns.push("contract_version".to_owned()),
        Kind::Outcomes => columns.extend(labels.iter().map(|label| format!("label_{label}"))),
    }
    columns
}

impl Rates {
    pub fn new(grid_ms: i64) -> Rates {
        Rates { grid_ms, partitions: BTreeMap::new() }
    }

    pub fn is_empty(&self) -> bool {
        self.partitions.is_empty()
    }

    pub fn partitions(&self) -> BTreeSet<i32> {
        self.partitions.keys().copied().collect()
    }

    pub fn of(&self, number: i32) -> Option<&Counts> {
        self.partitions.get(&number)
    }

    /// Counts a partition of which there may be no row.
    pub fn begin(&mut self, number: i32) {
        let grid_ms = self.grid_ms;
        self.partitions.entry(number).or_insert_with(|| Counts { grid_ms, buckets: BTreeMap::new() });
    }

    /// Takes over the partitions of others.
    pub fn take_over(&mut self, counted: Rates) {
        self.partitions.extend(counted.partitions);
    }

    /// Forgets a partition: what was landed of it is not known any more.
    pub fn end(&mut self, number: i32) {
        self.partitions.remove(&number);
    }

    /// Forgets what no tick after `tick` asks for.
    pub fn forget(&mut self, number: i32, tick: i64) {
        if let Some(counts) = self.partitions.get_mut(&number) {
            counts.buckets = counts.buckets.split_off(&(tick - DAY_MS));
        }
    }

    /// Counts rows of some partitions.
    pub fn add(
        &mut self,
        kind: Kind,
        rows: &RecordBatch,
        labels: &BTreeSet<String>,
        is_counted: impl Fn(i32) -> bool,
    ) -> Result<(), PipelineError> {
        let times: &TimestampMicrosecondArray = column(rows, "ingest_time")?;
        let partitions: &Int32Array = column(rows, "kafka_partition")?;
        let versions: Option<&Int32Array> = match kind {
            Kind::Predictions => Some(column(rows, "contract_version")?),
            Kind::Outcomes => None,
        };
        // A label that no table has yet was never stated.
        let mut stated = Vec::new();
        for label in labels.iter().filter(|_| kind == Kind::Outcomes) {
            stated.extend(rows.column_by_name(&format!("label_{label}")).map(|values| (label, values)));
        }
        for row in (0..rows.num_rows()).filter(|row| is_counted(partitions.value(*row))) {
            self.begin(partitions.value(row));
            let Some(counts) = self.partitions.get_mut(&partitions.value(row)) else { continue };
            let start = times.value(row).div_euclid(1000).div_euclid(self.grid_ms) * self.grid_ms;
            let bucket = counts.buckets.entry(start).or_default();
            if let Some(versions) = versions {
                bucket.predictions += 1;
                bucket.version = bucket.version.max(versions.value(row));
            }
            for (label, values) in &stated {
                if !values.is_null(row) {
                    match bucket.outcomes.get_mut(label.as_str()) {
                        Some(count) => *count += 1,
                        None => drop(bucket.outcomes.insert((*label).clone(), 1)),
                    }
                }
            }
        }
        Ok(())
    }
}

impl Counts {
    /// The beginning of the first count.
    pub fn first_ms(&self) -> Option<i64> {
        self.buckets.keys().next().copied()
    }

    /// The contract in force at a tick; none where the last day had no prediction.
    pub fn version(&self, tick: i64) -> Option<i32> {
        let day = self.buckets.range(tick - DAY_MS..tick);
        day.filter(|(_, bucket)| bucket.predictions > 0).map(|(_, bucket)| bucket.version).max()
    }

    /// Whether too few outcomes with this label came in before a tick.
    pub fn is_dead(&self, tick: i64, label: &str, per_prediction: f64, lateness_ms: i64) -> bool {
        let least_ms = lateness_ms.clamp(1, DAY_MS);
        let (mut predictions, mut outcomes) = (0_u64, 0_u64);
        let asked_for = |predictions: u64| predictions as f64 * per_prediction;
        for (start, bucket) in self.buckets.range(tick - DAY_MS..tick).rev() {
            // What lies between two counts adds nothing: the look ends where the one before has reached far enough.
            let reached = tick - start - self.grid_ms >= least_ms;
            if reached && asked_for(predictions) >= EXPECTED_MIN {
                break;
            }
            predictions += bucket.predictions;
            outcomes += bucket.outcomes.get(label).copied().unwrap_or(0);
        }
        asked_for(predictions) >= EXPECTED_MIN && (outcomes as f64) < asked_for(predictions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000;
    const GRID: i64 = 5 * MINUTE;

    /// Each five minutes so many predictions, and outcomes with the label `l`.
    fn counts(of: &[(u64, u64)]) -> Counts {
        let bucket = |(predictions, outcomes): &(u64, u64)| Bucket {
            predictions: *predictions,
            version: 1,
            outcomes: BTreeMap::from([("l".to_owned(), *outcomes)]),
        };
        let buckets = (0..).zip(of).map(|(n, of)| (n * GRID, bucket(of))).collect();
        Counts { grid_ms: GRID, buckets }
    }

    /// The numbers of the ticks, from the first bucket's end on.
    fn dead(counts: &Counts, ticks: i64, per_prediction: f64, lateness_ms: i64) -> Vec<i64> {
        (1..=ticks).filter(|n| counts.is_dead(n * GRID, "l", per_prediction, lateness_ms)).collect()
    }

    #[test]
    fn a_source_that_stops_is_found_out_within_the_lateness() {
        let mut of = vec![(100, 20); 6];
        of.extend([(100, 0); 6]);
        // Ten are asked for in each five minutes.
        assert_eq!(dead(&counts(&of), 12, 0.1, 5 * MINUTE), [7, 8, 9, 10, 11, 12]);
        // Of fifteen minutes, two without outcomes leave 20 of the 30 that are asked for, one leaves 40.
        assert_eq!(dead(&counts(&of), 12, 0.1, 15 * MINUTE), [8, 9, 10, 11, 12]);
        assert_eq!(dead(&counts(&of), 12, 0.1, 11 * MINUTE), [8, 9, 10, 11, 12], "whole distances of the grid");
        assert_eq!(dead(&counts(&of), 12, 0.1, 10 * MINUTE), [8, 9, 10, 11, 12], "20 are not fewer than 20");
    }

    #[test]
    fn of_few_predictions_is_counted_further_back() {
        let mut of = vec![(10, 2); 24];
        of.extend([(10, 0); 14]);
        // Ten are asked for in fifty minutes: with 18 of them at the first tick without, with 8 at the sixth.
        assert_eq!(dead(&counts(&of), 38, 0.1, 5 * MINUTE).first(), Some(&30));
    }

    #[test]
    fn of_too_few_in_a_day_nothing_is_said() {
        let counts = counts(&[(1, 0); 400]);
        assert!(dead(&counts, 400, 0.03, 5 * MINUTE).is_empty());
        let last_day = dead(&counts, 400, 0.035, 5 * MINUTE);
        assert_eq!(last_day.first(), Some(&286), "10 / 0.035, and a day has 288");
    }

    #[test]
    fn without_predictions_nobody_is_asked() {
        assert!(dead(&counts(&[(100, 20), (0, 0), (0, 0), (0, 3)]), 8, 0.1, 5 * MINUTE).is_empty());
        assert_eq!(counts(&[(0, 3)]).version(GRID), None);
    }
}
