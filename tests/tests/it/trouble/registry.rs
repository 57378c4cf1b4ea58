//! A registry that does not answer as it should, and then does: the sidecar asks it by text, the joiner by id.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use flywheel_schemas::avro::prediction_schema;
use flywheel_schemas::contract::Contract;
use flywheel_schemas::registry::{Registry, RegistryConfig};
use flywheel_schemas::wire::{self, Kind};
use flywheel_tests::readers::duckdb_sql;
use flywheel_tests::servers::{shared, skipped};
use flywheel_tests::system::{self, JSON, System, until};
use futures::future::join_all;

use super::{MODEL, Plan, Sidecar, once_or_more_in_order, predictions, registered, topics};
use crate::DEMONSTRATION;
use crate::bad_input::messages::{Foreign, datum, framed, id_at_home};

/// How it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// As the registry behind it.
    Sound,
    Status(u16),
    /// 429, with the wait in seconds that it asks for.
    Later(u64),
    Garbage,
    Redirect,
    /// It takes the request and says nothing.
    Silent,
}

const MANNERS: [Manner; 7] = [
    Manner::Status(401),
    Manner::Status(404),
    Manner::Later(3),
    Manner::Status(500),
    Manner::Garbage,
    Manner::Redirect,
    Manner::Silent,
];

/// Stands before the shared registry.
#[derive(Clone)]
struct Gateway {
    manner: Arc<Mutex<Manner>>,
    /// When the predictions' subject or a schema was asked for.
    calls: Arc<Mutex<Vec<Instant>>>,
    url: String,
}

impl Gateway {
    async fn start(manner: Manner) -> Gateway {
        // Not from within a request, since it may have to start.
        tokio::task::spawn_blocking(shared).await.unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let gateway = Gateway { manner: Arc::new(Mutex::new(manner)), calls: Arc::default(), url };
        let app = Router::new().fallback(answer).with_state(gateway.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        gateway
    }

    fn is_now(&self, manner: Manner) {
        *self.manner.lock().unwrap() = manner;
    }

    fn calls(&self) -> Vec<Instant> {
        self.calls.lock().unwrap().clone()
    }
}

async fn answer(State(gateway): State<Gateway>, request: Request) -> Response {
    let path = request.uri().path();
    if path.contains("predictions") || path.contains("/schemas/ids/") {
        gateway.calls.lock().unwrap().push(Instant::now());
    }
    let manner = *gateway.manner.lock().unwrap();
    match manner {
        Manner::Sound => hand_on(request).await,
        Manner::Status(status) => {
            let said = format!(r#"{{"error_code":{status},"message":"no"}}"#);
            (StatusCode::from_u16(status).unwrap(), said).into_response()
        }
        Manner::Later(seconds) => {
            (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, seconds.to_string())], "slower").into_response()
        }
        Manner::Garbage => "<html>Welcome</html>".into_response(),
        Manner::Redirect => (StatusCode::FOUND, [(header::LOCATION, "http://127.0.0.1:1/login")]).into_response(),
        Manner::Silent => std::future::pending().await,
    }
}

