//! Every first copy of a statement whose time is over, with the first reason that holds: [`crate::revise`] says which.
//!
//! Whether an id was sampled out is a hash that this text does not compute: where a contract samples by the id alone,
//! `sampled_out` and `no_prediction` are taken for one reason.

use flywheel_schemas::contract::Contract;

use super::super::labels::{self, finds_place, of_batch, speaks_of_any, streaming};
use super::super::model::Model;
use super::super::{Names, ticks};
use super::compare::{self, Column, Sides};

/// A UUIDv7 as it stands everywhere: hyphenated.
const MINTED: &str = "^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$";

pub(super) fn text(names: &Names, model: &Model, through_us: i64) -> String {
    let oldest = model.contracts.first().map_or(0, |contract| contract.version);
    let stated_under = format!("coalesce(s.contract_version, {oldest})");
    let by_stated =
        |says: &dyn Fn(&Contract) -> String| model.by_version(&stated_under, |contract| Some(says(contract)));
    let event_us = if model.has_minted_ids() {
        let digits = "(substr(s.prediction_id, 1, 8) || substr(s.prediction_id, 10, 4))";
        format!("CASE WHEN {} THEN {} * 1000 END", names.matches("s.prediction_id", MINTED), names.hexadecimal(digits))
    } else {
        "(s.t_us - mod(mod(s.t_us, 1000) + 1000, 1000))".to_owned()
    };
    let longest = by_stated(&|contract| (contract.longest_ms() * 1000).to_string());
    let over = format!("greatest(s.about_us + {longest}, s.ingest_us + {} + 1000)", model.drain_us);
    let timed = format!(
        "timed AS (
  SELECT s.*, coalesce(b.open_us, s.over_us) AS as_of_us FROM (
    SELECT s.*, {} AS over_us FROM (SELECT s.*, {event_us} AS about_us FROM stated s) s
    WHERE s.about_us IS NOT NULL) s
  LEFT JOIN bars b ON b.kafka_partition = s.kafka_partition AND s.over_us BETWEEN b.first_us AND b.last_us)",
        ticks::tick_from(model, &over)
    );
    let served =
        |says: &dyn Fn(&Contract) -> String| model.by_version("p.contract_version", |contract| Some(says(contract)));
    let none = by_stated(&|contract| format!("'{}'", if samples_by_id(contract) { EITHER } else { "no_prediction" }));
    let judged = format!(
        "judged AS (
  SELECT s.*, CASE WHEN {} THEN CAST(NULL AS {}) WHEN p.prediction_id IS NULL THEN {none} WHEN {} THEN NULL
    WHEN NOT ({}) THEN 'unknown_label' WHEN s.ingest_us >= p.flywheel_final_us THEN 'too_late'
    WHEN NOT ({}) THEN 'outside_window' WHEN s.landed_number > {} THEN 'over_limit' END AS reason
  FROM timed s LEFT JOIN sealed p ON p.prediction_id = s.prediction_id AND p.flywheel_ingest_us < s.as_of_us
  WHERE s.as_of_us <= {through_us})",
        by_stated(&|contract| speaks_of_any(names, &of_batch(contract))),
        names.text_type(),
        served(&|contract| speaks_of_any(names, &of_batch(contract))),
        served(&|contract| speaks_of_any(names, &streaming(contract))),
        served(&|contract| finds_place(names, &streaming(contract), "p.flywheel_event_us")),
        model.outcomes_max,
    );
    let queries = vec![
        ticks::bars(names, model),
        ticks::firsts(names),
        ticks::sealed(model),
        labels::stated(names),
        timed,
        judged,
    ];
    let is_either = by_stated(&|contract| if samples_by_id(contract) { "TRUE" } else { "FALSE" }.to_owned());
    let columns = model.unmatched.iter().map(|(name, ty)| {
        let column = names.told(&format!("s.{}", names.column(name)), ty);
        let (right, found) = match name.as_str() {
            "as_of" => (format!("CAST(s.as_of_us AS {})", names.text_type()), column),
            "reason" => {
                let either = format!("{is_either} AND s.reason IN ('no_prediction', 'sampled_out')");
                (column, format!("CASE WHEN {either} THEN '{EITHER}' ELSE s.reason END"))
            }
            _ => (column.clone(), column),
        };
        Column { name: name.clone(), right, found }
    });
    let sides = Sides {
        table: "unmatched",
        columns: columns.collect(),
        right: "judged s WHERE s.reason IS NOT NULL".to_owned(),
        found: format!("{} s WHERE {} <= {through_us}", names.table("unmatched"), names.micros("s.as_of")),
        queries,
        key: &["event_id"],
    };
    compare::text(names, sides)
}

/// What is said of a statement without a prediction where both reasons may hold.
const EITHER: &str = "no_prediction or sampled_out";

/// Whether the contract leaves predictions out by their id alone.
fn samples_by_id(contract: &Contract) -> bool {
    let sampling = &contract.sampling;
    sampling.rate < 1.0 && sampling.key == "prediction_id" && sampling.keep.is_empty()
}
