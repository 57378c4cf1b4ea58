//! The rule of [`crate::label`] as SQL: the state of every label of predictions at a tick each.
//!
//! The queries here stand behind one named `due`, which holds (`prediction_id`, `tick_us`, `event_us`, `exposure`,
//! `contract_version`), and behind [`rules`] and [`stated`]; a prediction may be due at several ticks. They end with `states`, a row for each row of `due`: its
//! `prediction_id` and `tick_us`, and of each label ℓ of any contract `value_of_ℓ`, `status_of_ℓ`, `at_of_ℓ`, `known_of_ℓ`
//! (microseconds) and `overflow_of_ℓ` (null for no).
//!
//! | query | holds | step of the rule |
//! |---|---|---|
//! | `rules` | window and close of every streaming label, by contract version | |
//! | `stated` | the first copy of every statement | 1 |
//! | `said` | the rows of `due` by label with all that is said of it by then, and how each stands among those of its fact | 2 |
//! | `live` | which of these are live facts; `place` 1 is the one that decides where one does | 3, 4 |
//! | `facts` | the aggregates, also where there is no fact | 5 |
//! | `states` | the states | |
//!
//! `due` is read once, since engines that compute a named query as often as it is named would multiply what stands before it.
//!
//! Two things differ from the rule at the edges. A NaN of negative sign is ordered like every other, as the greatest. A sum of
//! a decimal of more than 36 digits that leaves 38 digits is the engine's error, not an overflow.

use arrow::datatypes::DataType;
use flywheel_schemas::contract::{Aggregate, Contract, Label};
use flywheel_schemas::types::Type;

use super::Names;
use super::model::Model;
use crate::label::{SERVED, SKEW_US};

/// The queries that follow `due`, `rules` and `stated`.
pub(super) fn queries(names: &Names, model: &Model) -> Vec<String> {
    vec![said(names, model), live(names, model), facts(names, model), states(names, model)]
}

pub(super) fn rules(model: &Model) -> String {
    let rules = model.contracts.iter().flat_map(|contract| {
        let labels = contract.labels.iter().filter(|label| label.is_streaming());
        labels.map(|label| {
            (contract.version, label.name.clone(), label.window_ms * 1000, contract.close_ms(label) * 1000)
        })
    });
    let rows: Vec<String> = rules
        .map(|(version, name, window_us, close_us)| {
            format!(
                "SELECT {version} AS contract_version, '{name}' AS about, CAST({window_us} AS BIGINT) AS window_us, \
                 CAST({close_us} AS BIGINT) AS close_us"
            )
        })
        .collect();
    let rows = if rows.is_empty() {
        "SELECT 0 AS contract_version, '' AS about, CAST(0 AS BIGINT) AS window_us, CAST(0 AS BIGINT) AS close_us"
            .to_owned()
    } else {
        rows.join("\n  UNION ALL ")
    };
    format!("rules AS (\n  {rows})")
}

/// The first copy of every statement, with what it leaves out put in. Behind the columns of the table: `fact` (the outcome
/// id), `turn` (the revision), `verb` (the op), `op_us`, `event_us`, `ingest_us` and `t_us`.
pub(super) fn stated(names: &Names) -> String {
    format!(
        "stated AS (
  SELECT c.*, least(c.event_us, c.ingest_us) AS t_us FROM (
    SELECT o.*, {},
      row_number() OVER (
        PARTITION BY o.prediction_id, o.event_id ORDER BY o.ingest_time, o.kafka_partition, o.kafka_offset) AS copy_number,
      row_number() OVER (
        PARTITION BY o.prediction_id ORDER BY o.ingest_time, o.kafka_partition, o.kafka_offset) AS landed_number
    FROM {} o) c
  WHERE c.copy_number = 1)",
        stated_columns(names),
        names.table("outcomes"),
    )
}

/// What the rule asks of a statement `o`, in the words of [`stated`].
pub(super) fn stated_columns(names: &Names) -> String {
    format!(
        "coalesce(o.outcome_id, '') AS fact, coalesce(o.revision, 0) AS turn, coalesce(o.op, 'assert') AS verb,
      {} AS op_us, {} AS event_us, {} AS ingest_us",
        names.micros("coalesce(o.op_time, o.ingest_time)"),
        names.micros("o.event_time"),
        names.micros("o.ingest_time"),
    )
}

/// Whether the statement `s` speaks of the label that `about` names, as the columns of `labels` show.
fn speaks<'a>(names: &Names, labels: impl Iterator<Item = &'a Label>) -> String {
    let cases: String = labels
        .map(|label| format!(" WHEN '{}' THEN s.{} IS NOT NULL", label.name, names.column(&column(label))))
        .collect();
    let asserts = if cases.is_empty() { "FALSE".to_owned() } else { format!("CASE r.about{cases} ELSE FALSE END") };
    format!(
        "CASE WHEN s.verb = 'retract' THEN {} OR {} ELSE {asserts} END",
        names.is_empty("s.labels"),
        names.contains("s.labels", "r.about")
    )
}

