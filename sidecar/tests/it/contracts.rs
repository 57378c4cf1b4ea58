//! Contracts come into force at the start and on reload; a bad one takes nothing from what runs.

use crate::client::Client;
use crate::sidecar::{CONTRACT, OUTCOMES, PREDICTIONS, Place, Sidecar, prediction};

async fn ready(sidecar: &Sidecar) -> u16 {
    Client::tcp(sidecar.admin).await.get("/readyz").await.status
}

#[tokio::test(flavor = "multi_thread")]
async fn a_contract_that_does_not_parse_leaves_the_one_in_force() {
    let place = Place::new();
    let sidecar = place.start().await;
    let mut client = sidecar.client().await;
    assert_eq!(ready(&sidecar).await, 200);
    assert_eq!(Client::tcp(sidecar.admin).await.get("/livez").await.status, 200);

    place.contract("flights.yaml", "model: [");
    sidecar.handle.reload().await;
    assert_eq!(client.post(PREDICTIONS, prediction(1)).await.status, 202);
    assert_eq!(sidecar.metric("flywheel_invalid_contracts").await, 1.0);
    assert_eq!(ready(&sidecar).await, 200, "what runs, runs on");

    // The same version with another text.
    place.contract("flights.yaml", &CONTRACT.replace("max: 2000", "max: 3000"));
    sidecar.handle.reload().await;
    assert_eq!(sidecar.metric("flywheel_invalid_contracts").await, 1.0);
    assert_eq!(client.post(PREDICTIONS, prediction(2500)).await.status, 422);

    let second = CONTRACT.replace("max: 2000", "max: 3000").replace("version: 1", "version: 2");
    place.contract("flights.yaml", &second);
    place.contract("other.yaml", &CONTRACT.replace("model: flights", "model: other"));
    sidecar.handle.reload().await;
    assert_eq!(sidecar.metric("flywheel_invalid_contracts").await, 0.0);
    assert_eq!(sidecar.metric(r#"flywheel_contract_version{model="flights"}"#).await, 2.0);
    assert_eq!(client.post(PREDICTIONS, prediction(2500)).await.status, 202);
    assert_eq!(client.post("/v1/models/other/predictions", prediction(1)).await.status, 202);
    // Both versions and the new model reach the log.
    let stopped = sidecar.stop().await;
    assert_eq!((stopped.unforwarded, stopped.failed), (0, false));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_contract_at_the_start_keeps_it_unready_and_the_others_served() {
    let place = Place::new();
    place.contract("bad.yaml", "kind: ModelContract");
    let sidecar = place.start().await;
    assert_eq!(ready(&sidecar).await, 503);
    assert_eq!(sidecar.client().await.post(PREDICTIONS, prediction(1)).await.status, 202);
    std::fs::remove_file(place.config.contracts.dir.join("bad.yaml")).unwrap();
    sidecar.handle.reload().await;
    assert_eq!(ready(&sidecar).await, 200);
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_interface_is_described_by_the_contracts() {
    let place = Place::new();
    let sidecar = place.start().await;
    let document = sidecar.client().await.get("/openapi.json").await.json();
    assert!(document["paths"][PREDICTIONS]["post"].is_object(), "{document}");
    let features = &document["components"]["schemas"]["flights_prediction"]["properties"]["features"];
    assert!(features["properties"]["dep_delay_min"].is_object(), "{features}");
    // What it describes is what is taken: an object, or a line of NDJSON each.
    for (path, schema) in [(PREDICTIONS, "/oneOf/0"), (OUTCOMES, "")] {
        let body = &document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"];
        let schema = body.pointer(schema).unwrap()["$ref"].as_str().unwrap();
        assert!(document.pointer(schema.strip_prefix('#').unwrap()).is_some(), "{schema}");
        let answer = sidecar.client().await.post(path, r#"{"shared":{},"items":[]}"#).await;
        assert_eq!(answer.status, 422, "{answer:?}");
    }
    let handle = &document["components"]["schemas"]["flights_prediction"]["properties"]["feature_handle"];
    assert!(handle.is_null(), "a handle is answered with 422");
    sidecar.stop().await;
}
