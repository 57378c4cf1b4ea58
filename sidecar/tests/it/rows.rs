//! Rows of real systems, from the request to the datum in the spool: candidates of one request, decisions, contexts,
//! experiments, traces; and the examples that people begin from.

use std::path::{Path, PathBuf};

use apache_avro::Schema;
use apache_avro::types::Value as Avro;
use flywheel_schemas::avro::prediction_schema;
use flywheel_schemas::contract::Contract;
use flywheel_sidecar::record::RecordKind;
use serde_json::{Value, json};

use crate::sidecar::{Entry, OUTCOMES, PREDICTIONS, Place};

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

const RANKING: &str = "
apiVersion: flywheel/v1
kind: ModelContract
model: flights
version: 1
entity: {user: {type: string, required: true}, item: {type: long}}
features: {age: {type: int}, price: {type: double}}
prediction: {score: {type: double, required: true}}
decision: {action: {type: string}, propensity: {type: double}, shown: {type: boolean}}
context: {session: {type: uuid}, at: {type: timestamp}}
labels:
  landed: {type: boolean, window: 12h, lateness: 1h, aggregate: any, default: false}
";

/// A row as plain JSON: names to values, blocks one level deeper, nulls left out.
fn row(contract: &str, entry: &Entry) -> Value {
    let contract = Contract::parse(contract).unwrap();
    let schema = Schema::parse_str(&prediction_schema(&contract)).unwrap();
    let reader = apache_avro::reader::datum::GenericDatumReader::builder(&schema).build().unwrap();
    plain(reader.read_value(&mut entry.datum.as_slice()).unwrap())
}

fn plain(value: Avro) -> Value {
    match value {
        Avro::Union(_, inner) => plain(*inner),
        Avro::Record(fields) => {
            fields.into_iter().map(|(name, value)| (name, plain(value))).filter(|(_, value)| !value.is_null()).collect()
        }
        Avro::Array(items) => items.into_iter().map(plain).collect(),
        Avro::Null => Value::Null,
        Avro::Boolean(value) => json!(value),
        Avro::Int(value) => json!(value),
        Avro::Long(value) | Avro::TimestampMicros(value) => json!(value),
        Avro::Float(value) => json!(value),
        Avro::Double(value) => json!(value),
        Avro::String(value) => json!(value),
        Avro::Uuid(value) => json!(value.to_string()),
        Avro::Decimal(value) => json!(format!("{value:?}")),
        other => panic!("{other:?}"),
    }
}

