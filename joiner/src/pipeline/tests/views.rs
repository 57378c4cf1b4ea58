//! The views as SQL: what they say of the tables of a random log.

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta};
use flywheel_schemas::contract::{Contract, LabelOwner, Scalar};
use serde_json::{Value, json};

use super::audit::text;
use super::model::Log;
use super::rig::{MINUTE, Rig, START};
use crate::commands::sql::{Options, View};
use crate::label::tests::naive;
use crate::label::{self, Place};

/// Between the ticks of most logs.
const AS_OF: i64 = START + 130 * MINUTE;

/// Those of all contracts.
const LABELS: [&str; 17] = [
    "seen", "won", "kept", "total", "last", "times", "later", "top", "least", "most", "price", "dear", "few", "word",
    "bits", "day", "since",
];

/// The statements whose answers [`check`] takes.
pub async fn statements(rig: &Rig) -> Vec<String> {
    let at = DateTime::from_timestamp_millis(AS_OF);
    let of = async |view, options: &Options| text(rig, "main", view, options).await.unwrap();
    let none = Options::default();
    let current = of(View::TrainingCurrent, &none).await;
    let as_of = of(View::TrainingAsOf, &Options { as_of: at, ..none.clone() }).await;
    let sample = async |rate| {
        let condition = Some("label_won = FALSE".to_owned());
        of(View::TrainingSampled, &Options { rate: Some(rate), condition, ..none.clone() }).await
    };
    let labels = labels(rig).await;
    let mut statements = vec![
        differences(&current, &labels, i64::MAX / 1000),
        differences(&as_of, &labels, AS_OF),
        sampled(&current, &sample(1.0).await, &sample(0.5).await, &sample(0.2).await),
        format!("SELECT prediction_id, event_id FROM ({}) v ORDER BY 1, 2", of(View::UnmatchedCurrent, &none).await),
        "SELECT prediction_id, event_id, reason FROM main.m_unmatched ORDER BY 1, 2".to_owned(),
    ];
    let live = of(View::TrainingLive, &none).await;
    let told = labels.iter().map(|name| {
        let value = match *name {
            // Unscaled, as the log has them.
            "price" => "CAST(label_price * 100 AS DECIMAL(38,0))".to_owned(),
            "dear" => "CAST(replace(CAST(label_dear AS VARCHAR), '.', '') AS DECIMAL(38,0))".to_owned(),
            "bits" => "hex(label_bits)".to_owned(),
            "since" => "epoch_us(label_since)".to_owned(),
            _ => format!("label_{name}"),
        };
        format!(
            ", CAST({value} AS VARCHAR), label_{name}_status, epoch_us(label_{name}_at), epoch_us(label_{name}_known_at)"
        )
    });
    let told: String = told.collect();
    statements.push(format!("SELECT prediction_id, contract_version{told} FROM ({live}) v WHERE as_of IS NULL"));
    statements.push("SELECT prediction_id FROM main.m_training".to_owned());
    statements.push(format!("SELECT {}", labels.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ")));
    // What is sealed is as the current view says.
    let sealed = format!("SELECT * FROM ({live}) v WHERE as_of IS NOT NULL");
    statements.push(format!("({sealed} EXCEPT ALL ({current})) UNION ALL (({current}) EXCEPT ALL {sealed})"));
    statements
}

/// The labels that the training table has.
async fn labels(rig: &Rig) -> Vec<&'static str> {
    let table = rig.shared.warehouse.load("m_training").await.unwrap().unwrap();
    let has = |name: &str| table.arrow_schema().field_with_name(&format!("label_{name}")).is_ok();
    LABELS.into_iter().filter(|name| has(name)).collect()
}

/// What differs between a view and the rule said in another way: a label at a time, the last row with a status for it.
fn differences(view: &str, labels: &[&str], as_of_ms: i64) -> String {
    let each = labels.iter().map(|name| {
        let columns = format!(
            "prediction_id, label_{name} AS v, label_{name}_status AS s, label_{name}_at AS a, label_{name}_known_at AS k"
        );
        let rows = |table: &str| format!("SELECT {columns}, as_of FROM main.{table} WHERE epoch_us(as_of) <= {as_of_ms} * 1000");
        let last = format!(
            "SELECT prediction_id, v, s, a, k FROM ({} UNION ALL {}) r
             WHERE prediction_id IN (SELECT prediction_id FROM ({}) b)
             QUALIFY row_number() OVER (PARTITION BY prediction_id ORDER BY s IS NOT NULL DESC, as_of DESC) = 1",
            rows("m_training"),
            rows("m_label_revisions"),
            rows("m_training"),
        );
        let seen = format!("SELECT {columns} FROM ({view}) view_of");
        format!("(({last}) EXCEPT ALL ({seen})) UNION ALL (({seen}) EXCEPT ALL ({last}))")
    });
    each.collect::<Vec<_>>().join(" UNION ALL ")
}

/// How many rows are wrong of those that a sample keeps: at rate 1 all, at 0.5 and 0.2 those that the condition does not hold for,
/// and of the others some, with their weight; what is in at a rate is in at a greater one.
fn sampled(current: &str, all: &str, half: &str, fifth: &str) -> String {
    format!(
        "WITH c AS (SELECT prediction_id, coalesce(label_won = FALSE, FALSE) AS holds, sample_weight AS w FROM ({current}) v),
         h AS (SELECT prediction_id, sample_weight AS w FROM ({half}) v), f AS (SELECT prediction_id, sample_weight AS w FROM ({fifth}) v)
         SELECT count(*) FILTER (a.prediction_id IS NULL), count(*) FILTER (f.prediction_id IS NOT NULL AND h.prediction_id IS NULL),
           count(*) FILTER (NOT holds AND (h.prediction_id IS NULL OR f.prediction_id IS NULL)),
           count(*) FILTER (holds AND h.w IS DISTINCT FROM coalesce(c.w, 1) * 2 AND h.prediction_id IS NOT NULL),
           count(*) FILTER (NOT holds AND h.w IS DISTINCT FROM c.w)
         FROM c LEFT JOIN ({all}) a USING (prediction_id) LEFT JOIN h USING (prediction_id) LEFT JOIN f USING (prediction_id)"
    )
}

pub fn check(log: &Log, case: u64, answers: &[Vec<Vec<Value>>]) {
    let [current, as_of, sampled, placeless, unmatched, live, sealed, labels, as_current] = answers else {
        panic!("{} answers", answers.len())
    };
    assert_eq!((json!(current), json!(as_of)), (json!([]), json!([])), "case {case}");
    assert_eq!(json!(sampled), json!([[0, 0, 0, 0, 0]]), "case {case}");
    assert_eq!(json!(as_current), json!([]), "case {case}");
    let remain: Vec<_> = unmatched.iter().filter(|row| !is_matched(log, row)).map(|row| json!(row[..2])).collect();
    assert_eq!(json!(placeless), json!(remain), "case {case}");

    let sealed: BTreeSet<&str> = sealed.iter().map(|row| row[0].as_str().unwrap()).collect();
    let labels: Vec<&str> = labels[0].iter().map(|name| name.as_str().unwrap()).collect();
    let mut expected = unsealed(log, &sealed, &labels);
    let mut found: Vec<String> = live.iter().map(|row| json!(row).to_string()).collect();
    expected.sort();
    found.sort();
    assert_eq!(found, expected, "case {case}");
}

/// Whether a statement without a place has one by what has landed since.
fn is_matched(log: &Log, row: &[Value]) -> bool {
    let text = |cell: &Value| cell.as_str().unwrap().to_owned();
    let (id, event_id, reason) = (text(&row[0]), text(&row[1]), text(&row[2]));
    let of = || log.statements.iter().filter(|(about, statement)| *about == id && statement.event_id == event_id);
    let (_, statement) = of().min_by_key(|(_, s)| (s.ingest_time_ms, s.partition, s.offset)).unwrap();
    let Some(first) = first(log, &id) else { return false };
    let contract = &log.contracts[&first.version];
    let found =
        label::place(contract, first.event_ms, statement) == Place::Found || label::is_of_batch(contract, statement);
    found && ["no_prediction", "sampled_out"].contains(&reason.as_str())
}

pub fn first<'l>(log: &'l Log, id: &str) -> Option<&'l super::model::Copy> {
    log.predictions.iter().filter(|copy| copy.id == id).min_by_key(|copy| (copy.ingest_ms, copy.offset))
}