/// Whether the statement `s` speaks of one of these labels, as an expression without `about`.
pub(super) fn speaks_of_any(names: &Names, labels: &[&Label]) -> String {
    if labels.is_empty() {
        return "FALSE".to_owned();
    }
    let asserts: Vec<String> =
        labels.iter().map(|label| format!("s.{} IS NOT NULL", names.column(&column(label)))).collect();
    format!("CASE WHEN s.verb = 'retract' THEN {} ELSE {} END", takes_back(names, labels), asserts.join(" OR "))
}

/// Whether the statement `s` finds a place in one of these labels of a prediction whose event time is `event_us`: by the rule of
/// [`crate::label::place`].
pub(super) fn finds_place(names: &Names, labels: &[&Label], event_us: &str) -> String {
    if labels.is_empty() {
        return "FALSE".to_owned();
    }
    let asserts: Vec<String> = labels
        .iter()
        .map(|label| {
            let column = names.column(&column(label));
            let window_us = label.window_ms * 1000;
            format!(
                "(s.{column} IS NOT NULL AND s.t_us >= {event_us} - {SKEW_US} AND s.t_us < {event_us} + {window_us})"
            )
        })
        .collect();
    format!("CASE WHEN s.verb = 'retract' THEN {} ELSE {} END", takes_back(names, labels), asserts.join(" OR "))
}

fn takes_back(names: &Names, labels: &[&Label]) -> String {
    let named = labels.iter().map(|label| names.contains("s.labels", &format!("'{}'", label.name)));
    let any: Vec<String> = std::iter::once(names.is_empty("s.labels")).chain(named).collect();
    any.join(" OR ")
}

pub(super) fn streaming(contract: &Contract) -> Vec<&Label> {
    contract.labels.iter().filter(|label| label.is_streaming()).collect()
}

pub(super) fn of_batch(contract: &Contract) -> Vec<&Label> {
    contract.labels.iter().filter(|label| !label.is_streaming()).collect()
}

/// The part of a label's state (`value`, `status`, `at`, `known`) that a column of a table holds, and which label's; none for a column
/// of another kind.
pub(super) fn part<'m>(model: &'m Model, column: &str) -> Option<(&'static str, &'m str)> {
    const PARTS: [(&str, &str); 4] = [("", "value"), ("_status", "status"), ("_at", "at"), ("_known_at", "known")];
    let names = model.labels().into_keys();
    let mut parts = names.flat_map(|name| PARTS.map(|(suffix, part)| (format!("label_{name}{suffix}"), part, name)));
    parts.find(|(full, ..)| full == column).map(|(_, part, name)| (part, name))
}

/// A part of a label's state `s` as the text that the table's column of the type `ty` would give.
pub(super) fn told(names: &Names, part: &str, label: &str, ty: &DataType) -> String {
    match part {
        "at" | "known" => format!("CAST(s.{part}_of_{label} AS {})", names.text_type()),
        _ => names.told(&format!("s.{part}_of_{label}"), ty),
    }
}

/// The labels in the order of their contracts, which is that of the flags of a row.
pub(super) fn in_order(model: &Model) -> impl Iterator<Item = &Label> {
    let labels = model.contracts.iter().rev().flat_map(|contract| &contract.labels);
    let mut seen = std::collections::BTreeSet::new();
    labels.filter(move |label| seen.insert(label.name.as_str()))
}

pub(super) fn may_overflow(label: &Label) -> bool {
    label.is_streaming() && overflow(label).is_some()
}

/// The column of a label's value.
pub(super) fn column(label: &Label) -> String {
    format!("label_{}", label.name)
}

fn said(names: &Names, model: &Model) -> String {
    let values: String = model.streaming().map(|label| format!(", s.{}", names.column(&column(label)))).collect();
    format!(
        "said AS (
  SELECT d.prediction_id, d.tick_us, d.event_us, d.exposure, d.contract_version, r.about, s.verb, s.fact, s.t_us,
    s.ingest_us{values},
    CASE WHEN s.t_us >= d.event_us - {SKEW_US} AND s.t_us < d.event_us + r.window_us THEN 1 ELSE 0 END AS in_window,
    row_number() OVER (
      PARTITION BY d.prediction_id, d.tick_us, r.about, s.fact ORDER BY s.turn DESC, s.op_us DESC, s.event_id DESC) AS standing
  FROM due d LEFT JOIN rules r ON r.contract_version = d.contract_version
  LEFT JOIN stated s ON s.prediction_id = d.prediction_id AND s.ingest_us < d.tick_us AND s.landed_number <= {}
    AND {})",
        model.outcomes_max,
        speaks(names, model.streaming())
    )
}

