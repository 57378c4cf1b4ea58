//! The commands that put something into the log: labels from a warehouse, and dead letters once more.

use std::process::Output;
use std::time::Duration;

use flywheel_schemas::contract::Contract;
use flywheel_schemas::wire::{self, Kind};
use flywheel_schemas::{id, register};
use flywheel_tests::readers::{Duckdb, duckdb_sql, spark_sql};
use flywheel_tests::servers::{shared, skipped};
use flywheel_tests::system::{BOUND, JSON, Plan, System, until};
use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use serde_json::{Value, json};

use crate::DEMONSTRATION;
use crate::trouble::records;

const CONTRACT: &str = "
apiVersion: flywheel/v1
kind: ModelContract
model: m
version: 1
features: {x: {type: long}}
labels:
  won: {type: boolean, window: 1h, lateness: 20m, aggregate: any, default: false}
  sum: {type: long, window: 1h, lateness: 20m, aggregate: sum}
";

/// What an ended command said: its exit status, standard output and standard error.
fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn ask(duckdb: &Duckdb, sql: &str) -> Value {
    json!(duckdb_sql(duckdb, sql).unwrap_or_default())
}

async fn until_said(duckdb: &Duckdb, sql: &str, expected: Value) {
    let end = tokio::time::Instant::now() + BOUND;
    loop {
        let found = ask(duckdb, sql);
        if found == expected {
            return;
        }
        assert!(tokio::time::Instant::now() < end, "{sql}: {found}, not {expected}");
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn labels_from_a_warehouse_and_letters_that_were_mended_land_once() {
    if skipped("labels_from_a_warehouse_and_letters_that_were_mended_land_once") {
        return;
    }
    let (dir, set, prefix) = (tempfile::tempdir().unwrap(), shared(), "commands");
    let contract = Contract::parse(CONTRACT).unwrap();
    let plan = Plan {
        program: DEMONSTRATION,
        dir: dir.path(),
        set,
        registry: set.registry.address(),
        contract: &contract,
        yaml: CONTRACT,
        prefix,
        partitions: 2,
        batch_rows: 10,
    };
    let mut system = System::start(&plan).await.unwrap();
    let to = format!("http://{}", system.address());
    let mut ids = Vec::new();
    for x in 0..3 {
        let body = json!({"model_version": "1", "features": {"x": x}}).to_string();
        let answer = system.post(Kind::Predictions, JSON, body).await;
        ids.push(answer.body["prediction_id"].as_str().unwrap().to_owned());
    }
    let duckdb = set.python(prefix).duckdb().unwrap();
    until_said(&duckdb, "SELECT count(*) FROM m_predictions", json!([[3]])).await;

    // A file: more lines than the sidecar takes at once, some of which it refuses.
    let now_us = std::time::UNIX_EPOCH.elapsed().unwrap().as_micros() as i64;
    let mut lines: Vec<String> = (0..25)
        .map(|fact| {
            let id = &ids[fact % 3];
            json!({"prediction_id": id, "outcome_id": format!("o{fact}"), "labels": {"sum": fact}, "event_time": now_us})
                .to_string()
        })
        .collect();
    lines.insert(4, json!({"prediction_id": ids[0], "labels": {"refund": true}, "event_time": now_us}).to_string());
    lines.insert(12, "{\"prediction_id\":".to_owned());
    lines.insert(13, String::new());
    let file = dir.path().join("labels.ndjson");
    std::fs::write(&file, lines.join("\n")).unwrap();
    let import =
        |from: &str| said(&system.joiner.run(&["import", "outcomes", from, "--model", "m", "--to", &to]).unwrap());
    let file = file.to_str().unwrap();
    for _ in 0..2 {
        let (status, output, errors) = import(file);
        assert_eq!((status, output.as_str()), (Some(3), "25 outcomes accepted, 2 refused\n"), "{errors}");
        let refused: Vec<&str> = errors.lines().filter(|line| line.starts_with("line ")).collect();
        assert_eq!(refused.len(), 2, "{errors}");
        assert!(refused[0].starts_with("line 5: /labels/refund: unknown_label: "), "{errors}");
        assert!(refused[1].starts_with("line 13: invalid_json: "), "{errors}");
    }
    let counts = "SELECT count(*), count(DISTINCT event_id), count(DISTINCT outcome_id) FROM m_outcomes";
    until_said(&duckdb, counts, json!([[50, 25, 25]])).await;

    // A table of the catalog, and the same rows as Parquet.
    let table = format!(
        "CREATE TABLE {prefix}.labels AS SELECT prediction_id, event_time, 'of the day' AS source,
           CASE WHEN x = 1 THEN true END AS label_won, CAST(x AS DECIMAL(9,0)) AS label_sum, 'a' AS outcome_id
         FROM {prefix}.m_predictions"
    );
    spark_sql(set.spark(), &table).unwrap();
    let (status, _, errors) = import("labels");
    // A decimal is a text, and no long.
    assert_eq!(status, Some(3));
    assert_eq!(errors.matches("/labels/sum: wrong_type: ").count(), 3, "{errors}");
    assert!(errors.contains(&format!("prediction {}: ", ids[0])), "{errors}");
    spark_sql(set.spark(), &format!("ALTER TABLE {prefix}.labels DROP COLUMN label_sum")).unwrap();
    spark_sql(set.spark(), &format!("DELETE FROM {prefix}.labels WHERE label_won IS NULL")).unwrap();
    assert_eq!(import("labels").1, "1 outcomes accepted, 0 refused\n");
    assert_eq!(import(&format!("{prefix}.labels")).1, "1 outcomes accepted, 0 refused\n");
    let parquet = dir.path().join("labels.parquet").display().to_string();
    let copy = format!("COPY (SELECT * FROM labels) TO '{parquet}' (FORMAT parquet)");
    duckdb_sql(&duckdb, &copy).unwrap();
    let (status, output, errors) = import(&parquet);
    assert_eq!((status, output.as_str()), (Some(0), "1 outcomes accepted, 0 refused\n"), "{errors}");
    let won = "SELECT count(*), count(DISTINCT event_id), min(source) FROM m_outcomes WHERE label_won";
    until_said(&duckdb, won, json!([[3, 1, "of the day"]])).await;
    let (status, _, errors) = import("nothing");
    assert!(status == Some(1) && errors.contains("neither a file `nothing` nor a table"), "{errors}");

    // Letters: a feature and a label that the contract does not have, and a record that nobody can read.
    let body = json!({"model_version": "1", "features": {"x": 7, "y": "new"}}).to_string();
    assert_eq!(system.post(Kind::Predictions, JSON, body).await.status, 422);
    let producer: FutureProducer = ClientConfig::new().set("bootstrap.servers", set.kafka.address()).create().unwrap();
    let topic = wire::topic(prefix, "m", Kind::Predictions);
    let headers = OwnedHeaders::new().insert(Header { key: wire::PRODUCER_SEQ, value: Some("77") });
    let junk = FutureRecord::to(&topic).partition(1).key(&ids[0]).payload("junk").headers(headers);
    producer.send(junk, BOUND).await.unwrap();
    let letters = || {
        let listed = system.joiner.command("dead-letter list --model m").unwrap();
        listed.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect::<Vec<_>>()
    };
    let of = |reason: &str| letters().into_iter().filter(|letter| letter["reason"] == reason).collect::<Vec<_>>();
    until("the letters", async || of("unknown_field").len() == 1 && of("not_framed").len() == 1).await;
    let (field, label) = (of("unknown_field").remove(0), of("unknown_label"));
    assert_eq!(label.len(), 2, "one for each import: {label:?}");
    let replay = |more: &[&str]| {
        let arguments = [&["dead-letter", "replay", "--model", "m", "--to", &to], more].concat();
        said(&system.joiner.run(&arguments).unwrap())
    };
    // Nothing is mended yet.
    let (status, output, errors) = replay(&["--reason", "unknown_field"]);
    assert_eq!((status, output.as_str()), (Some(3), "0 letters replayed, 1 not\n"));
    assert!(errors.contains("refused again: /features/y: unknown_field: "), "{errors}");

    let yaml = CONTRACT
        .replace("version: 1", "version: 2")
        .replace("{x: {type: long}}", "{x: {type: long}, y: {type: string}}")
        .replace("labels:\n", "labels:\n  refund: {type: boolean, window: 1h, lateness: 20m, aggregate: any}\n");
    let second = Contract::parse(&yaml).unwrap();
    register::register(&second, &system.registry, prefix).await.unwrap();
    std::fs::write(dir.path().join("contracts/model.yaml"), &yaml).unwrap();
    until("the new contract", async || replay(&["--id", field["dead_letter_id"].as_str().unwrap()]).0 == Some(0)).await;
    let (status, output, errors) = replay(&["--reason", "unknown_field"]);
    assert_eq!(status, Some(0), "{errors}");
    // The letters that the tries before gave have the id that the first got.
    assert!(output.ends_with(" letters replayed, 0 not\n"), "{output}");
    let rows =
        "SELECT count(DISTINCT prediction_id), min(prediction_id), min(y), min(x) FROM m_predictions WHERE y = 'new'";
    let received = ask(&duckdb, &format!("SELECT epoch_ms(TIMESTAMPTZ '{}')", field["received_at"].as_str().unwrap()));
    until("the row", async || ask(&duckdb, rows)[0][0] == 1).await;
    let row = &ask(&duckdb, rows)[0];
    assert_eq!((&row[2], &row[3]), (&json!("new"), &json!(7)));
    assert_eq!(id::time_ms_of(row[1].as_str().unwrap()), received[0][0].as_i64());
    assert_eq!(replay(&["--reason", "unknown_label"]).1, "2 letters replayed, 0 not\n");
    let refund = "SELECT count(*), count(DISTINCT event_id) FROM m_outcomes WHERE label_refund";
    until_said(&duckdb, refund, json!([[2, 1]])).await;

    // The record that nobody can read is appended as it was, and is a letter of its own.
    let letter = of("not_framed").remove(0);
    assert_eq!(replay(&["--id", letter["dead_letter_id"].as_str().unwrap()]).1, "1 letters replayed, 0 not\n");
    until("another letter", async || of("not_framed").len() == 2).await;
    let found = of("not_framed");
    assert_eq!(found[0]["body"], found[1]["body"]);
    assert_eq!((&found[0]["kafka_partition"], &found[1]["kafka_partition"]), (&json!(1), &json!(1)));
    let kept = records(set.kafka.address(), &topic).remove(1);
    assert_eq!(kept.iter().filter(|(seq, value)| *seq == 77 && value == b"junk").count(), 2, "with its number");

    system.sidecar.stop().await;
    system.joiner.stop().await;
}
