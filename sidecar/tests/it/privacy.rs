//! Private values end at the sidecar's memory: no file, log line, metric or answer has one in clear.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::client::{Client, eventually};
use crate::sidecar::{CONTRACT, PREDICTIONS, Place, Sidecar, prediction};

/// A private field of each kind in each block that can have one.
const PRIVATE: &str = "
apiVersion: flywheel/v1
kind: ModelContract
model: flights
version: 1
entity: {name: {type: string, privacy: hmac}, seat: {type: string}}
features:
  dep_delay_min: {type: int, required: true, expect: {min: -60, max: 2000}}
  phone: {type: string, privacy: drop}
  age: {type: int, privacy: drop, expect: {min: 0, max: 999999999}}
  card: {type: string, privacy: mask}
prediction: {late: {type: double, required: true}}
decision: {agent: {type: string, privacy: mask}}
context: {session: {type: string, privacy: hmac}}
labels:
  landed: {type: boolean, window: 12h, lateness: 1h, aggregate: any, default: false}
";

const OLD_KEY: &str = "old:MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
const NEW_KEY: &str = "new://////////////////////////////////////////8=";

/// What must be found nowhere. Each is unlike anything else, escapes and numbers too.
const SECRETS: [&str; 7] =
    ["Zsazsa-Q", "555-0199-77", "4242-4343-99", "Agnt-Xylo", "sess-Wq81", "73519284", "undecl-Kx"];
/// What is not private, and must be found where rows are kept: else the search shows nothing.
const CONTROL: &str = "seat-27F-control";

fn private(name: &str) -> String {
    let [_, phone, card, agent, session, age, _] = SECRETS;
    format!(
        r#"{{"model_version":"m1","entity":{{"name":"{name}","seat":"{CONTROL}"}},"features":{{"dep_delay_min":5,"phone":"{phone}","age":{age},"card":"{card}"}},"prediction":{{"late":0.5}},"decision":{{"agent":"{agent}"}},"context":{{"session":"{session}"}}}}"#
    )
}

fn key_file(place: &Place, text: &str) -> PathBuf {
    let path = place.dir.path().join("keys");
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    path
}

fn private_place(keys: &str) -> Place {
    let mut place = Place::new();
    place.contract("flights.yaml", PRIVATE);
    place.config.privacy.key_file = Some(key_file(&place, keys));
    place
}

/// Every file below a directory.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(self::files(&path)) } else { files.push(path) }
    }
    files
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// Looks for secrets, as they are and as base64 at each of its three offsets, in everything that the place holds.
fn assert_nowhere(place: &Place) {
    use base64::Engine as _;
    let mut found_control = 0;
    for path in files(place.dir.path()) {
        // The socket is no file that can be read.
        let Ok(bytes) = std::fs::read(&path) else { continue };
        found_control += usize::from(holds(&bytes, CONTROL));
        for secret in SECRETS {
            assert!(!holds(&bytes, secret), "{secret} is in {}", path.display());
            for shift in 0..3 {
                let text = base64::engine::general_purpose::STANDARD.encode([&"xx"[..shift], secret].concat());
                let inner = text.trim_end_matches('=');
                // The first and the last characters depend on what stands around.
                let inner = &inner[4.min(inner.len())..inner.len() - 1];
                assert!(!holds(&bytes, inner), "{secret} is in {} as base64", path.display());
            }
        }
    }
    assert!(found_control >= 2, "spool and log hold rows in clear, or else nothing is shown");
}

