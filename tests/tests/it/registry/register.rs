//! `flywheel-schemas` from end to end: what it prints, and what it makes of topics.

use std::path::Path;
use std::time::Duration;

use flywheel_tests::servers::{shared, skipped};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::RDKafkaErrorCode;
use serde_json::Value;

use super::{Said, schemas, unique};

const CONTRACT: &str = "apiVersion: flywheel/v1
kind: ModelContract
model: m
version: 1
description: Will it be paid?
entity: {user: {type: string, required: true}}
features: {price: {type: 'decimal(10,2)', unit: EUR}}
prediction: {probability: {type: double, required: true, expect: {min: 0, max: 1}}}
labels: {paid: {type: boolean, window: 1d, lateness: 1h, aggregate: any, default: false}}
";

fn write(dir: &Path, name: &str, text: &str) -> String {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

/// Ends with `code`; both texts, for what they must hold.
#[track_caller]
fn ends(said: Said, code: i32) -> (String, String) {
    assert_eq!(said.code, Some(code), "{said:?}");
    (said.out, said.err)
}

#[track_caller]
fn says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "`{part}` is not in:\n{text}");
    }
}

type Admin = AdminClient<DefaultClientContext>;

fn admin() -> Admin {
    ClientConfig::new().set("bootstrap.servers", shared().kafka.address()).create().unwrap()
}

/// Makes a topic as somebody else would, and waits until it is described.
async fn make(admin: &Admin, name: &str, partitions: i32, settings: &[(&str, &str)]) {
    let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
    for (key, value) in settings {
        topic = topic.set(key, value);
    }
    admin.create_topics([&topic], &AdminOptions::new()).await.unwrap().remove(0).unwrap();
    setting(admin, name, "cleanup.policy").await;
}

async fn setting(admin: &Admin, topic: &str, key: &str) -> Option<String> {
    for _ in 0..1_000 {
        let described = admin.describe_configs([&ResourceSpecifier::Topic(topic)], &AdminOptions::new()).await.unwrap();
        match &described[0] {
            Ok(resource) => return resource.get(key).and_then(|entry| entry.value.clone()),
            Err(RDKafkaErrorCode::UnknownTopicOrPartition) => tokio::time::sleep(Duration::from_millis(100)).await,
            Err(code) => panic!("{topic}: {code}"),
        }
    }
    panic!("{topic} never appeared");
}

fn partitions(admin: &Admin, topic: &str) -> usize {
    let metadata = admin.inner().fetch_metadata(Some(topic), Duration::from_secs(60)).unwrap();
    metadata.topics()[0].partitions().len()
}

