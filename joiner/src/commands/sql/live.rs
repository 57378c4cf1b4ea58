//! The training set as it stands before it is sealed.

use super::Names;
use super::labels;
use super::model::Model;
use super::{current, ticks};

/// The current view, and a row for each prediction that has no base row yet: `as_of` and `revised_at` are null, and the labels are
/// by the rule at T, the least, over the partitions, of the last ingest time of a landed outcome, and a millisecond: what was
/// ingested before T is landed everywhere. How far a partition was landed when the text was made is in the text; where later
/// outcomes stand in the table it is further. Labels are pending, or what they are.
pub(super) fn training(names: &Names, model: &Model) -> String {
    let landed: Vec<String> = model
        .landed_us
        .iter()
        .map(|(number, us)| format!("UNION ALL SELECT {number} AS kafka_partition, CAST({us} AS BIGINT) AS ingest_us"))
        .collect();
    let known = format!(
        "known AS (
  SELECT min(ingest_us) + 1000 AS tick_us FROM (
    SELECT kafka_partition, max(ingest_us) AS ingest_us FROM (
      SELECT kafka_partition, {} AS ingest_us FROM {}
      {}) landed
    GROUP BY kafka_partition) lasts)",
        names.micros("ingest_time"),
        names.table("outcomes"),
        landed.join("\n      "),
    );
    let unsealed = format!(
        "unsealed AS (
  SELECT p.* FROM firsts p
  LEFT JOIN (SELECT DISTINCT prediction_id FROM {}) t ON t.prediction_id = p.prediction_id
  WHERE t.prediction_id IS NULL)",
        names.table("training")
    );
    let due = "due AS (
  SELECT p.prediction_id, k.tick_us, p.flywheel_event_us AS event_us, p.exposure, p.contract_version
  FROM unsealed p CROSS JOIN known k)"
        .to_owned();
    let mut queries = vec![ticks::firsts(names), known, unsealed, due];
    queries.push(labels::rules(model));
    queries.push(labels::stated(names));
    queries.extend(labels::queries(names, model));
    let columns: Vec<String> = model
        .training
        .iter()
        .map(|(name, _)| format!("{} AS {}", expression(names, model, name), names.column(name)))
        .collect();
    let all: Vec<String> = model.training.iter().map(|(name, _)| names.column(name)).collect();
    let none = format!("CAST(NULL AS {})", names.timestamp_type());
    format!(
        "SELECT {}, revised_at FROM (\n{}) sealed\nUNION ALL\nSELECT * FROM (\nWITH {}\nSELECT {},\n  {none} AS revised_at\n\
         FROM unsealed p JOIN states s ON s.prediction_id = p.prediction_id) live",
        all.join(", "),
        current::training(names, model, None),
        queries.join(",\n"),
        columns.join(",\n  "),
    )
}

/// A column of the training table, of the prediction `p` and its labels' states `s`.
fn expression(names: &Names, model: &Model, column: &str) -> String {
    if column == "as_of" {
        return format!("CAST(NULL AS {})", names.timestamp_type());
    }
    if column == "flags" {
        return flags(names, model);
    }
    match labels::part(model, column) {
        Some((part, name)) if matches!(part, "at" | "known") => names.timestamp(&format!("s.{part}_of_{name}")),
        Some((part, name)) => format!("s.{part}_of_{name}"),
        None => format!("p.{}", names.column(column)),
    }
}

/// What was noticed about the row: what the prediction says, and the labels whose totals have left their range.
pub(super) fn flags(names: &Names, model: &Model) -> String {
    let flag = |label: &flywheel_schemas::contract::Label| {
        format!("CASE WHEN s.overflow_of_{0} THEN 'label_overflow:{0}' END", label.name)
    };
    let texts: Vec<String> = labels::in_order(model).filter(|label| labels::may_overflow(label)).map(flag).collect();
    if texts.is_empty() { "p.flags".to_owned() } else { names.appended("p.flags", &texts) }
}