/// Bodies of every kind of wrong, each full of secrets.
fn refused() -> Vec<(&'static str, Vec<u8>)> {
    let [name, phone, card, agent, session, age, undeclared] = SECRETS;
    let good = private(name);
    let with = |from: &str, to: &str| {
        assert!(good.contains(from), "{from}");
        good.replace(from, to).into_bytes()
    };
    let json = "application/json";
    vec![
        (json, with(&format!("\"{name}\""), &format!("[\"{name}\"]"))),
        (json, with(&format!("\"{phone}\""), age)),
        (json, with(&format!("\"age\":{age}"), &format!("\"age\":\"{age}\""))),
        (json, with(&format!("\"age\":{age}"), &format!("\"age\":{age}{age}"))),
        (json, with(&format!("\"age\":{age}"), &format!("\"age\":{age}.5"))),
        (json, with("\"dep_delay_min\":5", &format!("\"dep_delay_min\":{age}"))),
        (json, with("\"card\"", &format!("\"{undeclared}\""))),
        (json, with("\"decision\"", &format!("\"{undeclared}\":\"{agent}\",\"decision\""))),
        (json, with("\"context\":{", &format!("\"context\":{{\"{undeclared}\":{{\"{session}\":1}},"))),
        (json, with("\"model_version\":\"m1\"", &format!("\"model_version\":\"m1\",\"event_time\":\"{name}\""))),
        (json, with("\"model_version\":\"m1\"", &format!("\"model_version\":\"m1\",\"prediction_id\":\"{card}\""))),
        (json, with("\"model_version\":\"m1\"", &format!("\"model_version\":\"m1\",\"exposure\":\"{card}\""))),
        // Malformed: cut within a secret, an escape that is none, a control character, no UTF-8, no object, two objects.
        (json, good.as_bytes()[..good.find(session).unwrap() + 6].to_vec()),
        (json, with(card, &format!("{card}\\q"))),
        (json, with(card, &format!("{card}\\ud800"))),
        (json, with(card, &format!("{card}\n"))),
        (json, [with(card, card), vec![0xff]].concat()),
        (json, format!("[{good}]").into_bytes()),
        (json, format!("\"{card}\"").into_bytes()),
        (json, format!("{good}{good}").into_bytes()),
        (json, card.as_bytes().to_vec()),
        // Over-long, with a secret at the beginning, which is what would be kept.
        (json, with(&format!("\"{phone}\""), &format!("\"{phone}{}\"", "x".repeat(3000)))),
        (
            "application/x-ndjson",
            format!("{good}\n{}\n{}", &good[..100], good.replace("0.5", &format!("\"{card}\""))).into_bytes(),
        ),
        ("application/x-ndjson", vec![good.as_str(); 40].join("\n").into_bytes()),
        (json, format!(r#"{{"shared":{{"{undeclared}":"{card}"}},"items":[{good}]}}"#).into_bytes()),
        (json, format!(r#"{{"shared":{{"context":{{"session":"{session}"}}}},"items":[{good}]}}"#).into_bytes()),
        ("text/plain", good.clone().into_bytes()),
    ]
}

/// The real binary, with all that it can log.
#[tokio::test(flavor = "multi_thread")]
async fn no_private_value_is_found_in_files_logs_metrics_or_answers() {
    let mut place = private_place(&format!("{NEW_KEY}\n{OLD_KEY}\n"));
    place.config.limits.body_bytes = 2000;
    place.config.limits.batch_rows = 4;
    place.config.telemetry.filter = "trace".to_owned();
    let config = place.dir.path().join("sidecar.toml");
    std::fs::write(&config, place.config.to_toml()).unwrap();
    let log = place.dir.path().join("stderr.log");
    let mut command = Command::new(env!("CARGO_BIN_EXE_flywheel-sidecar"));
    let stderr = std::fs::File::create(&log).unwrap();
    let mut process = command.arg("--config").arg(&config).stdout(Stdio::null()).stderr(stderr).spawn().unwrap();
    eventually("it listens", async || tokio::net::UnixStream::connect(place.uds()).await.is_ok()).await;

    let mut answers = Vec::new();
    let mut uds = Client::uds(place.uds()).await;
    for _ in 0..3 {
        let answer = uds.post(PREDICTIONS, private(SECRETS[0])).await;
        assert_eq!(answer.status, 202, "{answer:?}");
    }
    let answer = uds.batch(PREDICTIONS, [private(SECRETS[0]), private("x")].join("\n")).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    let refused = refused();
    for (ty, body) in &refused {
        // Some of them end the connection.
        let mut client = Client::uds(place.uds()).await;
        let answer = client.post_with(PREDICTIONS, ty, "", body).await;
        assert!([207, 413, 415, 422].contains(&answer.status), "{answer:?}: {}", String::from_utf8_lossy(body));
        answers.push(answer);
    }
    let outcome = format!(r#"{{"prediction_id":"{0}","labels":{{"{0}":true}},"source":3}}"#, SECRETS[6]);
    answers.push(uds.post("/v1/models/flights/outcomes", outcome).await);
    for answer in &answers {
        // The last secret stands for keys that nobody declared: the pointer leads the client there.
        for secret in &SECRETS[..6] {
            assert!(!holds(&answer.body, secret), "{secret} is in {}", answer.text());
        }
    }
    // What it says of itself, while it runs; the rows have reached the log by then.
    let log_text = std::fs::read_to_string(&log).unwrap();
    let admin =
        log_text.lines().find_map(|line| line.split_once("admin=")).unwrap().1.split_whitespace().next().unwrap();
    let mut admin = Client::tcp(admin.parse().unwrap()).await;
    let delivered = r#"flywheel_delivered_records_total{spool="flights",kind="prediction"} 6"#;
    let mut metrics = String::new();
    eventually("rows are in the log", async || {
        metrics = admin.get("/metrics").await.text();
        metrics.contains(delivered)
    })
    .await;
    let letters = r#"flywheel_dead_letters_total{result="kept"} 28"#;
    assert!(metrics.contains(letters), "{metrics}");
    assert!(SECRETS.iter().all(|secret| !metrics.contains(secret)), "{metrics}");
    assert_nowhere(&place);

    Command::new("kill").arg("-TERM").arg(process.id().to_string()).status().unwrap();
    eventually("it ends", async || process.try_wait().unwrap().is_some()).await;
    assert_nowhere(&place);
    let log_text = std::fs::read_to_string(&log).unwrap();
    assert!(log_text.contains("TRACE") || log_text.contains("DEBUG"), "the log is at its finest:\n{log_text}");
    assert!(!log_text.contains(CONTROL), "a log holds no payloads, private or not");
    assert!(!log_text.contains(&OLD_KEY[4..20]) && !log_text.contains(&NEW_KEY[4..20]), "nor keys");
}

/// The pseudonyms of the rows in the spool: of the entity's name, in order.
fn names(place: &Place) -> Vec<String> {
    let texts = place.records("flights").into_iter().map(|record| {
        let at = record.datum.windows(4).position(|four| four == b"new:" || four == b"old:").unwrap();
        String::from_utf8(record.datum[at..at + 47].to_vec()).unwrap()
    });
    texts.collect()
}

/// What `flywheel-sidecar pseudonym` says of a text.
fn pseudonyms(key_file: &Path, text: &str) -> Vec<String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flywheel-sidecar"));
    command.arg("pseudonym").arg("--key-file").arg(key_file);
    let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut process.stdin.take().unwrap(), text.as_bytes()).unwrap();
    let output = process.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_rotated_and_old_rows_are_still_found() {
    let place = private_place(&format!("{OLD_KEY}\n"));
    place.contract("other.yaml", &PRIVATE.replace("model: flights", "model: other"));
    let sidecar = place.start().await;
    let mut client = sidecar.client().await;
    let mut send = async |body: String| assert_eq!(client.post(PREDICTIONS, body).await.status, 202);
    send(private("Zoë")).await;
    send(private("Jim")).await;

    let keys = key_file(&place, &format!("# rotated\n{NEW_KEY}\n{OLD_KEY}\n"));
    sidecar.handle.reload().await;
    send(private("Zoë")).await;
    // A key file with a fault leaves the keys in force.
    key_file(&place, "new:c2hvcnQ=\n");
    sidecar.handle.reload().await;
    let fault = r#"flywheel_invalid_settings{source="key_file"}"#;
    assert_eq!((sidecar.metric(fault).await, sidecar.metric("flywheel_invalid_contracts").await), (1.0, 0.0));
    send(private("Zoë")).await;
    key_file(&place, &format!("{NEW_KEY}\n{OLD_KEY}\n"));
    sidecar.handle.reload().await;
    assert_eq!(sidecar.metric(fault).await, 0.0);

    let [new, old] = pseudonyms(&keys, "Zoë\n").try_into().unwrap();
    let [_, jim] = pseudonyms(&keys, "Jim").try_into().unwrap();
    assert!(new.starts_with("new:") && old.starts_with("old:"), "{new} {old}");
    assert_eq!(names(&place), [&old, &jim, &new, &new].map(String::clone));

    // Another model and another pod give a person the same name.
    let mut client = sidecar.client().await;
    assert_eq!(client.post("/v1/models/other/predictions", private("Zoë")).await.status, 202);
    assert!(place.records("other")[0].holds(&new));
    let elsewhere = private_place(&format!("{NEW_KEY}\n"));
    let pod = elsewhere.start().await;
    assert_eq!(pod.client().await.post(PREDICTIONS, private("Zoë")).await.status, 202);
    assert_eq!(names(&elsewhere), [new]);
    pod.stop().await;
    sidecar.stop().await;
}

async fn is_ready(sidecar: &Sidecar) -> bool {
    Client::tcp(sidecar.admin).await.get("/readyz").await.status == 200
}

#[tokio::test(flavor = "multi_thread")]
async fn a_contract_whose_values_cannot_be_hidden_is_not_in_force() {
    for keys in [None, Some("k:c2hvcnQ=\n")] {
        let mut place = Place::new();
        place.contract("private.yaml", &PRIVATE.replace("model: flights", "model: private"));
        place.config.privacy.key_file = keys.map(|keys| key_file(&place, keys));
        let sidecar = place.start().await;
        let mut client = sidecar.client().await;
        assert_eq!(client.post("/v1/models/private/predictions", private("Zoë")).await.status, 404);
        assert_eq!(client.post(PREDICTIONS, prediction(1)).await.status, 202, "the other goes on");
        assert!(!is_ready(&sidecar).await);
        assert_eq!(sidecar.metric("flywheel_invalid_contracts").await, 1.0);
        if keys.is_some() {
            key_file(&place, OLD_KEY);
            sidecar.handle.reload().await;
            assert!(is_ready(&sidecar).await);
            assert_eq!(client.post("/v1/models/private/predictions", private("Zoë")).await.status, 202);
        }
        sidecar.stop().await;
    }
}

/// A version that hides a field comes into force only with the key; until then the one before goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_needs_a_key_waits_for_it() {
    let mut place = Place::new();
    let keys = place.dir.path().join("keys");
    place.config.privacy.key_file = Some(keys);
    let sidecar = place.start().await;
    let second = CONTRACT
        .replace("version: 1", "version: 2")
        .replace("carrier: {type: string}", "carrier: {type: string, privacy: hmac}");
    place.contract("flights.yaml", &second);
    sidecar.handle.reload().await;
    let version = r#"flywheel_contract_version{model="flights"}"#;
    assert_eq!(sidecar.metric(version).await, 1.0);
    key_file(&place, OLD_KEY);
    sidecar.handle.reload().await;
    assert_eq!(sidecar.metric(version).await, 2.0);
    let answer = sidecar.client().await.post(PREDICTIONS, prediction(1)).await;
    assert_eq!(answer.json()["prediction_id"], Value::from(place.records("flights")[0].key.as_str()));
    assert!(place.records("flights")[0].holds("old:"));
    sidecar.stop().await;
}
