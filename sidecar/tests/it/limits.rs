//! Bounds: what happens at each, and that what is beyond is said and not lost silently.

use flywheel_sidecar::record::RecordKind;
use serde_json::json;

use crate::sidecar::{PREDICTIONS, Place, prediction};

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_10_mb_is_answered_properly() {
    let place = Place::new();
    let sidecar = place.start().await;
    let mut client = sidecar.client().await;
    let body = vec![b'x'; 10 << 20];
    let answer = client.post(PREDICTIONS, &body).await;
    assert_eq!((answer.status, &answer.json()["type"]), (413, &json!("urn:flywheel:problem:too_large")));
    assert_eq!(client.post(PREDICTIONS, prediction(1)).await.status, 202, "the connection is still good");
    let letters = place.letters(1).await;
    assert!(letters[0].holds("too_large"));
    assert!((65_536..70_000).contains(&letters[0].datum.len()), "the first 64 KiB are kept");
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_without_a_request_is_closed_and_one_at_work_is_not() {
    let mut place = Place::new();
    place.config.limits.header_timeout_ms = 100;
    let sidecar = place.start().await;
    let (mut idle, mut slow, mut at_work) = (sidecar.client().await, sidecar.client().await, sidecar.client().await);
    assert_eq!(idle.post(PREDICTIONS, prediction(1)).await.status, 202);
    slow.send(format!("POST {PREDICTIONS} HTTP/1.1\r\nHost: ").as_bytes()).await;
    let body = prediction(1);
    let length = body.len();
    let head = format!(
        "POST {PREDICTIONS} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    );
    at_work.send(head.as_bytes()).await;
    idle.closed().await;
    slow.closed().await;
    // Its body comes several limits later: so many idle connections were opened and closed meanwhile.
    for _ in 0..3 {
        sidecar.client().await.closed().await;
    }
    at_work.send(body.as_bytes()).await;
    assert_eq!(at_work.answer().await.status, 202);
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_asks_first_need_not_send_a_large_body() {
    let place = Place::new();
    let sidecar = place.start().await;
    let mut client = sidecar.client().await;
    let head = format!(
        "POST {PREDICTIONS} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99999999\r\nExpect: 100-continue\r\n\r\n"
    );
    client.send(head.as_bytes()).await;
    assert_eq!(client.answer().await.status, 413);
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_too_many_rows_is_refused_whole() {
    let mut place = Place::new();
    place.config.limits.batch_rows = 2;
    let sidecar = place.start().await;
    let mut client = sidecar.client().await;
    let row = prediction(1) + "\n";
    assert_eq!(client.batch(PREDICTIONS, row.repeat(2)).await.status, 202);
    assert_eq!(client.batch(PREDICTIONS, row.repeat(3)).await.status, 413);
    assert_eq!(place.records("flights").len(), 2);
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_does_not_come_ends_in_408() {
    let mut place = Place::new();
    place.config.limits.body_timeout_ms = 50;
    let sidecar = place.start().await;
    let mut client = sidecar.client().await;
    let head = format!(
        "POST {PREDICTIONS} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n{{"
    );
    client.send(head.as_bytes()).await;
    assert_eq!(client.answer().await.status, 408);
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_spool_is_503_without_a_hole_in_the_sequence() {
    let mut place = Place::new();
    // No broker there: nothing leaves the spool.
    place.config.log.url = "kafka://127.0.0.1:1".to_owned();
    place.config.spool.max_bytes = 2 << 20;
    place.config.limits.body_bytes = 64 << 10;
    place.config.shutdown.drain_ms = 100;
    let sidecar = place.start().await;
    let mut client = sidecar.client().await;
    let batch = (prediction(1) + "\n").repeat(500);
    let (mut accepted, mut refused) = (0, 0);
    // Rows are refused too while the writer is behind, and room comes back: full is what takes none of a batch, twice.
    let mut full_batches = 0;
    while full_batches < 2 {
        let answer = client.batch(PREDICTIONS, &batch).await;
        let taken = match answer.status {
            202 => 500,
            207 => {
                assert!(answer.header("retry-after").is_some());
                let results = answer.json()["results"].as_array().unwrap().clone();
                assert_eq!(results.len(), 500);
                let taken = results.iter().filter(|result| result["status"] == 202).count();
                let refusals = results.iter().filter(|result| **result == json!({"status": 503})).count();
                assert_eq!(taken + refusals, 500);
                taken
            }
            status => panic!("{status}: {answer:?}"),
        };
        full_batches = if taken == 0 { full_batches + 1 } else { 0 };
        accepted += taken as u64;
        refused += 500 - taken;
        assert!(accepted < 100_000, "the spool does not fill");
    }

    // What waits for the disk takes a little more room than what is written, so a few more may fit by now.
    let answer = loop {
        let answer = client.post(PREDICTIONS, prediction(1)).await;
        match answer.status {
            202 => accepted += 1,
            _ => break answer,
        }
        assert!(accepted < 100_000, "the spool does not fill");
    };
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.header("retry-after").is_some());
    // Bodies that are wrong are told so all the same.
    assert_eq!(client.post(PREDICTIONS, "{").await.status, 422);
    let full = r#"flywheel_refused_rows_total{model="flights",kind="predictions",reason="spool_full"}"#;
    assert_eq!(sidecar.metric(full).await, refused as f64 + 1.0);
    let stopped = sidecar.stop().await;
    assert!(stopped.unforwarded >= accepted && !stopped.failed, "{stopped:?}");

    let seqs: Vec<_> = place.records("flights").into_iter().map(|record| record.seq).collect();
    assert_eq!(seqs, (1..=accepted).collect::<Vec<_>>());
    // The ledger says the same.
    let ledger = place.records("_ledger");
    assert_eq!(ledger.len(), 1);
    assert_eq!(ledger[0].kind, RecordKind::Ledger);
    let end = format!("/flights/predictions/1/{accepted}/shutdown");
    assert!(ledger[0].id.ends_with(&end), "{}: {end}", ledger[0].id);
}
