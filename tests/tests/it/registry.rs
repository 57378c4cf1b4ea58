//! What follows from contracts, against the real registry and the real Kafka: that the registry's rules and the contract
//! language's agree, that `register` sets up what it says it does, and who is let in, by the registry and by the brokers.

mod access;
pub mod brokers;
mod register;

use std::process::Command;

use flywheel_schemas::avro::{contract_of, outcome_schema, prediction_schema};
use flywheel_schemas::contract::Contract;
use flywheel_schemas::evolution::{Change, admit, diff};
use flywheel_schemas::register::{RegisterError, register};
use flywheel_schemas::registry::{Registry, RegistryConfig, RegistryErrorKind};
use flywheel_schemas::testing::{Seen, chains, contradictions};
use flywheel_tests::servers::{shared, skipped};
use proptest::prelude::*;
use proptest::test_runner::{FileFailurePersistence, TestRunner};
use tokio::runtime::Runtime;

/// What a command said and how it ended.
#[derive(Debug)]
struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

/// Runs `flywheel-schemas` as a process.
fn schemas(arguments: &[&str]) -> Said {
    let output = Command::new(env!("CARGO_BIN_EXE_schemas")).args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Said { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

fn opened(url: &str) -> Registry {
    Registry::open(&RegistryConfig { url: url.to_owned(), ..RegistryConfig::default() }).unwrap()
}

/// A name that no other case or run has.
fn unique(word: &str) -> String {
    format!("{word}-{}", uuid::Uuid::new_v4().simple())
}

fn allowed(changes: &[Change]) -> bool {
    changes.iter().all(Change::is_compatible)
}

/// Runs `cases` of a property whose every case costs dozens of calls; a failure says its seed and the file that keeps it.
fn check<S: Strategy>(cases: u32, strategy: S, property: impl Fn(S::Value) -> Result<(), TestCaseError>) {
    let config = ProptestConfig {
        cases,
        // Each step of shrinking costs as much as a case.
        max_shrink_iters: 100,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        source_file: Some(file!()),
        ..ProptestConfig::default()
    };
    if let Err(error) = TestRunner::new(config).run(&strategy, property) {
        panic!("{error}");
    }
}

/// A subject's compatibility level, as the registry says it.
async fn level(url: &str, subject: &str) -> String {
    let answer = reqwest::get(format!("{url}/config/{subject}")).await.unwrap();
    let answer: serde_json::Value = answer.json().await.unwrap();
    answer["compatibilityLevel"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn the_registry_takes_every_chain_of_adds_and_drops() {
    if skipped("the_registry_takes_every_chain_of_adds_and_drops") {
        return;
    }
    let (url, runtime) = (shared().registry.address(), Runtime::new().unwrap());
    let registry = opened(url);
    check(12, chains(3), |chain| {
        let case = unique("chain");
        runtime.block_on(async {
            for (index, contract) in chain.iter().enumerate() {
                prop_assert!(allowed(&admit(&chain[..index], contract)));
                for (kind, text) in [("p", prediction_schema(contract)), ("o", outcome_schema(contract))] {
                    let parsed = apache_avro::Schema::parse_str(&text);
                    prop_assert!(parsed.is_ok(), "{parsed:?}\n{text}");
                    let subject = format!("{case}.{kind}");
                    let answer = registry.register(&subject, &text).await;
                    prop_assert!(answer.is_ok(), "version {}: {answer:?}\n{text}", index + 1);
                    let id = answer.ok();
                    prop_assert_eq!(registry.look_up(&subject, &text).await.unwrap(), id);
                    // What comes back carries the contract, whatever order its attributes have now.
                    let kept = registry.latest(&subject).await.unwrap().unwrap();
                    prop_assert_eq!(Some(kept.id), id);
                    prop_assert_eq!(contract_of(&kept.text).unwrap().to_json(), contract.to_json());
                    prop_assert_eq!(level(url, &subject).await, "FULL_TRANSITIVE");
                }
            }
            Ok(())
        })
    });
}

#[test]
fn the_registry_refuses_what_contradicts_and_register_what_the_registry_cannot_see() {
    if skipped("the_registry_refuses_what_contradicts_and_register_what_the_registry_cannot_see") {
        return;
    }
    let (url, runtime) = (shared().registry.address(), Runtime::new().unwrap());
    let registry = opened(url);
    check(30, contradictions(), |pair| {
        let case = unique("pair");
        runtime.block_on(async {
            prop_assert!(!allowed(&diff(&pair.old, &pair.new)), "diff allows it");
            let subject = format!("{case}.alone");
            let (old, new) = (prediction_schema(&pair.old), prediction_schema(&pair.new));
            registry.register(&subject, &old).await.unwrap();
            let answer = registry.register(&subject, &new).await.map_err(|error| error.kind());
            match pair.seen {
                Seen::Always => prop_assert_eq!(answer, Err(RegistryErrorKind::Incompatible), "{}\n{}", old, new),
                Seen::Never => prop_assert!(answer.is_ok(), "{answer:?}\n{old}\n{new}"),
                Seen::Sometimes => {}
            }
            // By its contract it is refused in any case, before anything is written.
            refuses(&registry, &case, &pair.old, &pair.new).await;
            Ok(())
        })
    });
}

/// `register` takes `old` and refuses `new`, of which nothing reaches the registry.
async fn refuses(registry: &Registry, prefix: &str, old: &Contract, new: &Contract) -> Vec<Change> {
    let done = register(old, registry, prefix).await.unwrap();
    let changes = match register(new, registry, prefix).await {
        Err(RegisterError::Refused(changes)) => changes,
        other => panic!("not refused: {other:?}"),
    };
    for subject in &done.subjects {
        assert_eq!(registry.versions(&subject.name).await.unwrap().len(), 1, "{}", subject.name);
    }
    changes.into_iter().filter(|change| !change.is_compatible()).collect()
}

/// What the Avro schemas do not show, or Avro resolves: the registry takes it, so `register` must not.
#[tokio::test]
async fn what_a_registry_does_not_see_is_refused_by_register() {
    if skipped("what_a_registry_does_not_see_is_refused_by_register") {
        return;
    }
    const OLD: &str = "apiVersion: flywheel/v1\nkind: ModelContract\nmodel: m\nversion: 1\n\
                       features: {price: {type: 'decimal(10,2)'}, day: {type: date}, name: {type: string}}\n\
                       labels: {paid: {type: boolean, window: 1d, lateness: 1h, aggregate: any, default: false}}\n";
    let registry = opened(shared().registry.address());
    for (from, to, path) in [
        ("decimal(10,2)", "decimal(10,3)", "features.price.type"),
        ("type: date", "type: int", "features.day.type"),
        ("type: string", "type: bytes", "features.name.type"),
        ("window: 1d", "window: 2d", "labels.paid.window"),
        ("default: false", "default: true", "labels.paid.default"),
        ("features:", "ids: caller\nfeatures:", "ids"),
        ("features:", "seal: {grid: 10m}\nfeatures:", "seal.grid"),
    ] {
        let old = Contract::parse(OLD).unwrap();
        let new = Contract::parse(&OLD.replace("version: 1", "version: 2").replace(from, to)).unwrap();
        let prefix = unique("unseen");
        let subject = format!("{prefix}.alone");
        registry.register(&subject, &prediction_schema(&old)).await.unwrap();
        registry.register(&subject, &prediction_schema(&new)).await.unwrap_or_else(|error| panic!("{path}: {error}"));
        let paths: Vec<String> = refuses(&registry, &prefix, &old, &new).await.into_iter().map(|it| it.path).collect();
        assert_eq!(paths, [path]);
    }
}
