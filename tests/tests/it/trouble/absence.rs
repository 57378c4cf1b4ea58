//! A broker that is away for so long that the spool fills.

use std::time::Duration;

use flywheel_tests::servers::{Kafka, skipped};
use flywheel_tests::system::{BOUND, until};

use super::{Plan, Sidecar, once_or_more_in_order, resident_bytes, row, topics};

/// Its model's share is a little less.
const SPOOL_BYTES: u64 = 24 << 20;
/// What is allocated while nothing more is accepted; far below what was posted meanwhile.
const GROWTH_MAX: u64 = 16 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_away_until_the_spool_is_full() {
    if skipped("a_broker_away_until_the_spool_is_full") {
        return;
    }
    let (dir, prefix) = (tempfile::tempdir().unwrap(), "absence");
    let mut kafka = Kafka::start(dir.path()).unwrap();
    let servers = kafka.address().to_owned();
    topics(&servers, prefix).await;
    let mut sidecar = Sidecar::start(Plan { spool_max_bytes: SPOOL_BYTES, ..Plan::new(prefix, &servers) }).await;
    sidecar.post(100).await;
    sidecar.until_well().await;

    kafka.kill().unwrap();
    let text = "x".repeat(1_000);
    let rows = row(&text).repeat(200);
    let mut posts = 0;
    while sidecar.offer_text(rows.clone()).await == 200 {
        posts += 1;
        assert!(posts < 1_000, "it takes more than its bound");
    }
    sidecar.until_blocked("log", false).await;
    until("Kafka is away", async || sidecar.service.metrics().await.sum("flywheel_log_away", &[]) == 1).await;
    // It stays so, at no cost: 60 MB more are refused.
    let before = resident_bytes(sidecar.service.pid());
    for _ in 0..300 {
        assert_eq!(sidecar.offer_text(rows.clone()).await, 0);
    }
    let after = resident_bytes(sidecar.service.pid());
    println!("resident: {} MiB, then {} MiB", before >> 20, after >> 20);
    assert!(after < before + GROWTH_MAX, "{before} bytes grew to {after}");
    let bytes = async |name| sidecar.metric(name, &[]).await;
    assert!(bytes("flywheel_spool_bytes").await <= bytes("flywheel_spool_max_bytes").await);

    kafka.restart().unwrap();
    sidecar.until_well().await;
    // What is forwarded leaves the disk a little later.
    let end = std::time::Instant::now() + BOUND;
    while sidecar.offer(200).await < 200 {
        assert!(std::time::Instant::now() < end, "nothing more is accepted");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    sidecar.until_well().await;
    sidecar.service.stop().await;
    once_or_more_in_order(&servers, prefix, 1..=sidecar.accepted);
}