fn live(names: &Names, model: &Model) -> String {
    let values: String = model.streaming().map(|label| format!(", {}", names.column(&column(label)))).collect();
    let of = |aggregates: &[Aggregate]| -> Vec<&Label> {
        model.streaming().filter(|label| aggregates.contains(&label.aggregate)).collect()
    };
    let mut order: Vec<String> = Vec::new();
    // The first true one of `any`, the first false one of `all`.
    for (aggregate, first, second) in [(Aggregate::Any, 0, 1), (Aggregate::All, 1, 0)] {
        for label in of(&[aggregate]) {
            let column = names.column(&column(label));
            order.push(format!(
                "CASE WHEN about = '{}' THEN CASE WHEN {column} THEN {first} ELSE {second} END ELSE 0 END",
                label.name
            ));
        }
    }
    for label in of(&[Aggregate::Min, Aggregate::Max]) {
        let column = names.column(&column(label));
        let direction = if label.aggregate == Aggregate::Max { " DESC" } else { "" };
        order.push(format!("CASE WHEN about = '{}' THEN {column} END{direction}", label.name));
        if matches!(label.ty, Type::Float | Type::Double) {
            // -0 before +0, which the engines hold for equal.
            let text = format!("CAST({column} AS {})", names.text_type());
            order.push(format!(
                "CASE WHEN about = '{}' AND {column} = 0 AND {text} LIKE '-%' THEN 0 ELSE 1 END{direction}",
                label.name
            ));
        }
    }
    let last: Vec<String> = of(&[Aggregate::Last]).iter().map(|label| format!("'{}'", label.name)).collect();
    if last.is_empty() {
        order.extend(["t_us".to_owned(), "fact".to_owned()]);
    } else {
        let is_last = format!("about IN ({})", last.join(", "));
        order.push(format!("CASE WHEN {is_last} THEN -t_us ELSE t_us END"));
        order.push(format!("CASE WHEN {is_last} THEN '' ELSE fact END"));
        order.push(format!("CASE WHEN {is_last} THEN fact ELSE '' END DESC"));
    }
    format!(
        "live AS (
  SELECT prediction_id, tick_us, event_us, exposure, contract_version, about, t_us, ingest_us{values}, is_live,
    row_number() OVER (PARTITION BY prediction_id, tick_us, about, is_live ORDER BY {}) AS place
  FROM (
    SELECT *, CASE WHEN standing = 1 AND verb <> 'retract' AND in_window = 1 THEN 1 ELSE 0 END AS is_live FROM said) said)",
        order.join(",\n      ")
    )
}

fn facts(names: &Names, model: &Model) -> String {
    let mut columns = String::new();
    for label in model.streaming() {
        let (name, value) = (&label.name, names.column(&column(label)));
        let is = format!("is_live = 1 AND about = '{name}'");
        let all = |what: &str| format!("max(CASE WHEN {is} THEN {what} END)");
        let chosen = |what: &str| format!("max(CASE WHEN {is} AND place = 1 THEN {what} END)");
        let count = format!("count(CASE WHEN {is} THEN 1 END)");
        let value_of = match (label.aggregate, &label.ty) {
            (Aggregate::Count, _) => format!("CAST({count} AS DECIMAL(38,0))"),
            (Aggregate::Sum, ty) => {
                let scale = if let Type::Decimal { scale, .. } = ty { *scale } else { 0 };
                format!("sum(CASE WHEN {is} THEN CAST({value} AS DECIMAL(38,{scale})) END)")
            }
            _ => chosen(&value),
        };
        // One true fact decides `any`, one false fact `all`; without it all facts do.
        let decided = |what: &str| match label.aggregate {
            Aggregate::Any => format!("CASE WHEN {} THEN {} ELSE {} END", chosen(&value), chosen(what), all(what)),
            Aggregate::All => format!("CASE WHEN {} THEN {} ELSE {} END", chosen(&value), all(what), chosen(what)),
            Aggregate::Count | Aggregate::Sum => all(what),
            Aggregate::Min | Aggregate::Max | Aggregate::First | Aggregate::Last => chosen(what),
        };
        columns.push_str(&format!(
            ",\n    {count} AS facts_of_{name}, {value_of} AS value_of_{name},\n    {} AS at_of_{name}, {} AS known_of_{name}",
            decided("t_us"),
            decided("ingest_us")
        ));
    }
    format!(
        "facts AS (
  SELECT prediction_id, tick_us, event_us, exposure, contract_version{columns}
  FROM live GROUP BY prediction_id, tick_us, event_us, exposure, contract_version)"
    )
}

