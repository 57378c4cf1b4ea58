//! What others did to log and tables: each ends in an error that says what to do, or in the same rows as before.

use serde_json::{Value, json};
use sqlx::Connection as _;
use uuid::Uuid;

use super::rig::{MINUTE, Rig, Row, START, read};
use super::*;
use crate::source::Source;

const RAW: [&str; 2] = ["m_predictions", "m_outcomes"];
const MADE: [&str; 3] = ["m_training", "m_label_revisions", "m_unmatched"];

async fn database(rig: &Rig) -> sqlx::SqliteConnection {
    let url = format!("sqlite:{}", rig.dir.path().join("catalog.db").display());
    sqlx::SqliteConnection::connect(&url).await.unwrap()
}

/// Gives a table another state, as whoever has the catalog in his hands may.
async fn alter(rig: &Rig, table: &str, change: impl FnOnce(&mut Value)) {
    let mut database = database(rig).await;
    let place: String = sqlx::query_scalar("SELECT metadata_location FROM iceberg_tables WHERE table_name = ?")
        .bind(table)
        .fetch_one(&mut database)
        .await
        .unwrap();
    let path = std::path::Path::new(place.strip_prefix("file://").unwrap_or(&place));
    let mut metadata: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    change(&mut metadata);
    let version: u32 = path.file_name().unwrap().to_str().unwrap()[..5].parse().unwrap();
    let next = path.with_file_name(format!("{:05}-{}.metadata.json", version + 1, Uuid::new_v4()));
    std::fs::write(&next, serde_json::to_vec(&metadata).unwrap()).unwrap();
    sqlx::query("UPDATE iceberg_tables SET metadata_location = ? WHERE table_name = ?")
        .bind(next.to_str().unwrap())
        .bind(table)
        .execute(&mut database)
        .await
        .unwrap();
}

async fn drop_table(rig: &Rig, table: &str) {
    let statement = sqlx::query("DELETE FROM iceberg_tables WHERE table_name = ?").bind(table);
    assert_eq!(statement.execute(&mut database(rig).await).await.unwrap().rows_affected(), 1);
}

fn go_to(metadata: &mut Value, snapshot: Value) {
    metadata["refs"]["main"]["snapshot-id"] = snapshot.clone();
    metadata["current-snapshot-id"] = snapshot;
}

/// To the snapshot before the present one.
fn roll_back(metadata: &mut Value) {
    let snapshots = metadata["snapshots"].as_array().unwrap();
    let current = snapshots.iter().find(|snapshot| snapshot["snapshot-id"] == metadata["current-snapshot-id"]);
    let parent = current.unwrap()["parent-snapshot-id"].clone();
    assert!(parent.is_i64());
    go_to(metadata, parent);
}

/// To the last snapshot that was made.
fn roll_forward(metadata: &mut Value) {
    let snapshots = metadata["snapshots"].as_array().unwrap();
    let last = snapshots.iter().max_by_key(|snapshot| snapshot["sequence-number"].as_i64()).unwrap();
    let last = last["snapshot-id"].clone();
    go_to(metadata, last);
}

/// Another schema, made from the present one.
fn reshape(metadata: &mut Value, change: impl FnOnce(&mut Vec<Value>)) {
    let schemas = metadata["schemas"].as_array_mut().unwrap();
    let (id, mut schema) = (json!(schemas.len()), schemas.last().unwrap().clone());
    schema["schema-id"] = id.clone();
    change(schema["fields"].as_array_mut().unwrap());
    schemas.push(schema);
    metadata["current-schema-id"] = id;
}

fn field<'a>(fields: &'a mut [Value], name: &str) -> &'a mut Value {
    fields.iter_mut().find(|field| field["name"] == name).unwrap()
}

/// Two predictions with outcomes, landed and sealed by two commits.
async fn sealed(rig: &Rig) -> Pipeline {
    let won = [("label.won", flywheel_schemas::contract::Scalar::Boolean(true))];
    rig.tick(START).await;
    let mut pipeline = rig.pipeline("a").await;
    for n in 1..=2 {
        let t = START + 90 * MINUTE * i64::from(n - 1) + MINUTE;
        let id = rig.predict(n, t, t, f64::from(n)).await;
        rig.state("e", &id, t + MINUTE, &won).await;
        rig.ticks(t + 4 * MINUTE, t + 84 * MINUTE).await;
        // Late: a revision. And one that finds no place.
        let total = [("label.total", flywheel_schemas::contract::Scalar::Long(7))];
        rig.state_late("f", &id, t + 2 * MINUTE, t + 85 * MINUTE, &total).await;
        rig.tick(t + 89 * MINUTE).await;
        rig.state("g", &id, t + 89 * MINUTE, &total).await;
        rig.run(&mut pipeline).await;
    }
    assert_eq!(rig.rows("m_training").await.len(), 2);
    assert!(!rig.rows("m_label_revisions").await.is_empty());
    pipeline
}

