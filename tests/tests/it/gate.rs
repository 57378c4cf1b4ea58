//! A gate end to end: nothing is sealed before a source has reported, or a person has said that it may be.

use flywheel_schemas::contract::Contract;
use flywheel_schemas::wire::Kind;
use flywheel_tests::servers::{shared, skipped};
use flywheel_tests::system::{JSON, Plan, System, until};
use serde_json::json;

use crate::DEMONSTRATION;

const CONTRACT: &str = "
apiVersion: flywheel/v1
kind: ModelContract
model: gated
version: 1
features: {x: {type: double}}
prediction: {p: {type: double}}
labels:
  won: {type: boolean, window: 1s, lateness: 1s, aggregate: any, default: false, gate: {progress: wins}}
seal: {when: all_closed, grid: 1s, drain: 1s, horizon: 1d}
";

async fn start(dir: &std::path::Path, prefix: &str) -> System {
    let set = shared();
    let contract = Contract::parse(CONTRACT).unwrap();
    let plan = Plan {
        program: DEMONSTRATION,
        dir,
        set,
        registry: set.registry.address(),
        contract: &contract,
        yaml: CONTRACT,
        prefix,
        partitions: 2,
        batch_rows: 1000,
    };
    System::start(&plan).await.unwrap()
}

async fn predict(system: &System) {
    for _ in 0..10 {
        let body = json!({"model_version": "1", "features": {"x": 1.0}, "prediction": {"p": 0.5}}).to_string();
        assert_eq!(system.post(Kind::Predictions, JSON, body).await.status, 202);
    }
}

async fn sealed(system: &System) -> u64 {
    let table = [("table", "gated_training")];
    system.joiner.metrics().await.sum("flywheel_joiner_committed_rows_total", &table)
}

/// Waits until both partitions are barred by that source.
async fn until_barred(system: &System) {
    until("the alarm", async || {
        let metrics = system.joiner.metrics().await;
        metrics.sum("flywheel_joiner_gate_barred_partitions", &[("cause", "progress:wins")]) == 2
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_sealed_until_its_source_has_reported() {
    if skipped("nothing_is_sealed_until_its_source_has_reported") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut system = start(dir.path(), "gate_report").await;
    predict(&system).await;
    until_barred(&system).await;
    assert_eq!(sealed(&system).await, 0);
    let answer = system
        .post_to("source-progress", json!({"source": "wins", "complete_through": "2100-01-01T00:00:00Z"}).to_string())
        .await;
    assert_eq!(answer.status, 202, "{answer:?}");
    until("the rows", async || sealed(&system).await == 10).await;
    assert!(system.joiner.log().contains("a label source seems dead"), "{}", system.joiner.log());
    system.sidecar.stop().await;
    system.joiner.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_lets_ticks_be_open() {
    if skipped("a_person_lets_ticks_be_open") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut system = start(dir.path(), "gate_release").await;
    predict(&system).await;
    until_barred(&system).await;
    let refused = system.joiner.command("release --model gated --cause rate:won --through 2100-01-01T00:00:00Z");
    assert!(refused.unwrap_err().to_string().contains("no contract of gated has a gate rate:won"));
    let said = system.joiner.command("release --model gated --cause progress:wins --through 2100-01-01T00:00:00Z");
    assert!(said.unwrap().contains("in 2 partitions"));
    until("the rows", async || sealed(&system).await == 10).await;
    system.sidecar.stop().await;
    system.joiner.stop().await;
}