/// The live rows of predictions without a base row, as DuckDB tells them.
fn unsealed(log: &Log, sealed: &BTreeSet<&str>, labels: &[&str]) -> Vec<String> {
    let tick =
        log.times.values().map(|[_, outcomes]| outcomes.last().copied().unwrap_or(i64::MIN / 2)).min().unwrap() + 1;
    let ids: BTreeSet<&str> = log.predictions.iter().map(|copy| copy.id.as_str()).collect();
    let row_of = |id: &&str| {
        let copy = first(log, id).unwrap();
        row(log, copy, &log.contracts[&copy.version], tick, labels)
    };
    ids.iter().filter(|id| !sealed.contains(*id)).map(row_of).collect()
}

/// Id, version and labels of a prediction by a contract, as known at a tick and as DuckDB tells them.
pub fn row(log: &Log, copy: &super::model::Copy, contract: &Contract, tick: i64, labels: &[&str]) -> String {
    let statements = log.about(&copy.id);
    let prediction = label::Prediction { event_time_ms: copy.event_ms, exposure: copy.exposure };
    let states = naive::evaluate(contract, &prediction, tick, &statements);
    let mut cells = vec![json!(copy.id), json!(copy.version)];
    for name in labels {
        match contract.labels.iter().position(|label| label.name == *name) {
            Some(place) => {
                let state = &states[place];
                assert!(contract.labels[place].owner == LabelOwner::Streaming || state.value.is_none());
                let known_us = state.known_at_ms.map(|ms| ms * 1000);
                cells.extend([json!(state.value.as_ref().map(told)), json!(state.status.name())]);
                cells.extend([json!(state.at_us), json!(known_us)]);
            }
            None => cells.extend([Value::Null, Value::Null, Value::Null, Value::Null]),
        }
    }
    json!(cells).to_string()
}

/// A value as DuckDB casts it to text.
fn told(value: &Scalar) -> String {
    match value {
        Scalar::Boolean(value) => value.to_string(),
        Scalar::Int(value) => value.to_string(),
        Scalar::Long(value) => value.to_string(),
        Scalar::Float(value) => format!("{value:?}").to_lowercase(),
        Scalar::Double(value) => format!("{value:?}").to_lowercase(),
        Scalar::Decimal(value) => value.to_string(),
        Scalar::String(value) | Scalar::Uuid(value) => value.clone(),
        Scalar::Bytes(value) => value.iter().map(|byte| format!("{byte:02X}")).collect(),
        Scalar::Date(days) => (DateTime::UNIX_EPOCH.date_naive() + TimeDelta::days(i64::from(*days))).to_string(),
        Scalar::Timestamp(micros) => micros.to_string(),
    }
}