/// All tables that are made from raw ones.
async fn made(rig: &Rig) -> Vec<Vec<Row>> {
    let mut all = Vec::new();
    for table in MADE {
        let mut rows = rig.rows(table).await;
        rows.sort();
        all.push(rows);
    }
    all
}

/// As `rig.run`, for what may fail.
async fn run_on(pipeline: &mut Pipeline) -> Result<(), PipelineError> {
    read(pipeline).await?;
    pipeline.commit().await?;
    pipeline.seal().await?;
    pipeline.follow().await
}

async fn refused(rig: &Rig, index: &str) -> PipelineError {
    match rig.try_pipeline(index).await {
        Err(error) => error,
        Ok(_) => panic!("it starts"),
    }
}

#[tokio::test]
async fn another_cluster_is_refused_by_name() {
    let mut rig = Rig::new(1).await;
    drop(sealed(&rig).await);
    let old = rig.shared.cluster.clone();
    rig.change_cluster().await;
    let error = refused(&rig, "a").await;
    assert!(error.to_string().contains(&old) && error.to_string().contains(&rig.shared.cluster), "{error}");
    assert!(!error.is_passing());
}

#[tokio::test]
async fn a_topic_that_was_made_anew_is_refused_whether_it_has_less_or_more() {
    let mut rig = Rig::new(1).await;
    drop(sealed(&rig).await);
    let landed = rig.rows("m_outcomes").await;
    rig.begin_anew(Kind::Outcomes, 0);
    rig.source = Source::open(&rig.shared.config.source()).await.unwrap();
    let error = refused(&rig, "a").await;
    assert!(error.to_string().contains("it ends at offset 0") && !error.is_passing(), "{error}");
    for _ in 0..100 {
        rig.append(Kind::Outcomes, 0, START + 600 * MINUTE, None, &[(wire::TICK, "")]).await;
    }
    let mut pipeline = rig.pipeline("a").await;
    let error = read(&mut pipeline).await.unwrap_err();
    assert!(error.to_string().contains("was appended after it was landed") && !error.is_passing(), "{error}");
    assert_eq!(rig.rows("m_outcomes").await, landed);
}

#[tokio::test]
async fn more_partitions_than_the_tables_were_filled_from_are_refused() {
    let mut rig = Rig::new(2).await;
    let mut pipeline = sealed(&rig).await;
    rig.add_partition();
    // By the joiner that runs, which is given the new one, as by one that starts.
    let error = pipeline.take_partitions(&[2]).await.unwrap_err();
    assert!(error.to_string().contains("it had 2 partitions") && !error.is_passing(), "{error}");
    drop(pipeline);
    rig.source = Source::open(&rig.shared.config.source()).await.unwrap();
    let error = refused(&rig, "a").await;
    assert!(error.to_string().contains("it has 3 partitions, the tables were filled from 2"), "{error}");
    assert!(!error.is_passing());
}

#[tokio::test]
async fn a_raw_table_behind_the_training_table_stops_the_model_until_it_is_brought_back() {
    for table in RAW {
        let rig = Rig::new(1).await;
        let mut pipeline = sealed(&rig).await;
        let before = (rig.rows(table).await, made(&rig).await);
        alter(&rig, table, roll_back).await;
        assert!(rig.rows(table).await.len() < before.0.len());
        rig.tick(START + 185 * MINUTE).await;
        let error = run_on(&mut pipeline).await.unwrap_err();
        assert!(matches!(&error, PipelineError::WentBack { table: found, .. } if found == table), "{error}");
        drop(pipeline);
        let error = refused(&rig, "a").await;
        assert!(matches!(&error, PipelineError::Behind { behind, .. } if behind == table), "{error}");
        assert!(error.to_string().contains("m_training") && !error.is_passing(), "{error}");

        alter(&rig, table, roll_forward).await;
        rig.run(&mut rig.pipeline("a").await).await;
        assert_eq!((rig.rows(table).await, made(&rig).await), before);
    }
}

#[tokio::test]
async fn what_a_raw_table_lacks_is_landed_again_where_what_is_made_from_it_goes_too() {
    for table in RAW {
        let rig = Rig::new(1).await;
        drop(sealed(&rig).await);
        let before = (rig.rows(table).await, made(&rig).await);
        alter(&rig, table, roll_back).await;
        for table in MADE {
            drop_table(&rig, table).await;
        }
        rig.run(&mut rig.pipeline("a").await).await;
        assert_eq!((rig.rows(table).await, made(&rig).await), before);
    }
}

