//! The first copies of predictions, the bars, and the ticks that follow from both: [`crate::bar`] and [`crate::seal`] as SQL.
//!
//! | query | holds |
//! |---|---|
//! | `bars` | by partition, stretches of ticks (`first_us` to `last_us`) that are barred without an open one between them; `open_us` is the first open one behind |
//! | `firsts` | the first copy of every prediction; its event time, ingest time and exposure as `flywheel_event_us`, `flywheel_ingest_us` |
//! | `sealed` | the same with `flywheel_as_of_us` and `flywheel_final_us` |
//!
//! Columns beside those that a contract names begin with `flywheel_`, which no contract may use.

use super::Names;
use super::model::{BEFORE_ALL_US, Model};

/// The last tick at or before `micros`.
fn tick_at(model: &Model, micros: &str) -> String {
    let grid = model.grid_us;
    format!("({micros} - mod(mod({micros}, {grid}) + {grid}, {grid}))")
}

/// The first tick at or after `micros`, open or not.
pub(super) fn tick_from(model: &Model, micros: &str) -> String {
    let grid = model.grid_us;
    format!("({micros} + mod({grid} - mod({micros}, {grid}), {grid}))")
}

/// Intervals become ticks first, and those that overlap or touch are joined: one step then leaves the bars.
pub(super) fn bars(names: &Names, model: &Model) -> String {
    let (grid, table, of) = (model.grid_us, names.shared("seal_log"), names.model);
    format!(
        "barred AS (
  SELECT kafka_partition, coalesce({} + {grid}, {BEFORE_ALL_US}) AS first_us, {} AS last_us FROM (
    SELECT kafka_partition, {} AS after_us, {} AS through_us FROM {table} WHERE model = '{of}') said),
stretches AS (
  SELECT kafka_partition, first_us, last_us,
    CASE WHEN first_us <= max(last_us) OVER (
      PARTITION BY kafka_partition ORDER BY first_us, last_us ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) + {grid}
    THEN 0 ELSE 1 END AS begins
  FROM barred WHERE first_us <= last_us),
bars AS (
  SELECT kafka_partition, min(first_us) AS first_us, max(last_us) AS last_us, max(last_us) + {grid} AS open_us FROM (
    SELECT kafka_partition, first_us, last_us, sum(begins) OVER (
      PARTITION BY kafka_partition ORDER BY first_us, last_us ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS stretch
    FROM stretches) numbered
  GROUP BY kafka_partition, stretch)",
        tick_at(model, "after_us"),
        tick_at(model, "through_us"),
        names.micros("closed_after"),
        names.micros("closed_through"),
    )
}

pub(super) fn firsts(names: &Names) -> String {
    let table = names.table("predictions");
    format!(
        "firsts AS (
  SELECT * FROM (
    SELECT p.*, {} AS flywheel_event_us, {} AS flywheel_ingest_us,
      row_number() OVER (PARTITION BY p.prediction_id ORDER BY p.ingest_time, p.kafka_offset) AS flywheel_copy
    FROM {table} p) copies
  WHERE flywheel_copy = 1)",
        names.micros("p.event_time"),
        names.micros("p.ingest_time"),
    )
}

pub(super) fn sealed(model: &Model) -> String {
    let drain = model.drain_us;
    let by = |of: &dyn Fn(&flywheel_schemas::contract::Contract) -> i64| {
        model.by_version("f.contract_version", |contract| Some((of(contract) * 1000).to_string()))
    };
    let close = by(&|contract| contract.seal_ms());
    let longest = by(&|contract| contract.longest_ms());
    let horizon = by(&|contract| contract.seal.horizon_ms);
    // Ingest times are whole milliseconds: more than the drain is a millisecond more.
    let due = format!("greatest(f.flywheel_event_us + {close}, f.flywheel_ingest_us + {drain} + 1000)");
    let settled = format!("(greatest(f.flywheel_event_us + {longest}, f.flywheel_ingest_us + {drain}) + {horizon})");
    format!(
        "sealed AS (
  SELECT t.*, coalesce(a.open_us, t.flywheel_due_us) AS flywheel_as_of_us,
    coalesce(z.open_us, t.flywheel_settled_us) AS flywheel_final_us
  FROM (
    SELECT f.*, {} AS flywheel_due_us, {} AS flywheel_settled_us FROM firsts f) t
  LEFT JOIN bars a ON a.kafka_partition = t.kafka_partition AND t.flywheel_due_us BETWEEN a.first_us AND a.last_us
  LEFT JOIN bars z ON z.kafka_partition = t.kafka_partition AND t.flywheel_settled_us BETWEEN z.first_us AND z.last_us)",
        tick_from(model, &due),
        tick_from(model, &settled),
    )
}
