//! What is accepted, what is refused, and what is said about it.

use flywheel_sidecar::record::RecordKind;
use serde_json::{Value, json};

use crate::client::Client;
use crate::sidecar::{OUTCOMES, PREDICTIONS, Place, outcome, prediction};

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

#[tokio::test(flavor = "multi_thread")]
async fn a_prediction_and_its_outcome_are_accepted_on_both_sockets() {
    let place = Place::new();
    let sidecar = place.start().await;
    let mut tcp = sidecar.client().await;
    let answer = tcp
        .post_with(PREDICTIONS, "application/json; charset=utf-8", &format!("traceparent: {TRACE}\r\n"), prediction(7))
        .await;
    assert_eq!(answer.status, 202, "{answer:?}");
    assert_eq!(answer.header("content-type").as_deref(), Some("application/json"));
    let id = answer.json()["prediction_id"].as_str().unwrap().to_owned();

    // The record is in the spool by the time of the answer.
    let records = place.records("flights");
    assert_eq!(records.len(), 1);
    assert_eq!((records[0].kind, records[0].seq, &records[0].key), (RecordKind::Prediction, 1, &id));
    assert_eq!((&records[0].id, records[0].traceparent.as_deref()), (&id, Some(TRACE)));
    assert!(records[0].holds("4bf92f3577b34da6a3ce929d0e0e4736"), "the trace id is in the datum");

    let mut uds = Client::uds(place.uds()).await;
    let answer = uds.post(OUTCOMES, outcome(&id)).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    let event_id = answer.json()["event_id"].as_str().unwrap().to_owned();
    // The connection is kept.
    assert_eq!(tcp.post(PREDICTIONS, prediction(8)).await.status, 202);
    assert_eq!(uds.post(PREDICTIONS, prediction(9)).await.status, 202);

    let records = place.records("flights");
    let seqs: Vec<_> = records.iter().map(|record| (record.kind, record.seq)).collect();
    let (one, two) = (RecordKind::Prediction, RecordKind::Outcome);
    assert_eq!(seqs, [(one, 1), (two, 1), (one, 2), (one, 3)]);
    assert_eq!((&records[1].key, &records[1].id), (&id, &event_id));
    assert_eq!(records[1].traceparent, None);
    assert!(records.iter().all(|record| record.producer_id == records[0].producer_id));

    let stopped = sidecar.stop().await;
    assert_eq!((stopped.unforwarded, stopped.failed), (0, false));
    assert!(!place.uds().exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_batch_is_a_list_of_ids_in_line_order() {
    let place = Place::new();
    let sidecar = place.start().await;
    let mut client = sidecar.client().await;
    let body = format!("{}\n\n{}\r\n{}", prediction(1), prediction(2), prediction(3));
    let answer = client.batch(PREDICTIONS, body).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    let ids = answer.json()["prediction_ids"].clone();
    let keys: Vec<_> = place.records("flights").into_iter().map(|record| record.key).collect();
    assert_eq!(ids, json!(keys));
    assert_eq!(keys.len(), 3);
    let answer = client.batch(OUTCOMES, format!("{}\n{}\n", outcome(&keys[0]), outcome(&keys[1]))).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    assert_eq!(answer.json()["event_ids"].as_array().unwrap().len(), 2);
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_with_bad_lines_is_207_and_the_good_ones_are_in() {
    let place = Place::new();
    let sidecar = place.start().await;
    let mut client = sidecar.client().await;
    let wrong = r#"{"model_version":"m1","features":{"dep_delay_min":"x","other":1},"prediction":{"late":1}}"#;
    let cut = &prediction(3)[..40];
    let answer = client.batch(PREDICTIONS, format!("{}\n{wrong}\n{}\n{cut}", prediction(1), prediction(2))).await;
    assert_eq!(answer.status, 207, "{answer:?}");
    let results = answer.json()["results"].as_array().unwrap().clone();
    let statuses: Vec<_> = results.iter().map(|result| result["status"].as_i64().unwrap()).collect();
    assert_eq!(statuses, [202, 422, 202, 422]);
    let pointers: Vec<_> = results[1]["errors"].as_array().unwrap().iter().map(|fault| &fault["pointer"]).collect();
    assert_eq!(pointers, ["/features/dep_delay_min", "/features/other"]);
    assert_eq!(results[3]["errors"][0]["reason"], "invalid_json");
    let keys: Vec<_> = place.records("flights").into_iter().map(|record| Value::String(record.key)).collect();
    assert_eq!(keys, [results[0]["prediction_id"].clone(), results[2]["prediction_id"].clone()]);

    let answer = client.batch(PREDICTIONS, "\n\n").await;
    assert_eq!(answer.status, 422, "{answer:?}");
    // The two refused lines and the empty batch.
    let letters = place.letters(3).await;
    assert!(letters[0].holds(wrong) && letters[0].holds("/features/other: unknown_field"));
    assert!(letters[1].holds(cut));
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_request_is_said_as_problem_details() {
    let place = Place::new();
    let sidecar = place.start().await;
    let mut client = sidecar.client().await;
    let answer = client.post(PREDICTIONS, r#"{"features":{},"prediction":{"late":1}}"#).await;
    assert_eq!(answer.status, 422, "{answer:?}");
    assert_eq!(answer.header("content-type").as_deref(), Some("application/problem+json"));
    let problem = answer.json();
    assert_eq!((&problem["status"], &problem["type"]), (&json!(422), &json!("urn:flywheel:problem:refused")));
    let mut faults: Vec<_> =
        problem["errors"].as_array().unwrap().iter().map(|fault| (&fault["pointer"], &fault["reason"])).collect();
    faults.sort_by_key(|(pointer, _)| pointer.as_str().unwrap());
    let missing = json!("missing_required");
    assert_eq!(faults, [(&json!("/features/dep_delay_min"), &missing), (&json!("/model_version"), &missing)]);

    let answer = client.post(PREDICTIONS, b"{\"model_version\":\"\xff\"}").await;
    assert_eq!((answer.status, &answer.json()["errors"][0]["reason"]), (422, &json!("invalid_utf8")));
    for (path, status, word) in [
        ("/v1/models/other/predictions", 404, "unknown_model"),
        ("/v1/models/fl%69ghts/predictions", 404, "unknown_model"),
        ("/v2", 404, "not_found"),
        ("/openapi.json", 405, "method_not_allowed"),
    ] {
        let answer = client.post(path, prediction(1)).await;
        assert_eq!((answer.status, &answer.json()["type"]), (status, &json!(format!("urn:flywheel:problem:{word}"))));
    }
    for (ty, headers) in [("text/plain", ""), ("application/json", "Content-Encoding: gzip\r\n")] {
        assert_eq!(client.post_with(PREDICTIONS, ty, headers, prediction(1)).await.status, 415);
    }
    assert_eq!(client.post_at(PREDICTIONS, "0", prediction(1)).await.status, 400, "not a replay");
    assert_eq!(client.post(PREDICTIONS, prediction(1)).await.status, 202, "the connection is still good");
    let refused = r#"flywheel_refused_rows_total{model="flights",kind="predictions",reason="missing_required"}"#;
    assert_eq!(sidecar.metric(refused).await, 1.0);
    let answered = r#"flywheel_requests_total{route="predictions",status="422"}"#;
    assert_eq!(sidecar.metric(answered).await, 2.0);
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn private_bodies_are_not_kept_unless_the_contract_says_so() {
    let place = Place::new();
    let private = crate::sidecar::CONTRACT.replace("carrier: {type: string}", "carrier: {type: string, privacy: mask}");
    place.contract("flights.yaml", &private);
    place.contract("open.yaml", &(private.replace("model: flights", "model: open") + "dead_letter_body: true\n"));
    let sidecar = place.start().await;
    let mut client = sidecar.client().await;
    let body = r#"{"model_version":"m1","features":{"carrier":"secret carrier"},"prediction":{"late":1}}"#;
    for path in [PREDICTIONS, "/v1/models/open/predictions"] {
        assert_eq!(client.post(path, body).await.status, 422);
    }
    let letters = place.letters(2).await;
    assert_eq!(letters.iter().map(|letter| letter.holds("secret carrier")).collect::<Vec<_>>(), [false, true]);
    assert!(letters.iter().all(|letter| letter.kind == RecordKind::DeadLetter && letter.holds("missing_required")));
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_sampling_leaves_out_is_answered_and_counted_and_not_written() {
    let place = Place::new();
    place.contract("flights.yaml", &format!("{}sampling: {{rate: 0.5}}\n", crate::sidecar::CONTRACT));
    let sidecar = place.start().await;
    let mut client = sidecar.client().await;
    for delay in 0..64 {
        let answer = client.post(PREDICTIONS, prediction(delay)).await;
        assert_eq!(answer.status, 202, "{answer:?}");
        assert!(answer.json()["prediction_id"].is_string());
    }
    let written = place.records("flights").len();
    assert!((1..64).contains(&written), "{written} of 64");
    let left_out = r#"flywheel_sampled_out_rows_total{model="flights",kind="predictions"}"#;
    assert_eq!(sidecar.metric(left_out).await, (64 - written) as f64);
    let accepted = r#"flywheel_accepted_rows_total{model="flights",kind="predictions"}"#;
    assert_eq!(sidecar.metric(accepted).await, written as f64);
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_answer_comes_before_its_record() {
    let place = Place::new();
    let sidecar = place.start().await;
    let mut client = Client::uds(place.uds()).await;
    let mut reader = flywheel_spool::Reader::open(&place.spool("flights"), 0).unwrap();
    // Many, as an answer that does not wait often comes after its record all the same.
    for number in 0..300 {
        assert_eq!(client.post(PREDICTIONS, prediction(1)).await.status, 202);
        assert_eq!(reader.read(1).unwrap().len(), 1, "answer {number}");
    }
    sidecar.stop().await;
}