/// The answer of the shared registry.
pub async fn hand_on(request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let url = format!("{}{}", shared().registry.address(), head.uri);
    let mut onward = reqwest::Client::new().request(head.method, url).body(body);
    if let Some(media) = head.headers.get(header::CONTENT_TYPE) {
        onward = onward.header(header::CONTENT_TYPE, media);
    }
    let answer = onward.send().await.unwrap();
    let (status, body) = (answer.status(), answer.bytes().await.unwrap());
    (status, body).into_response()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_in_trouble_holds_what_is_forwarded() {
    if skipped("a_registry_in_trouble_holds_what_is_forwarded") {
        return;
    }
    join_all(MANNERS.iter().enumerate().map(|(number, manner)| look_up_by_text(number, *manner))).await;
}

async fn look_up_by_text(number: usize, manner: Manner) {
    let gateway = Gateway::start(manner).await;
    let (prefix, servers) = (format!("registry_{number}"), shared().kafka.address());
    topics(servers, &prefix).await;
    registered(shared().registry.address(), &prefix).await;
    let mut sidecar = Sidecar::start(Plan { registry: Some(&gateway.url), ..Plan::new(&prefix, servers) }).await;
    sidecar.post(20).await;
    let (cause, alarm) = match manner {
        Manner::Status(401) => ("denied", true),
        Manner::Status(404) => ("schema", true),
        Manner::Garbage | Manner::Redirect => ("registry", true),
        _ => ("registry", false),
    };
    sidecar.until_blocked(cause, alarm).await;
    // It is asked again, and not in haste: the waits between are at least half of 0.1, 0.2, 0.4 … 10 seconds.
    // Each call of a silent one takes its whole time-out.
    let enough = if manner == Manner::Silent { 2 } else { 3 };
    until("asked again", async || gateway.calls().len() >= enough).await;
    let calls = gateway.calls();
    let asked_for = calls[calls.len() - 1] - calls[0];
    let shortest = |waits: usize| Duration::from_millis(50) * ((1 << waits.min(7)) - 1);
    assert!(asked_for >= shortest(calls.len() - 1), "{manner:?}: {} calls in {asked_for:?}", calls.len());
    if let Manner::Later(seconds) = manner {
        let kept = calls.windows(2).all(|pair| pair[1] - pair[0] >= Duration::from_secs(seconds));
        assert!(kept, "asked within {seconds} s: {calls:?}");
    }
    assert_eq!(sidecar.delivered().await, 0);
    gateway.is_now(Manner::Sound);
    sidecar.until_well().await;
    sidecar.service.stop().await;
    once_or_more_in_order(servers, &prefix, 1..=20);
}

const PARTITIONS: i32 = 2;
const CONTRACT: &str = "apiVersion: flywheel/v1\nkind: ModelContract\nmodel: m\nversion: 1\nfeatures:\n  n: {type: long}\n\
                        prediction:\n  score: {type: double}\n";

/// The contract of a version, each with a feature more than the one before.
fn version(number: usize) -> (Contract, String) {
    let more: String = (2..=number).map(|it| format!("  n{it}: {{type: long}}\n")).collect();
    let text =
        CONTRACT.replace("version: 1", &format!("version: {number}")).replace("prediction:", &(more + "prediction:"));
    (Contract::parse(&text).unwrap(), text)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_in_trouble_holds_what_is_landed() {
    if skipped("a_registry_in_trouble_holds_what_is_landed") {
        return;
    }
    let (gateway, prefix) = (Gateway::start(Manner::Sound).await, "registry_by_id");
    let (dir, set, (contract, yaml)) = (tempfile::tempdir().unwrap(), shared(), version(1));
    let plan = system::Plan {
        program: DEMONSTRATION,
        dir: dir.path(),
        set,
        registry: &gateway.url,
        contract: &contract,
        yaml: &yaml,
        prefix,
        partitions: PARTITIONS,
        batch_rows: 10,
    };
    let mut system = System::start(&plan).await.unwrap();
    let url = set.registry.address().to_owned();
    let registry = Registry::open(&RegistryConfig { url, ..RegistryConfig::default() }).unwrap();
    let (foreign, topic) = (Foreign::new(set.kafka.address()), predictions(prefix));
    let duckdb = set.python(prefix).duckdb().unwrap();
    let landed = async || {
        let rows = duckdb_sql(&duckdb, "SELECT prediction_id FROM m_predictions ORDER BY 1").unwrap_or_default();
        rows.iter().map(|row| row[0].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    // When the first row has landed, the joiner knows what is registered by then, and asks for what comes later by its id.
    let row = r#"{"model_version":"1","features":{"n":1},"prediction":{"score":0.5}}"#;
    let answer = system.post(Kind::Predictions, JSON, row).await;
    let mut sent = vec![answer.body["prediction_id"].as_str().unwrap().to_owned()];
    until("the first row", async || landed().await == sent).await;
    for (number, manner) in (2..).zip(MANNERS) {
        gateway.is_now(manner);
        let (contract, _) = version(number);
        let schema = registry.register(&wire::subject(&topic), &prediction_schema(&contract)).await.unwrap();
        let now_ms = i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap();
        let row = id_at_home(now_ms, 0, PARTITIONS).to_string();
        let value = framed(schema, &datum(&contract, &row, now_ms * 1000, &[]));
        foreign.put(&topic, 0, Some(&row), Some(&value)).await;
        sent.push(row);
        const WAITS: &str = "flywheel_joiner_partition_waits";
        let labels = [("model", MODEL), ("kind", "predictions"), ("partition", "0")];
        let waits = async || system.joiner.metrics().await.sum(WAITS, &labels) == 1;
        until(&format!("{manner:?}: the alarm"), waits).await;
        let before = gateway.calls().len();
        until(&format!("{manner:?}: asked again"), async || gateway.calls().len() >= before + 2).await;
        assert!(waits().await);
        gateway.is_now(Manner::Sound);
        until(&format!("{manner:?}: the end of the alarm"), async || !waits().await).await;
    }
    sent.sort();
    until("all rows", async || landed().await.len() >= sent.len()).await;
    assert_eq!(landed().await, sent);
    let log = system.joiner.log();
    assert!(log.lines().any(|line| line.contains("ERROR") && line.contains("partition waits")), "{log}");
    system.joiner.stop().await;
}
