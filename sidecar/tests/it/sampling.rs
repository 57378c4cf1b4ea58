//! Which predictions are kept: the same in every process, and as the configuration says now.

use flywheel_schemas::sampling::is_in;
use flywheel_sidecar::Config;
use serde_json::Value;

use crate::sidecar::{CONTRACT, PREDICTIONS, Place, Sidecar};

/// Ids of one minute of 2024, the same each run.
fn ids() -> Vec<String> {
    (0..200).map(|n| format!("018d0000-{:04x}-7{:03x}-8000-{n:012x}", n * 60, n * 7919 % 4096)).collect()
}

fn body(id: &str, late: f64) -> String {
    format!(
        r#"{{"prediction_id":"{id}","model_version":"1","features":{{"dep_delay_min":1}},"prediction":{{"late":{late}}}}}"#
    )
}

/// Sends all ids with one score; those that came into the spool.
async fn kept(place: &Place, sidecar: &Sidecar, late: f64) -> Vec<String> {
    let before = place.records("flights").len();
    let mut client = sidecar.client().await;
    let lines: Vec<String> = ids().iter().map(|id| body(id, late)).collect();
    let answer = client.batch(PREDICTIONS, lines.join("\n")).await;
    // Who is out is answered like any other.
    assert_eq!(answer.status, 202, "{answer:?}");
    assert_eq!(answer.json()["prediction_ids"], Value::from(ids()));
    place.records("flights").split_off(before).into_iter().map(|record| record.key).collect()
}

fn expected(rate: f64) -> Vec<String> {
    ids().into_iter().filter(|id| is_in(id.as_bytes(), rate)).collect()
}

/// Two sidecars, and one of them once more after a restart, keep the same.
#[tokio::test(flavor = "multi_thread")]
async fn the_same_ids_are_in_in_every_process() {
    let contract = format!("{CONTRACT}sampling: {{rate: 0.25}}\n");
    let (one, other) = (Place::new(), Place::new());
    for place in [&one, &other] {
        place.contract("flights.yaml", &contract);
        let sidecar = place.start().await;
        assert_eq!(kept(place, &sidecar, 0.5).await, expected(0.25));
        let (sampled_out, kept) = (200 - expected(0.25).len(), expected(0.25).len());
        let line = r#"flywheel_sampled_out_rows_total{model="flights",kind="predictions"}"#;
        assert_eq!(sidecar.metric(line).await, sampled_out as f64);
        assert!(kept > 25 && kept < 75, "{kept}");
        sidecar.stop().await;
    }
    let sidecar = one.start().await;
    assert_eq!(kept(&one, &sidecar, 0.5).await, expected(0.25));
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rate_of_the_configuration_goes_before_that_of_the_contract() {
    let mut place = Place::new();
    place.contract("flights.yaml", &format!("{CONTRACT}sampling: {{keep: [{{field: late, min: 0.8, rate: 1}}]}}\n"));
    place.config.sampling.insert("flights".to_owned(), 0.1);
    place.config.sampling.insert("nobody".to_owned(), 0.1);
    let sidecar = place.start().await;
    let rate = r#"flywheel_sampling_rate{model="flights"}"#;
    let fault = r#"flywheel_invalid_settings{source="configuration"}"#;
    assert_eq!(kept(&place, &sidecar, 0.5).await, expected(0.1));
    assert_eq!(kept(&place, &sidecar, 0.9).await, ids(), "the rule stays");
    assert_eq!(sidecar.metric(rate).await, 0.1);

    // From here on as SIGHUP does it: by the file.
    let file = place.dir.path().join("sidecar.toml");
    let again = async |text: &str| {
        std::fs::write(&file, text).unwrap();
        sidecar.handle.reload_with(Config::load(Some(&file), std::iter::empty())).await;
    };
    again("[sampling]\nflights = 0.5").await;
    assert_eq!((sidecar.metric(rate).await, sidecar.metric(fault).await), (0.5, 0.0));
    assert_eq!(kept(&place, &sidecar, 0.5).await, expected(0.5));

    for wrong in ["[sampling", "[sampling]\nflights = 2", "[samplign]\nflights = 0.2"] {
        again(wrong).await;
        assert_eq!((sidecar.metric(rate).await, sidecar.metric(fault).await), (0.5, 1.0), "{wrong}");
    }
    assert_eq!(kept(&place, &sidecar, 0.5).await, expected(0.5));

    again("").await;
    assert_eq!((sidecar.metric(rate).await, sidecar.metric(fault).await), (1.0, 0.0));
    assert_eq!(kept(&place, &sidecar, 0.5).await, ids());
    let stopped = sidecar.stop().await;
    assert_eq!((stopped.unforwarded, stopped.failed), (0, false));
}
