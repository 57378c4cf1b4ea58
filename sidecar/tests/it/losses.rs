//! What gives way when the log takes nothing: new rows, or old ones that the ledger names; and of one model alone.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use flywheel_sidecar::config::WhenFull;

use crate::client::{Client, eventually};
use crate::restart::Process;
use crate::sidecar::{CONTRACT, PREDICTIONS, Place, prediction};

const BATCH: usize = 500;
/// Nothing here takes longer on a machine that works.
const BOUND: Duration = Duration::from_secs(120);

/// A spool that a few thousand rows fill, and no schema under which any could be sent.
fn small_place() -> Place {
    let mut place = Place::new();
    place.config.registry.auto_register = false;
    place.config.spool.max_bytes = 4 << 20;
    place.config.limits.body_bytes = 64 << 10;
    place.config.shutdown.drain_ms = 100;
    place
}

/// Posts a batch; gives how many rows of it were accepted.
async fn post(client: &mut Client, path: &str, batch: &str) -> usize {
    let answer = client.batch(path, batch).await;
    match answer.status {
        202 => BATCH,
        207 => answer.json()["results"].as_array().unwrap().iter().filter(|result| result["status"] == 202).count(),
        status => panic!("{status}: {answer:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_floods_takes_nothing_from_another() {
    let place = small_place();
    place.contract("quiet.yaml", &CONTRACT.replace("model: flights", "model: quiet"));
    let sidecar = place.start().await;
    let mut client = sidecar.client().await;
    let batch = (prediction(1) + "\n").repeat(BATCH);
    let (began, mut full_batches) = (Instant::now(), 0);
    // Full is what takes none of a batch, twice: rows are refused too while the writer is behind.
    while full_batches < 2 {
        full_batches = if post(&mut client, PREDICTIONS, &batch).await == 0 { full_batches + 1 } else { 0 };
        assert!(began.elapsed() < BOUND, "the spool does not fill");
    }
    // Its own share is all there: as many rows again are taken of the other, to the same bound.
    let mut taken = 0;
    for _ in 0..10 {
        for row in 0..50 {
            let answer = client.post("/v1/models/quiet/predictions", prediction(row)).await;
            assert_eq!(answer.status, 202, "{answer:?}");
            taken += 1;
        }
        post(&mut client, PREDICTIONS, &batch).await;
    }
    let refused = |model: &str| {
        format!(r#"flywheel_refused_rows_total{{model="{model}",kind="predictions",reason="spool_full"}}"#)
    };
    assert!(sidecar.metric(&refused("flights")).await >= 1000.0);
    assert_eq!(sidecar.metric(&refused("quiet")).await, 0.0);
    sidecar.stop().await;
    assert_eq!(place.records("quiet").len(), taken);
}

/// The spans that the ledger names as lost, by first and last number.
fn lost(ids: impl Iterator<Item = String>) -> Vec<(u64, u64)> {
    ids.filter(|id| id.ends_with("/loss"))
        .map(|id| {
            let parts: Vec<_> = id.split('/').collect();
            assert_eq!(parts[2..4], ["flights", "predictions"]);
            (parts[4].parse().unwrap(), parts[5].parse().unwrap())
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn with_drop_oldest_new_rows_are_taken_and_after_a_kill_every_number_is_in_the_log_or_named() {
    let mut place = small_place();
    place.config.spool.when_full = WhenFull::DropOldest;
    let process = Process::start(&place).await;
    let mut client = Client::uds(place.uds()).await;
    let batch = (prediction(1) + "\n").repeat(BATCH);
    let (began, mut accepted) = (Instant::now(), 0);
    let named = || lost(place.records("_ledger").into_iter().map(|record| record.id)).len();
    // Until a second loss is on record, and taking rows still.
    while named() < 2 {
        let taken = post(&mut client, PREDICTIONS, &batch).await as u64;
        accepted += taken;
        if taken == 0 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert!(began.elapsed() < BOUND, "nothing is given up");
    }
    let refused_since = Instant::now();
    while client.post(PREDICTIONS, prediction(1)).await.status != 202 {
        assert!(refused_since.elapsed() < BOUND, "no room was made");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    accepted += 1;
    process.kill();

    place.config.registry.auto_register = true;
    place.config.shutdown.drain_ms = 60_000;
    let process = Process::start(&place).await;
    let closed = format!("/flights/predictions/1/{accepted}/recovery");
    eventually("the ledger is closed", async || {
        place.logged("flywheel.ledger").iter().any(|record| record.id.ends_with(&closed))
    })
    .await;
    assert!(process.terminate().await.success());
    let spans = lost(place.logged("flywheel.ledger").into_iter().map(|record| record.id));
    let lost: Vec<u64> = spans.iter().flat_map(|(first, last)| *first..=*last).collect();
    assert_eq!(lost.iter().collect::<BTreeSet<_>>().len(), lost.len(), "no number is named twice: {spans:?}");
    let mut found: BTreeSet<u64> =
        place.logged("flywheel.flights.predictions").iter().map(|record| record.seq.parse().unwrap()).collect();
    assert!(!found.is_empty() && !lost.is_empty());
    found.extend(lost);
    assert_eq!(found, (1..=accepted).collect());
}