#[tokio::test]
async fn what_is_made_from_raw_tables_is_made_again_where_it_was_rolled_back() {
    for table in MADE {
        let rig = Rig::new(1).await;
        let mut pipeline = sealed(&rig).await;
        let before = made(&rig).await;
        alter(&rig, table, roll_back).await;
        rig.tick(START + 185 * MINUTE).await;
        let error = run_on(&mut pipeline).await.unwrap_err();
        assert!(matches!(&error, PipelineError::WentBack { table: found, .. } if found == table), "{error}");
        drop(pipeline);
        rig.run(&mut rig.pipeline("a").await).await;
        assert_eq!(made(&rig).await, before, "{table}");
    }
}

#[tokio::test]
async fn a_table_that_is_dropped_while_a_joiner_runs_is_an_alarm_and_then_made_again_or_refused() {
    for table in [RAW.as_slice(), &MADE, &["seal_log"]].concat() {
        let rig = Rig::new(1).await;
        let mut pipeline = sealed(&rig).await;
        let before = made(&rig).await;
        drop_table(&rig, table).await;
        // A gap, so that the seal log has something to say.
        rig.tick(START + 195 * MINUTE).await;
        let error = run_on(&mut pipeline).await.unwrap_err();
        assert!(error.to_string().contains(table) && !error.is_passing(), "{error}");
        drop(pipeline);
        if MADE.contains(&table) {
            rig.run(&mut rig.pipeline("a").await).await;
            assert_eq!(made(&rig).await, before, "{table}");
            continue;
        }
        let error = refused(&rig, "a").await;
        assert!(error.to_string().contains(table) && !error.is_passing(), "{error}");
        assert!(matches!(error, PipelineError::Behind { .. } | PipelineError::BarsLost { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_column_that_was_changed_by_hand_stops_the_model_until_it_is_put_right() {
    for (table, column) in
        [("m_predictions", "x"), ("m_outcomes", "label_won"), ("m_training", "label_won"), ("m_training", "x")]
    {
        let drop_it: fn(&mut Vec<Value>, &str) = |fields, column| fields.retain(|field| field["name"] != column);
        let rename: fn(&mut Vec<Value>, &str) = |fields, column| field(fields, column)["name"] = json!("other");
        let retype: fn(&mut Vec<Value>, &str) = |fields, column| field(fields, column)["type"] = json!("string");
        for (what, change) in [("dropped", drop_it), ("renamed", rename), ("type", retype)] {
            let rig = Rig::new(1).await;
            let mut pipeline = sealed(&rig).await;
            let before = made(&rig).await;
            let mut old = Value::Null;
            alter(&rig, table, |metadata| {
                old = metadata["current-schema-id"].clone();
                reshape(metadata, |fields| change(fields, column));
            })
            .await;
            let t = START + 185 * MINUTE;
            rig.predict(3, t, t, 3.0).await;
            rig.ticks(t, t + 90 * MINUTE).await;
            let error = run_on(&mut pipeline).await.unwrap_err();
            let named = error.to_string().contains(table) && error.to_string().contains(&format!("`{column}`"));
            assert!(named && error.to_string().contains("by hand") && !error.is_passing(), "{what}: {error}");
            drop(pipeline);
            let error = refused(&rig, "a").await;
            let says = if what == "type" { "is string and should be" } else { "rename it back, or add it" };
            assert!(error.to_string().contains(says) && !error.is_passing(), "{what}: {error}");

            alter(&rig, table, |metadata| metadata["current-schema-id"] = old).await;
            rig.run(&mut rig.pipeline("a").await).await;
            let after = made(&rig).await;
            assert_eq!((after[0].len(), before[0].len()), (3, 2), "{what}");
            assert!(before[0].iter().all(|row| after[0].contains(row)), "{what}");
        }
    }
}

#[tokio::test]
async fn a_column_that_was_dropped_may_be_added_again_without_its_old_values() {
    let rig = Rig::new(1).await;
    drop(sealed(&rig).await);
    let last = |metadata: &mut Value| {
        let next = metadata["last-column-id"].as_i64().unwrap() + 1;
        metadata["last-column-id"] = json!(next);
        reshape(metadata, |fields| {
            fields.retain(|field| field["name"] != "x");
            fields.push(json!({"id": next, "name": "x", "required": false, "type": "double"}));
        });
    };
    alter(&rig, "m_predictions", last).await;
    let t = START + 185 * MINUTE;
    rig.predict(3, t, t, 3.0).await;
    rig.run(&mut rig.pipeline("a").await).await;
    let rows = rig.rows("m_predictions").await;
    let values: Vec<Option<&str>> = rows.iter().map(|row| row.get("x").map(String::as_str)).collect();
    assert_eq!(values, [None, None, Some("Double(4008000000000000)")]);
}
