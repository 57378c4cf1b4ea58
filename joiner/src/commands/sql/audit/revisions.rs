//! The labels of a sealed prediction at every tick at which one is another than at the tick before.
//!
//! They can change only at the first open tick after a statement was ingested, and at that at which a label closes: so these
//! are looked at, and the tick of the base row, and each is compared with the one before it.

use super::super::labels::{self, part};
use super::super::model::Model;
use super::super::names::arrow_of;
use super::super::{Names, ticks};
use super::compare::{self, Column, Sides};

pub(super) fn text(names: &Names, model: &Model, through_us: i64) -> String {
    let ticks = format!(
        "wanted AS (
  SELECT p.prediction_id, p.kafka_partition, {} AS from_us
  FROM sealed p JOIN stated s ON s.prediction_id = p.prediction_id
  UNION ALL
  SELECT p.prediction_id, p.kafka_partition, {} AS from_us
  FROM sealed p JOIN rules r ON r.contract_version = p.contract_version),
changes AS (
  SELECT DISTINCT w.prediction_id, coalesce(b.open_us, w.from_us) AS tick_us
  FROM wanted w LEFT JOIN bars b ON b.kafka_partition = w.kafka_partition AND w.from_us BETWEEN b.first_us AND b.last_us)",
        ticks::tick_from(model, "(s.ingest_us + 1000)"),
        ticks::tick_from(model, "(p.flywheel_event_us + r.close_us)"),
    );
    let due = format!(
        "due AS (
  SELECT p.prediction_id, p.flywheel_as_of_us AS tick_us, p.flywheel_event_us AS event_us, p.exposure, p.contract_version
  FROM sealed p WHERE p.flywheel_as_of_us <= {through_us}
  UNION ALL
  SELECT p.prediction_id, c.tick_us, p.flywheel_event_us AS event_us, p.exposure, p.contract_version
  FROM sealed p JOIN changes c ON c.prediction_id = p.prediction_id
  WHERE c.tick_us > p.flywheel_as_of_us AND c.tick_us <= p.flywheel_final_us AND c.tick_us <= {through_us})"
    );
    let mut queries = vec![ticks::bars(names, model), ticks::firsts(names), ticks::sealed(model)];
    queries.extend([labels::rules(model), labels::stated(names), ticks, due]);
    queries.extend(labels::queries(names, model));
    queries.push(revised(names, model));
    // A batch job writes revisions of its own labels, in which those of the joiner have no status.
    let statuses: Vec<String> = model
        .streaming()
        .map(|label| format!("t.{} IS NOT NULL", names.column(&format!("label_{}_status", label.name))))
        .collect();
    let is_own = if statuses.is_empty() { "FALSE".to_owned() } else { statuses.join(" OR ") };
    let columns = model.revisions.iter().map(|(name, ty)| {
        let right = match (name.as_str(), part(model, name)) {
            ("as_of", _) => format!("CAST(s.tick_us AS {})", names.text_type()),
            // Those of a batch job are that job's.
            (_, Some((_, label))) if !model.streaming().any(|streaming| streaming.name == label) => {
                format!("CAST(NULL AS {})", names.text_type())
            }
            (_, Some((part, label))) => labels::told(names, part, label, ty),
            (_, None) => names.told(&format!("p.{}", names.column(name)), ty),
        };
        Column { name: name.clone(), right, found: names.told(&format!("t.{}", names.column(name)), ty) }
    });
    let sides = Sides {
        table: "revisions",
        columns: columns.collect(),
        right: "revised s JOIN firsts p ON p.prediction_id = s.prediction_id WHERE s.is_changed".to_owned(),
        found: format!(
            "{} t WHERE {} <= {through_us} AND ({is_own})",
            names.table("label_revisions"),
            names.micros("t.as_of")
        ),
        queries,
        key: &["as_of"],
    };
    compare::text(names, sides)
}

/// The states, and whether a value or a status is another than at the tick before.
fn revised(names: &Names, model: &Model) -> String {
    let over = "OVER (PARTITION BY s.prediction_id ORDER BY s.tick_us)";
    let differ = model.streaming().flat_map(|label| {
        let value = names.told(&format!("s.value_of_{}", label.name), &arrow_of(&label.ty));
        let status = format!("s.status_of_{}", label.name);
        [value, status].map(|text| format!("{text} IS DISTINCT FROM lag({text}) {over}"))
    });
    let differ: Vec<String> = differ.collect();
    let differ = if differ.is_empty() { "FALSE".to_owned() } else { differ.join("\n      OR ") };
    format!(
        "revised AS (
  SELECT s.*, row_number() {over} > 1 AND ({differ}) AS is_changed
  FROM states s)"
    )
}
