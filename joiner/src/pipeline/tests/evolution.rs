//! A contract that gets a label while predictions are served under the one before, and what it says of those.

use std::collections::BTreeSet;

use chrono::DateTime;
use flywheel_schemas::contract::{Contract, Scalar};
use flywheel_schemas::{id, partition};

use super::duckdb::{ask, skipped};
use super::random::{Case, case};
use super::rig::{CONTRACT, MINUTE, Rig, START, prediction};
use super::*;
use crate::commands::sql::{self, Engine, Model, Names, Options};

/// A label and a feature more.
fn second() -> String {
    let label = "labels:\n  clicks: {type: long, window: 1h, lateness: 20m, aggregate: count, default: 0}\n";
    CONTRACT
        .replace("version: 1", "version: 2")
        .replace("labels:\n", label)
        .replace("{x: {", "{y: {type: string}, x: {")
}

/// A prediction by the second contract.
async fn predict(rig: &Rig, n: u8, event_ms: i64) -> String {
    let id = id::from_parts(event_ms, [n; 10]).to_string();
    let mut values = prediction(&id, event_ms, f64::from(n));
    values[2].1 = Scalar::Int(2);
    values.push(("features.y", Scalar::String("new".to_owned())));
    let home = partition::of(id.as_bytes(), rig.partitions);
    let value = rig.encode(Kind::Predictions, 2, &values);
    rig.append(Kind::Predictions, home, event_ms, Some(&value), &[]).await;
    id
}

/// A statement by the second contract.
async fn state(rig: &Rig, event_id: &str, id: &str, time_ms: i64, labels: &[(&str, Scalar)]) {
    let text = |text: &str| Scalar::String(text.to_owned());
    let mut values = vec![
        ("prediction_id", text(id)),
        ("event_id", text(event_id)),
        ("outcome_id", text(event_id)),
        ("revision", Scalar::Long(0)),
        ("op", text("assert")),
        ("op_time", Scalar::Timestamp(time_ms * 1000)),
        ("event_time", Scalar::Timestamp(time_ms * 1000)),
        ("contract_version", Scalar::Int(2)),
    ];
    values.extend(labels.iter().cloned());
    let home = partition::of(id.as_bytes(), rig.partitions);
    let value = rig.encode(Kind::Outcomes, 2, &values);
    rig.append(Kind::Outcomes, home, time_ms, Some(&value), &[]).await;
}

#[tokio::test]
async fn a_label_that_is_new_on_a_live_model_needs_no_restart() {
    let mut rig = Rig::new(2).await;
    rig.tick(START).await;
    let t = START + MINUTE;
    let before = rig.predict(1, t, t, 1.0).await;
    let mut pipeline = rig.pipeline("a").await;
    rig.run(&mut pipeline).await;
    let has = |table: &crate::table::Table, name: &str| table.arrow_schema().field_with_name(name).is_ok();
    assert!(!has(&pipeline.training, "label_clicks") && !has(&pipeline.landings.outcomes.table, "label_clicks"));

    rig.register(&second()).await;
    // Pods of both versions, in turns.
    let t = START + 3 * MINUTE;
    let new = predict(&rig, 2, t).await;
    let old = rig.predict(3, t, t, 3.0).await;
    let later = predict(&rig, 4, t).await;
    let (at, won) = (START + 4 * MINUTE, ("label.won", Scalar::Boolean(true)));
    let clicks = ("label.clicks", Scalar::Long(1));
    state(&rig, "e1", &new, at, std::slice::from_ref(&clicks)).await;
    state(&rig, "e2", &new, at, &[clicks.clone(), won.clone()]).await;
    // What an old one does not have is left out, what it has counts; and the other way round.
    state(&rig, "e3", &old, at, &[clicks.clone(), won.clone()]).await;
    state(&rig, "e4", &before, at, &[clicks]).await;
    rig.state("e5", &later, at, &[won]).await;
    rig.ticks(START + 5 * MINUTE, START + 90 * MINUTE).await;
    rig.run(&mut pipeline).await;
    rig.run(&mut pipeline).await;

    let rows = rig.rows("m_training").await;
    assert_eq!(rows.len(), 4);
    let of = |id: &str| {
        let row = rows.iter().find(|row| row["prediction_id"] == format!("String({id:?})")).unwrap();
        ["contract_version", "y", "label_won", "label_clicks", "label_clicks_status"]
            .map(|name| row.get(name).map_or("", String::as_str))
    };
    let [default, observed] = ["String(\"default\")", "String(\"observed\")"];
    let y = "String(\"new\")";
    assert_eq!(of(&new), ["Int(2)", y, "Boolean(true)", "Long(2)", observed]);
    assert_eq!(of(&later), ["Int(2)", y, "Boolean(true)", "Long(0)", default]);
    assert_eq!(of(&old), ["Int(1)", "", "Boolean(true)", "", ""]);
    assert_eq!(of(&before), ["Int(1)", "", "Boolean(false)", "", ""]);
    for table in ["m_predictions", "m_outcomes", "m_training", "m_label_revisions", "m_unmatched"] {
        let name = if table == "m_predictions" { "y" } else { "label_clicks" };
        assert!(has(&rig.shared.warehouse.load(table).await.unwrap().unwrap(), name), "{table}");
    }
    // Nothing failed, waited or was put aside, and the statement that only the new contract knows has found no place.
    assert_eq!(rig.rows("dead_letter").await.len(), 0);
    for metric in ["failures_total", "partition_waits", "fenced_total"] {
        assert_eq!(rig.metric(metric), 0.0, "{metric}");
    }
    let unmatched = rig.rows("m_unmatched").await;
    assert_eq!(unmatched.len(), 1);
    assert_eq!(unmatched[0]["event_id"], "String(\"e4\")");
    assert_eq!(unmatched[0]["reason"], "String(\"unknown_label\")");
}