fn states(names: &Names, model: &Model) -> String {
    let mut columns = String::new();
    for (name, label) in model.labels() {
        let say = |says: &dyn Fn(&Contract, &Label) -> String| {
            model.by_version("f.contract_version", |contract| Some(says(contract, contract.label(name)?)))
        };
        let status = say(&|contract, label| status(contract, label));
        let (value, at, known, overflow) = if model.streaming().any(|streaming| streaming.name == name) {
            (
                say(&|contract, label| value(names, contract, label)),
                format!("f.at_of_{name}"),
                format!("f.known_of_{name}"),
                overflow(label)
                    .map_or("CAST(NULL AS BOOLEAN)".to_owned(), |text| format!("CASE WHEN {text} THEN TRUE END")),
            )
        } else {
            let ty = names.type_name(&label.ty);
            let none = "CAST(NULL AS BIGINT)".to_owned();
            (format!("CAST(NULL AS {ty})"), none.clone(), none, "CAST(NULL AS BOOLEAN)".to_owned())
        };
        columns.push_str(&format!(
            ",\n    {value} AS value_of_{name},\n    {status} AS status_of_{name},\n    \
             {at} AS at_of_{name}, {known} AS known_of_{name}, {overflow} AS overflow_of_{name}"
        ));
    }
    format!(
        "states AS (
  SELECT f.prediction_id, f.tick_us{columns}
  FROM facts f)"
    )
}

/// The status of a label of a contract.
fn status(contract: &Contract, label: &Label) -> String {
    if !label.is_streaming() {
        return "'pending'".to_owned();
    }
    let (name, close_us) = (&label.name, contract.close_ms(label) * 1000);
    let without = if label.default.is_some() { "default" } else { "missing" };
    format!(
        "CASE WHEN f.tick_us < f.event_us + {close_us} THEN 'pending' WHEN f.facts_of_{name} > 0 THEN 'observed' \
         WHEN {} THEN '{without}' ELSE 'not_exposed' END",
        exposed(contract, label)
    )
}

/// The value of a label of a contract; null where it has none.
fn value(names: &Names, contract: &Contract, label: &Label) -> String {
    let (name, ty) = (&label.name, names.type_name(&label.ty));
    let observed = match overflow(label) {
        Some(overflow) => format!("CASE WHEN NOT ({overflow}) THEN CAST(f.value_of_{name} AS {ty}) END"),
        None => format!("f.value_of_{name}"),
    };
    let Some(default) = &label.default else {
        return format!("CASE WHEN f.facts_of_{name} > 0 THEN {observed} END");
    };
    let close_us = contract.close_ms(label) * 1000;
    format!(
        "CASE WHEN f.facts_of_{name} > 0 THEN {observed} WHEN f.tick_us >= f.event_us + {close_us} AND {} THEN {} END",
        exposed(contract, label),
        names.literal(default, &label.ty)
    )
}

/// Whether somebody saw what a label is about: the label that it requires is true, and the prediction was served.
fn exposed(contract: &Contract, label: &Label) -> String {
    let served = format!("coalesce(f.exposure, '{SERVED}') = '{SERVED}'");
    let Some(required) = label.requires.as_deref().and_then(|name| contract.label(name)) else { return served };
    let name = &required.name;
    // Both have closed. Validation has excluded cycles, so this ends.
    let is_true = match &required.default {
        Some(flywheel_schemas::contract::Scalar::Boolean(true)) => {
            format!("CASE WHEN f.facts_of_{name} > 0 THEN f.value_of_{name} ELSE {} END", exposed(contract, required))
        }
        _ => format!("coalesce(f.value_of_{name}, FALSE)"),
    };
    format!("{served} AND {is_true}")
}

/// Whether a total has left the range of the label's type; none for labels that are no totals.
fn overflow(label: &Label) -> Option<String> {
    if !matches!(label.aggregate, Aggregate::Count | Aggregate::Sum) {
        return None;
    }
    let (least, greatest) = match &label.ty {
        Type::Int => (i128::from(i32::MIN).to_string(), i128::from(i32::MAX).to_string()),
        Type::Long => (i128::from(i64::MIN).to_string(), i128::from(i64::MAX).to_string()),
        Type::Decimal { precision, scale } => {
            let digits = "9".repeat(usize::from(*precision));
            let (whole, fraction) = digits.split_at(usize::from(precision - scale));
            let number = match (whole, fraction) {
                ("", fraction) => format!("0.{fraction}"),
                (whole, "") => whole.to_owned(),
                (whole, fraction) => format!("{whole}.{fraction}"),
            };
            (format!("-{number}"), number)
        }
        _ => return None,
    };
    let scale = if let Type::Decimal { scale, .. } = &label.ty { *scale } else { 0 };
    let name = &label.name;
    let bound = |digits: &str| format!("CAST('{digits}' AS DECIMAL(38,{scale}))");
    Some(format!("f.value_of_{name} NOT BETWEEN {} AND {}", bound(&least), bound(&greatest)))
}
