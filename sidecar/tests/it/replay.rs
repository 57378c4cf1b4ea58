//! Replay: the client's clock is the only one.

use flywheel_sidecar::record::RecordKind;
use serde_json::json;

use crate::sidecar::{OUTCOMES, PREDICTIONS, Place, TIME, outcome, prediction};

/// 2013-01-01T10:00:00Z.
const START_MS: i64 = 1_357_034_400_000;
const MINUTE_MS: i64 = 60_000;

fn at(minute: i64) -> String {
    (START_MS + minute * MINUTE_MS).to_string()
}

/// Kinds, and minutes after the start.
fn order(place: &Place) -> Vec<(RecordKind, i64)> {
    let records = place.records("flights");
    records.into_iter().map(|record| (record.kind, (record.time_ms - START_MS) / MINUTE_MS)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_order_of_the_spool_is_the_order_of_time() {
    use RecordKind::{Outcome, Prediction, Time};
    let mut place = Place::new();
    place.config.replay = true;
    let sidecar = place.start().await;
    let mut client = sidecar.client().await;
    let answer = client.post_at(PREDICTIONS, "2013-01-01T10:07:00Z", prediction(1)).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    let id = answer.json()["prediction_id"].as_str().unwrap().to_owned();
    // Nothing passes before the first time there is.
    assert_eq!(order(&place), [(Prediction, 7)]);

    assert_eq!(client.post_at(OUTCOMES, &at(16), outcome(&id)).await.status, 202);
    assert_eq!(client.post_at(PREDICTIONS, &at(16), prediction(2)).await.status, 202);
    let before = [(Prediction, 7), (Time, 10), (Time, 15), (Outcome, 16), (Prediction, 16)];
    assert_eq!(order(&place), before);

    for (path, body) in [(PREDICTIONS, prediction(1)), (OUTCOMES, outcome(&id)), (TIME, String::new())] {
        let answer = client.post_at(path, &at(15), body).await;
        assert_eq!((answer.status, &answer.json()["type"]), (409, &json!("urn:flywheel:problem:time_went_back")));
    }
    for time in ["", "noon", "-1", &at(16 + 401 * 24 * 60)] {
        assert_eq!(client.post_at(PREDICTIONS, time, prediction(1)).await.status, 400, "{time}");
    }
    assert_eq!(client.post(PREDICTIONS, prediction(1)).await.status, 400, "without a time");
    // A refused body moves nothing.
    assert_eq!(client.post_at(PREDICTIONS, &at(60), "{").await.status, 422);
    assert_eq!(order(&place), before);

    assert_eq!(client.post_at(TIME, &at(25), "").await.status, 202);
    assert_eq!(order(&place)[5..], [(Time, 20), (Time, 25)]);
    let stopped = sidecar.stop().await;
    assert_eq!((stopped.unforwarded, stopped.failed), (0, false));

    // The last time survives, whether its record is still in the spool or only in the cursor's note.
    let sidecar = place.start().await;
    let mut client = sidecar.client().await;
    assert_eq!(client.post_at(PREDICTIONS, &at(24), prediction(1)).await.status, 409);
    assert_eq!(client.post_at(PREDICTIONS, &at(31), prediction(1)).await.status, 202);
    assert_eq!(order(&place)[7..], [(Time, 30), (Prediction, 31)]);
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn time_is_one_per_model() {
    let mut place = Place::new();
    place.config.replay = true;
    place.contract("other.yaml", &crate::sidecar::CONTRACT.replace("model: flights", "model: other"));
    let sidecar = place.start().await;
    let mut client = sidecar.client().await;
    assert_eq!(client.post_at(PREDICTIONS, &at(60), prediction(1)).await.status, 202);
    assert_eq!(client.post_at("/v1/models/other/predictions", &at(1), prediction(1)).await.status, 202);
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_requests_of_one_instant_keep_the_order() {
    let mut place = Place::new();
    place.config.replay = true;
    let sidecar = place.start().await;
    for minute in 0..8 {
        let posts = (0..8).map(|_| async {
            let mut client = sidecar.client().await;
            client.post_at(PREDICTIONS, &at(minute * 4), prediction(1)).await.status
        });
        assert!(futures::future::join_all(posts).await.into_iter().all(|status| status == 202));
    }
    sidecar.stop().await;
    let times: Vec<_> = place.records("flights").into_iter().map(|record| record.time_ms).collect();
    assert!(times.is_sorted(), "{times:?}");
    assert_eq!(order(&place).iter().filter(|(kind, _)| *kind == RecordKind::Time).count(), 6);
}