#[test]
fn check_diff_and_show_say_what_follows_from_a_contract() {
    let dir = tempfile::tempdir().unwrap();
    let file = write(dir.path(), "m.yaml", CONTRACT);
    let second = CONTRACT.replace("version: 1", "version: 2");
    let wider = write(dir.path(), "wider.yaml", &second.replace("features: {", "features: {age: {type: int}, "));
    let scaled = write(dir.path(), "scaled.yaml", &second.replace("(10,2)", "(10,3)"));
    let wrong = write(dir.path(), "wrong.yaml", &CONTRACT.replace("double", "dubble").replace("1d", "soon"));

    says(&ends(schemas(&["check", &file]), 0).0, &["m version 1 is valid"]);
    // Both faults at once, each with its line.
    let (_, err) = ends(schemas(&["check", &file, &wrong]), 1);
    says(&err, &["wrong.yaml", "dubble", "soon", "8", "9"]);
    says(&ends(schemas(&["check", "/nowhere.yaml"]), 2).1, &["/nowhere.yaml"]);
    says(&ends(schemas(&["diff", &file, &file]), 0).0, &["no change"]);
    says(&ends(schemas(&["diff", &file, &wider]), 0).0, &["compatible: features.age"]);
    says(&ends(schemas(&["diff", &file, &scaled]), 1).0, &["incompatible: features.price.type"]);

    let show = |what| ends(schemas(&["show", what, &file]), 0).0;
    let json = |what| serde_json::from_str::<Value>(&show(what)).unwrap();
    let avro = json("avro");
    for schema in avro.as_object().unwrap().values() {
        apache_avro::Schema::parse(schema).unwrap();
        assert_eq!(schema["flywheel.contract"]["model"], "m");
    }
    assert_eq!(avro.as_object().unwrap().len(), 2);
    says(
        &show("iceberg"),
        &["m_predictions", "m_outcomes", "m_training", "label_paid_status", "prediction_probability"],
    );
    says(&json("openapi").to_string(), &["/v1/models/m/predictions", "/v1/models/m/outcomes", "prediction_id"]);
    says(&show("docs"), &["Will it be paid?", "price", "EUR", "paid"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn register_makes_schemas_and_topics_and_verifies_them() {
    if skipped("register_makes_schemas_and_topics_and_verifies_them") {
        return;
    }
    let (dir, set, prefix) = (tempfile::tempdir().unwrap(), shared(), unique("made"));
    let (file, admin) = (write(dir.path(), "m.yaml", CONTRACT), admin());
    let register = |file: &str, more: &[&str]| {
        let (registry, kafka) = (set.registry.address(), set.kafka.address());
        let fixed = ["register", file, "--registry", registry, "--kafka", kafka, "--prefix", &prefix];
        schemas(&[&fixed, more].concat())
    };
    let topic = |name: &str| format!("{prefix}.{name}");

    let (out, _) = ends(register(&file, &["--partitions", "3"]), 0);
    for (name, count) in [("m.predictions", 3), ("m.outcomes", 3), ("ledger", 1), ("deadletter", 1)] {
        let topic = topic(name);
        says(&out, &[&format!("{topic}-value is schema"), &format!("topic {topic} with {count} partitions created")]);
        assert_eq!(partitions(&admin, &topic), count);
        assert_eq!(setting(&admin, &topic, "message.timestamp.type").await.as_deref(), Some("LogAppendTime"));
        assert_eq!(setting(&admin, &topic, "cleanup.policy").await.as_deref(), Some("delete"));
    }
    // Again, told and untold: nothing is made, and the ids are the same.
    for more in [&["--partitions", "3"] as &[&str], &[]] {
        let (again, _) = ends(register(&file, more), 0);
        assert_eq!(again.matches("verified").count(), 4, "{again}");
        let ids = |out: &str| out.lines().filter(|line| line.contains("is schema")).collect::<Vec<_>>().join("\n");
        assert_eq!(ids(&again), ids(&out));
    }
    let (_, err) = ends(register(&file, &["--partitions", "4"]), 1);
    says(&err, &[&topic("m.predictions"), &topic("m.outcomes"), "has 3 partitions instead of 4", "--partitions 3"]);

    // Version 1 is what it is; a version 2 may add.
    let other = write(dir.path(), "other.yaml", &CONTRACT.replace("unit: EUR", "unit: USD"));
    let (out, err) = ends(register(&other, &[]), 1);
    says(&err, &["version", "1 is registered with another content", "new version"]);
    assert_eq!(out, "", "nothing is made of a refused contract");
    let second = CONTRACT.replace("version: 1", "version: 2").replace("features: {", "features: {age: {type: int}, ");
    let second = write(dir.path(), "second.yaml", &second);
    says(&ends(register(&second, &[]), 0).0, &["compatible: features.age", "verified"]);
    // The older version may still be registered again: a roll-back is no change.
    ends(register(&file, &[]), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_that_would_give_wrong_rows_are_refused() {
    if skipped("topics_that_would_give_wrong_rows_are_refused") {
        return;
    }
    let (dir, set, admin) = (tempfile::tempdir().unwrap(), shared(), admin());
    let file = write(dir.path(), "m.yaml", CONTRACT);
    let register = |prefix: &str, more: &[&str]| {
        let (registry, kafka) = (set.registry.address(), set.kafka.address());
        schemas(&[&["register", &file, "--registry", registry, "--kafka", kafka, "--prefix", prefix], more].concat())
    };
    let append_time = ("message.timestamp.type", "LogAppendTime");
    // One topic of each fault; the other ones are made beside it.
    let create_time = ("message.timestamp.type", "CreateTime");
    let faults = [
        ("m.outcomes", 2, vec![append_time], "partitions"),
        ("m.predictions", 4, vec![create_time], "is CreateTime; set it to LogAppendTime"),
        ("ledger", 1, vec![append_time, ("cleanup.policy", "compact")], "cleanup.policy is compact; set it to delete"),
    ];
    for (name, count, settings, expected) in faults {
        let prefix = unique("unfit");
        make(&admin, &format!("{prefix}.{name}"), count, &settings).await;
        // A number is given, else that of the topic that is there would be taken.
        let (_, err) = ends(register(&prefix, &["--partitions", "4"]), 1);
        says(&err, &[expected, &format!("{prefix}.{name}")]);
        // What exists was not touched.
        assert_eq!(partitions(&admin, &format!("{prefix}.{name}")), usize::try_from(count).unwrap());
        for (key, value) in settings {
            assert_eq!(setting(&admin, &format!("{prefix}.{name}"), key).await.as_deref(), Some(value));
        }
    }
    // Without a number the one that is there is taken for both.
    let prefix = unique("taken");
    make(&admin, &format!("{prefix}.m.outcomes"), 2, &[append_time]).await;
    let (out, _) = ends(register(&prefix, &[]), 0);
    says(&out, &[&format!("topic {prefix}.m.predictions with 2 partitions created")]);
    // Replays bring their own times, and a topic for them is not one for live records.
    let prefix = unique("replayed");
    ends(register(&prefix, &["--ingest-time", "record"]), 0);
    for (key, value) in [("message.timestamp.type", "CreateTime"), ("retention.ms", "-1")] {
        assert_eq!(setting(&admin, &format!("{prefix}.m.outcomes"), key).await.as_deref(), Some(value));
    }
    says(&ends(register(&prefix, &[]), 1).1, &["is CreateTime; set it to LogAppendTime"]);
}