async fn backfill(rig: &Rig, options: &Options) -> Result<Vec<String>, String> {
    let model = Model::read(&rig.shared.config, "m").await.map_err(|error| error.to_string())?;
    let names = Names { engine: Engine::Duckdb, namespace: "main", model: "m" };
    sql::backfill(&names, options, &model).map_err(|error| error.to_string())
}

fn labels(contract: &Contract) -> Vec<&str> {
    contract.labels.iter().map(|label| label.name.as_str()).collect()
}

/// Random logs of two contracts: what the newer one says of predictions of the older, at one instant, at one instant again and
/// at a later one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backfill_says_what_the_newer_contract_says_and_nothing_twice() {
    if skipped("a_backfill_says_what_the_newer_contract_says_and_nothing_twice") {
        return;
    }
    let (mut cases, mut rows) = (0, 0);
    let mut number = uuid::Uuid::new_v4().as_u64_pair().0 >> 1;
    // One in three has two contracts.
    while cases < 3 {
        number += 1;
        let Case { rig, log } = case(number).await;
        let Some(contract) = log.contracts.get(&2) else { continue };
        let Ok(Model { through_us: Some(through_us), .. }) = Model::read(&rig.shared.config, "m").await else {
            continue;
        };
        cases += 1;
        let at = |ms: i64| DateTime::from_timestamp_millis(ms);
        let from_ms = START + 10 * MINUTE;
        let last_ms = through_us / 1000;
        let first_ms = (START + 100 * MINUTE).min(last_ms);
        let at_first = Options { contract: Some(2), from: at(from_ms), through: at(first_ms), ..Options::default() };
        let at_last = Options { through: None, ..at_first.clone() };
        let told = labels(contract).into_iter().map(|name| {
            format!(
                ", CAST(label_{name} AS VARCHAR), label_{name}_status, epoch_us(label_{name}_at), epoch_us(label_{name}_known_at)"
            )
        });
        let table = "main.m_training_v2";
        let told: String = told.collect();
        let rows_of = format!("SELECT epoch_us(as_of), x, prediction_id, contract_version{told} FROM {table}");
        let mut statements = backfill(&rig, &at_first).await.unwrap();
        statements.push(format!("SELECT count(*) FROM {table}"));
        statements.extend(backfill(&rig, &at_first).await.unwrap());
        statements.push(format!("SELECT count(*) FROM {table}"));
        statements.extend(backfill(&rig, &at_last).await.unwrap());
        statements.push(rows_of);
        let answers = ask(&rig, &statements);
        assert_eq!(answers[2], answers[5], "case {number}: run twice");

        let ids: BTreeSet<&str> = log.predictions.iter().map(|copy| copy.id.as_str()).collect();
        let expected: BTreeSet<String> = ids
            .into_iter()
            .filter_map(|id| {
                let copy = super::views::first(&log, id).unwrap();
                let as_of = log.as_of(copy, contract).filter(|as_of| *as_of <= last_ms)?;
                let tick = if as_of <= first_ms { first_ms } else { last_ms };
                let row = super::views::row(&log, copy, contract, tick, &labels(contract));
                (copy.version == 1 && copy.event_ms >= from_ms).then(|| format!("{} 0.5 {row}", tick * 1000))
            })
            .collect();
        let found: Vec<String> =
            answers[8].iter().map(|row| format!("{} {} {}", row[0], row[1], serde_json::json!(row[2..]))).collect();
        rows += found.len();
        assert_eq!(found.len(), expected.len(), "case {number}: {found:#?} {expected:#?}");
        assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), expected, "case {number}");
    }
    println!("{rows} rows");
    assert!(rows > 0);
}

#[tokio::test]
async fn a_backfill_that_cannot_be_says_why() {
    let mut rig = Rig::new(1).await;
    let options = Options { contract: Some(2), from: DateTime::from_timestamp_millis(START), ..Options::default() };
    rig.tick(START).await;
    let mut pipeline = rig.pipeline("a").await;
    rig.run(&mut pipeline).await;
    let said = async |rig: &Rig, options: &Options| backfill(rig, options).await.unwrap_err();
    let unknown = said(&rig, &options).await;
    assert!(unknown.contains("version 2") && unknown.contains("these are: 1"), "{unknown}");
    assert!(said(&rig, &Options { contract: None, ..options.clone() }).await.contains("--contract"));
    assert!(said(&rig, &Options { from: None, ..options.clone() }).await.contains("--from"));
    let ahead = Options { through: DateTime::from_timestamp_millis(START + 5 * MINUTE), ..options.clone() };
    assert!(said(&rig, &ahead).await.contains("are complete through 2013-01-01T10:00:00+00:00 only"));
    rig.register(&second()).await;
    let lacking = said(&rig, &options).await;
    assert!(lacking.contains("m_predictions.y") && lacking.contains("m_outcomes.label_clicks"), "{lacking}");
    drop(pipeline);
    drop(rig.pipeline("a").await);
    assert_eq!(backfill(&rig, &options).await.unwrap().len(), 2);
}
