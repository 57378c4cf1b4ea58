//! Bounds: what happens at each, and that what is beyond is said and not lost silently.

use std::time::Duration;

use flywheel_sidecar::record::RecordKind;
use serde_json::json;

use crate::client::eventually;
use crate::sidecar::{PREDICTIONS, Place, prediction};

/// A whole request with this body.
fn request(body: &str) -> String {
    let length = body.len();
    format!(
        "POST {PREDICTIONS} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

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

/// Hostile clients take all connections and do nothing with them, or next to nothing.
#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_give_way_when_others_wait() {
    let mut place = Place::new();
    place.config.limits.connections = 8;
    let sidecar = place.start().await;
    let mut working = sidecar.client().await;
    assert_eq!(working.post(PREDICTIONS, prediction(1)).await.status, 202);
    let mut idle = Vec::new();
    for number in 0..7 {
        let mut client = sidecar.client().await;
        if number % 2 == 0 {
            client.send(b"POST /v1/models/flights/predictions HTTP/1.1\r\nHo").await;
        }
        idle.push(client);
    }
    // The default of a minute has not gone by; this one gets its connection all the same, and the working one keeps its.
    let mut late = sidecar.client().await;
    late.send(request(&prediction(2)).as_bytes()).await;
    let answered = async { late.answer().await.status };
    let kept_busy = async {
        loop {
            assert_eq!(working.post(PREDICTIONS, prediction(3)).await.status, 202);
        }
    };
    tokio::select! {
        status = answered => assert_eq!(status, 202),
        () = kept_busy => {}
    }
    assert_eq!(working.post(PREDICTIONS, prediction(4)).await.status, 202, "who works is not closed");
    // As many gave way as had to.
    let ends = idle.iter_mut().map(|client| Box::pin(client.closed()));
    futures::future::select_all(ends).await;
    sidecar.stop().await;
}

/// Bodies that were announced and do not come hold the room for bodies for a second, and no longer.
#[tokio::test(flavor = "multi_thread")]
async fn slow_bodies_give_way_when_others_need_the_room() {
    let mut place = Place::new();
    place.config.limits.body_timeout_ms = 600_000;
    (place.config.limits.body_bytes, place.config.limits.bodies_bytes) = (1 << 20, 1 << 20);
    let sidecar = place.start().await;
    let mut client = sidecar.client().await;
    for length in ["Content-Length: 1048576\r\n\r\n{", "Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n"] {
        // One whose length is not known takes as much as it may have. One that comes while the other is at work is turned
        // away itself, and tries again.
        let mut slow;
        loop {
            slow = sidecar.client().await;
            let head = format!("POST {PREDICTIONS} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{length}");
            slow.send(head.as_bytes()).await;
            let answer = client.post(PREDICTIONS, prediction(1)).await;
            if answer.status == 503 {
                assert!(answer.header("retry-after").is_some());
                break;
            }
        }
        eventually("the room is given up", async || client.post(PREDICTIONS, prediction(1)).await.status == 202).await;
        assert_eq!(slow.answer().await.status, 408);
    }
    sidecar.stop().await;
}

/// One byte at a time, from many, beside one who works.
#[tokio::test(flavor = "multi_thread")]
async fn clients_that_trickle_cost_others_nothing() {
    let mut place = Place::new();
    place.config.limits.connections = 64;
    let sidecar = place.start().await;
    let mut tricklers = tokio::task::JoinSet::new();
    for number in 0..60 {
        let mut client = sidecar.client().await;
        tricklers.spawn(async move {
            let request = request(&prediction(number));
            for byte in request.as_bytes() {
                client.send(&[*byte]).await;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            client.answer().await.status
        });
    }
    let mut working = sidecar.client().await;
    while !tricklers.is_empty() {
        assert_eq!(working.post(PREDICTIONS, prediction(1)).await.status, 202);
        while let Some(done) = tricklers.try_join_next() {
            assert_eq!(done.unwrap(), 202, "slow is not wrong");
        }
    }
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_sent_without_waiting_are_answered_in_order() {
    let place = Place::new();
    let sidecar = place.start().await;
    let mut client = sidecar.client().await;
    let requests: String =
        (0..200).map(|number| request(&if number % 10 == 9 { "{".to_owned() } else { prediction(number) })).collect();
    client.send(requests.as_bytes()).await;
    for number in 0..200 {
        assert_eq!(client.answer().await.status, if number % 10 == 9 { 422 } else { 202 }, "{number}");
    }
    // One that ends in the middle costs its own row.
    client.send(&request(&prediction(1)).as_bytes()[..100]).await;
    drop(client);
    assert_eq!(sidecar.client().await.post(PREDICTIONS, prediction(1)).await.status, 202);
    sidecar.stop().await;
    assert_eq!(place.records("flights").len(), 181);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_without_end_is_refused() {
    let place = Place::new();
    let sidecar = place.start().await;
    let mut client = sidecar.client().await;
    client.send(b"POST /v1/models/flights/predictions HTTP/1.1\r\nX: ").await;
    client.send(&[b'x'; 70 << 10]).await;
    assert_eq!(client.answer().await.status, 431);
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
