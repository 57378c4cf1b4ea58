//! The statements that have found no place, without those whose prediction has landed since.

use super::Names;
use super::labels::{finds_place, of_batch, speaks_of_any, stated_columns, streaming};
use super::model::Model;
use super::ticks;

/// A statement was said to have no prediction; one has come since, and the statement finds a place in it by the contract of its
/// first copy. One that speaks of a label of a batch job is that job's.
pub(super) fn current(names: &Names, model: &Model) -> String {
    let columns: Vec<String> = model.unmatched.iter().map(|(name, _)| format!("s.{}", names.column(name))).collect();
    let placed = model.by_version("p.contract_version", |contract| {
        let found = finds_place(names, &streaming(contract), "p.flywheel_event_us");
        Some(format!("({found} OR {})", speaks_of_any(names, &of_batch(contract))))
    });
    format!(
        "WITH {},
stated AS (
  SELECT c.*, least(c.event_us, c.ingest_us) AS t_us FROM (
    SELECT o.*, {} FROM {} o) c)
SELECT {}
FROM stated s LEFT JOIN firsts p ON p.prediction_id = s.prediction_id AND s.reason IN ('no_prediction', 'sampled_out')
WHERE p.prediction_id IS NULL OR NOT coalesce({placed}, FALSE)",
        ticks::firsts(names),
        stated_columns(names),
        names.table("unmatched"),
        columns.join(", "),
    )
}
