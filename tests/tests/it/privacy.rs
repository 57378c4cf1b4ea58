//! Private values are in no topic and in no table, whether a row was accepted or refused.

use std::os::unix::fs::PermissionsExt;

use flywheel_schemas::contract::Contract;
use flywheel_schemas::wire::{self, Kind};
use flywheel_tests::readers::duckdb_sql;
use flywheel_tests::servers::{shared, skipped};
use flywheel_tests::system::{JSON, Plan, System, until};

use crate::DEMONSTRATION;
use crate::trouble::records;

const CONTRACT: &str = "
apiVersion: flywheel/v1
kind: ModelContract
model: m
version: 1
entity: {name: {type: string, privacy: hmac}, seat: {type: string}}
features: {phone: {type: string, privacy: drop}, n: {type: long}}
prediction: {card: {type: string, privacy: mask}}
labels: {won: {type: boolean, window: 1h, lateness: 1m, aggregate: any}}
";
/// Unlike anything else.
const SECRETS: [&str; 3] = ["Zsazsa-Q", "555-0199-77", "4242-4343-99"];
/// What is not private, and must be found: else the search shows nothing.
const CONTROL: &str = "seat-27F-control";

fn row(n: &str) -> String {
    let [name, phone, card] = SECRETS;
    format!(
        r#"{{"model_version":"1","entity":{{"name":"{name}","seat":"{CONTROL}"}},"features":{{"phone":"{phone}","n":{n}}},"prediction":{{"card":"{card}"}}}}"#
    )
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_private_value_is_in_a_topic_or_a_table() {
    if skipped("no_private_value_is_in_a_topic_or_a_table") {
        return;
    }
    let (dir, set, prefix) = (tempfile::tempdir().unwrap(), shared(), "privacy");
    let keys = dir.path().join("keys");
    std::fs::write(&keys, "one:MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=").unwrap();
    std::fs::set_permissions(&keys, std::fs::Permissions::from_mode(0o600)).unwrap();
    let contract = Contract::parse(CONTRACT).unwrap();
    let plan = Plan {
        program: DEMONSTRATION,
        dir: dir.path(),
        set,
        registry: set.registry.address(),
        contract: &contract,
        yaml: CONTRACT,
        prefix,
        partitions: 1,
        batch_rows: 10,
    };
    let mut system = System::start(&plan).await.unwrap();
    assert_eq!(system.post(Kind::Predictions, JSON, row("1")).await.status, 202);
    // A fault beside the secrets, a fault in a secret's place, and no JSON at all.
    for body in [row("\"x\""), row("1").replace("\"phone\":", "\"phone\":[],\"fax\":"), row("1")[..120].to_owned()] {
        assert_eq!(system.post(Kind::Predictions, JSON, body).await.status, 422);
    }
    let duckdb = set.python(prefix).duckdb().unwrap();
    let text = |table: &str| {
        let rows = duckdb_sql(&duckdb, &format!("SELECT to_json(t)::VARCHAR FROM {table} t")).unwrap_or_default();
        rows.iter().map(|row| row[0].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    until("the row and the letters", async || text("m_predictions").len() == 1 && text("dead_letter").len() == 3).await;
    let kept = text("m_predictions").concat() + &text("dead_letter").concat();
    assert!(kept.contains(CONTROL) && kept.contains("***"), "{kept}");
    let letters = system.joiner.command("dead-letter list").unwrap();
    assert_eq!(letters.lines().count(), 3, "{letters}");
    for letter in letters.lines() {
        let letter: serde_json::Value = serde_json::from_str(letter).unwrap();
        assert!(letter["reason"].is_string() && letter["model"] == "m", "{letter}");
    }
    let mut bytes = (kept + &letters).into_bytes();
    let topics =
        [wire::topic(prefix, "m", Kind::Predictions), wire::dead_letter_topic(prefix), wire::ledger_topic(prefix)];
    for topic in topics {
        let found = records(set.kafka.address(), &topic).concat();
        bytes.extend(found.into_iter().flat_map(|(_, value)| value));
    }
    assert!(bytes.windows(CONTROL.len()).filter(|window| *window == CONTROL.as_bytes()).count() >= 2);
    for secret in SECRETS {
        assert!(!holds(&bytes, secret), "{secret}: {}", String::from_utf8_lossy(&bytes));
    }
    system.sidecar.stop().await;
    system.joiner.stop().await;
}