fn place() -> Place {
    let place = Place::new();
    place.contract("flights.yaml", RANKING);
    place
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_a_row_can_say_is_taken_and_typed() {
    let place = place();
    let sidecar = place.start().await;
    let mut client = sidecar.client().await;
    let parent = "0190A5D0-0000-7000-8000-00000000000A";
    let body = json!({
        "request_id": "r-1", "parent_prediction_id": parent, "model_version": "7", "variant": "b", "exposure": "shadow",
        "rank": 4, "latency_us": 1500, "status": "fallback", "event_time": 1_717_200_000_123_456_i64,
        "entity": {"user": "u", "item": -3}, "features": {"age": 30}, "prediction": {"score": 0.5},
        "decision": {"action": "a", "propensity": 0.25, "shown": false},
        "context": {"session": "F81D4FAE-7DEC-11D0-A765-00A0C91E6BF6", "at": "2024-06-01T02:00:00.5+02:00"},
    });
    let headers = format!("traceparent: {TRACE}\r\n");
    let answer = client.post_with(PREDICTIONS, "application/json", &headers, body.to_string()).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    let entry = &place.records("flights")[0];
    assert_eq!(entry.traceparent.as_deref(), Some(TRACE), "it goes on as a header too");
    let expected = json!({
        "prediction_id": answer.json()["prediction_id"], "event_time": 1_717_200_000_123_000_i64, "contract_version": 1,
        "request_id": "r-1", "parent_prediction_id": parent.to_lowercase(), "model_version": "7", "variant": "b",
        "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736", "exposure": "shadow", "rank": 4, "latency_us": 1500,
        "status": "fallback", "sampling_rate": 1.0, "sample_weight": 1.0,
        "entity": {"user": "u", "item": -3}, "features": {"age": 30}, "prediction": {"score": 0.5},
        "decision": {"action": "a", "propensity": 0.25, "shown": false},
        "context": {"session": "f81d4fae-7dec-11d0-a765-00a0c91e6bf6", "at": 1_717_200_000_500_000_i64},
    });
    assert_eq!(row(RANKING, entry), expected);

    // Each of them is checked.
    for (key, value, reason) in [
        ("decision", json!({"propensity": "0.25"}), "wrong_type"),
        ("decision", json!({"shown": 1}), "wrong_type"),
        ("decision", json!({"reward": 1}), "unknown_field"),
        ("context", json!({"session": "s"}), "invalid_value"),
        ("context", json!({"at": "yesterday"}), "invalid_value"),
        ("variant", json!(2), "wrong_type"),
        ("exposure", json!("seen"), "invalid_value"),
        ("parent_prediction_id", json!(7), "wrong_type"),
        ("rank", json!(-1), "out_of_range"),
    ] {
        let mut body = body.clone();
        body[key] = value;
        let answer = client.post(PREDICTIONS, body.to_string()).await;
        assert_eq!((answer.status, &answer.json()["errors"][0]["reason"]), (422, &json!(reason)), "{key}: {answer:?}");
    }
    // A trace that is none is left out; the row is taken.
    for trace in ["", "00-0-0-01", "00-00000000000000000000000000000000-00f067aa0ba902b7-01"] {
        let headers = format!("traceparent: {trace}\r\n");
        let answer = client.post_with(PREDICTIONS, "application/json", &headers, body.to_string()).await;
        assert_eq!(answer.status, 202, "{answer:?}");
        assert_eq!(row(RANKING, place.records("flights").last().unwrap()).get("trace_id"), None);
    }
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_candidates_of_a_request_are_a_row_each() {
    let place = place();
    let sidecar = place.start().await;
    let mut client = sidecar.client().await;
    let shared = r#"{"model_version":"7","entity":{"user":"u"},"features":{"age":30}}"#;
    let item = |item: i32, score: &str| format!(r#"{{"entity":{{"item":{item}}},"prediction":{{"score":{score}}}}}"#);
    let body = format!(r#"{{"shared":{shared},"items":[{},{}]}}"#, item(1, "0.5"), item(2, "0.25"));
    let headers = format!("traceparent: {TRACE}\r\n");
    let answer = client.post_with(PREDICTIONS, "application/json", &headers, &body).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    let records = place.records("flights");
    let ids: Vec<&str> = records.iter().map(|record| record.key.as_str()).collect();
    assert_eq!(answer.json(), json!({ "prediction_ids": ids }));
    assert_eq!(records.iter().map(|record| record.seq).collect::<Vec<_>>(), [1, 2]);
    for (place, record) in records.iter().enumerate() {
        let row = row(RANKING, record);
        assert_eq!((&row["rank"], &row["request_id"]), (&json!(place), &json!(ids[0])));
        assert_eq!(row["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(row["entity"], json!({"user": "u", "item": place + 1}));
        assert_eq!(row["features"], json!({"age": 30}));
    }

    // One bad item takes nothing from the others.
    let body = format!(r#"{{"items":[{},{}],"shared":{shared}}}"#, item(3, "\"high\""), item(4, "1"));
    let answer = client.post(PREDICTIONS, &body).await;
    assert_eq!(answer.status, 207, "{answer:?}");
    let results = answer.json()["results"].clone();
    assert_eq!((&results[0]["status"], &results[1]["status"]), (&json!(422), &json!(202)));
    assert_eq!(results[0]["errors"][0]["pointer"], "/items/0/prediction/score");
    assert_eq!(results[1]["prediction_id"], json!(place.records("flights")[2].key));
    let letters = place.letters(1).await;
    assert!(letters[0].holds(&item(3, "\"high\"")) && letters[0].holds("/items/0/prediction/score: wrong_type"));

    // A fault of the whole gives no row at all.
    for (body, pointer) in [
        (format!(r#"{{"shared":{{"feature":{{}}}},"items":[{}]}}"#, item(5, "1")), "/shared/feature"),
        (format!(r#"{{"shared":{shared},"items":[{},]}}"#, item(5, "1")), ""),
        (format!(r#"{{"shared":{shared},"items":[]}}"#), "/items"),
    ] {
        let answer = client.post(PREDICTIONS, &body).await;
        assert_eq!((answer.status, &answer.json()["errors"][0]["pointer"]), (422, &json!(pointer)), "{answer:?}");
    }
    assert_eq!(place.records("flights").len(), 3);
    // Outcomes have nothing in common that would be worth it.
    let answer = client.post(OUTCOMES, r#"{"shared":{},"items":[{}]}"#).await;
    assert_eq!((answer.status, &answer.json()["errors"][0]["pointer"]), (422, &json!("/shared")));
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_has_no_more_candidates_than_a_batch_has_rows() {
    let mut place = place();
    place.config.limits.batch_rows = 3;
    let sidecar = place.start().await;
    let mut client = sidecar.client().await;
    let item = r#"{"entity":{"user":"u"},"model_version":"1","prediction":{"score":1}}"#;
    let body = |count: usize| format!(r#"{{"items":[{}]}}"#, vec![item; count].join(","));
    assert_eq!(client.post(PREDICTIONS, body(4)).await.status, 413);
    assert_eq!(client.post(PREDICTIONS, body(3)).await.status, 202);
    assert_eq!(place.records("flights").len(), 3);
    sidecar.stop().await;
}

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/contracts")
}

#[test]
fn every_example_is_a_contract_without_a_warning() {
    let mut count = 0;
    for entry in std::fs::read_dir(examples()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            let checked = Contract::check(&std::fs::read_to_string(&path).unwrap());
            let contract = checked.result.unwrap_or_else(|faults| panic!("{}: {faults:?}", path.display()));
            assert_eq!(checked.warnings, [], "{}", path.display());
            assert_eq!(path.file_stem().unwrap().to_str(), Some(contract.model.as_str()));
            count += 1;
        }
    }
    assert!(count >= 3);
}

/// The bodies of the README: the path of each, whether it is NDJSON, and its text.
fn bodies(text: &str) -> Vec<(String, bool, String)> {
    let mut bodies = Vec::new();
    let mut lines = text.lines();
    let mut path = None;
    while let Some(line) = lines.next() {
        if let Some(rest) = line.strip_prefix("`POST ") {
            path = Some(rest.split_once('`').unwrap().0.to_owned());
        } else if let Some(language) = line.strip_prefix("```") {
            let body: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            bodies.push((path.take().expect("a path before each body"), language == "ndjson", body.join("\n")));
        }
    }
    bodies
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bodies_of_the_examples_are_accepted() {
    let mut place = Place::new();
    place.config.contracts.dir = examples();
    let keys = place.dir.path().join("keys");
    std::fs::write(&keys, "k:MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\n").unwrap();
    place.config.privacy.key_file = Some(keys);
    let sidecar = place.start().await;
    let mut client = sidecar.client().await;
    let bodies = bodies(&std::fs::read_to_string(examples().join("README.md")).unwrap());
    assert_eq!(bodies.len(), 4);
    let mut ids: Vec<String> = Vec::new();
    for (path, is_batch, mut body) in bodies {
        for (place, id) in ids.iter().enumerate() {
            body = body.replace(&format!("ID_{place}"), id);
        }
        let ty = if is_batch { "application/x-ndjson" } else { "application/json" };
        let answer = client.post_with(&path, ty, "", &body).await;
        assert_eq!(answer.status, 202, "{path}: {}", answer.text());
        if path.ends_with("/predictions") {
            let answer = answer.json();
            let found = answer["prediction_ids"].as_array().cloned().unwrap_or(vec![answer["prediction_id"].clone()]);
            ids = found.iter().map(|id| id.as_str().unwrap().to_owned()).collect();
        }
    }
    let kinds = |model: &str| place.records(model).iter().map(|record| record.kind).collect::<Vec<_>>();
    let (prediction, outcome) = (RecordKind::Prediction, RecordKind::Outcome);
    assert_eq!(kinds("offer_bandit"), [prediction, outcome]);
    assert_eq!(kinds("news_ranking"), [prediction, prediction, prediction, outcome, outcome, outcome]);
    let bandit =
        row(&std::fs::read_to_string(examples().join("offer_bandit.yaml")).unwrap(), &place.records("offer_bandit")[0]);
    assert_eq!(bandit["decision"], json!({"action": "free_shipping", "propensity": 0.74, "explored": false}));
    sidecar.stop().await;
}
