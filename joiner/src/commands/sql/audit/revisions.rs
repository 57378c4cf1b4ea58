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
    let none =
        model.contracts.iter().map(|contract| format!(" UNION ALL SELECT {}, CAST(NULL AS BIGINT)", contract.version));
    let moments = format!(
        "moments AS (
  SELECT prediction_id, ingest_us + 1000 AS moment_us FROM stated
  UNION ALL
  SELECT p.prediction_id, p.flywheel_event_us + c.close_us AS moment_us
  FROM firsts p JOIN (SELECT contract_version, close_us FROM rules{}) c ON c.contract_version = p.contract_version)",
        none.collect::<String>(),
    );
    let due = format!(
        "due AS (
  SELECT DISTINCT prediction_id, tick_us, event_us, exposure, contract_version FROM (
    SELECT p.prediction_id, p.flywheel_event_us AS event_us, p.exposure, p.contract_version,
      p.flywheel_as_of_us AS as_of_us, p.flywheel_final_us AS final_us,
      CASE WHEN p.flywheel_moment_us IS NULL THEN p.flywheel_as_of_us ELSE coalesce(b.open_us, p.flywheel_moment_us) END AS tick_us
    FROM (
      SELECT p.*, {} AS flywheel_moment_us FROM sealed p JOIN moments m ON m.prediction_id = p.prediction_id) p
    LEFT JOIN bars b ON b.kafka_partition = p.kafka_partition AND p.flywheel_moment_us BETWEEN b.first_us AND b.last_us) t
  WHERE tick_us <= {through_us} AND (tick_us = as_of_us OR tick_us > as_of_us AND tick_us <= final_us))",
        ticks::tick_from(model, "m.moment_us"),
    );
    let mut queries = vec![ticks::bars(names, model), ticks::firsts(names), ticks::sealed(model)];
    queries.extend([labels::rules(model), labels::stated(names), moments, due]);
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
        right: "revised r JOIN states s ON s.prediction_id = r.prediction_id AND s.tick_us = r.tick_us
  JOIN firsts p ON p.prediction_id = s.prediction_id"
            .to_owned(),
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

/// The ticks at which a value or a status is another than at the tick before.
fn revised(names: &Names, model: &Model) -> String {
    let texts = model.streaming().flat_map(|label| {
        let value = names.told(&format!("s.value_of_{}", label.name), &arrow_of(&label.ty));
        [value, format!("s.status_of_{}", label.name)]
    });
    let told = names.list(&texts.collect::<Vec<_>>());
    let over = "OVER (PARTITION BY s.prediction_id ORDER BY s.tick_us)";
    // Nothing but the ticks, to which the states are joined once more: where a condition on all of the labels stands below the
    // columns of a row, Spark infers as many other conditions as these have subsets.
    format!(
        "revised AS (
  SELECT prediction_id, tick_us FROM (
    SELECT s.prediction_id, s.tick_us, row_number() {over} AS turn, s.told, lag(s.told) {over} AS told_before
    FROM (SELECT s.prediction_id, s.tick_us, {told} AS told FROM states s) s) s
  WHERE turn > 1 AND told IS DISTINCT FROM told_before)"
    )
}
