//! The whole joiner on a real broker, where the broker gives the times: partitions that stand still, records out of
//! place, topics of the wrong kind. Tables are local; what they do on servers is shown elsewhere.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use apache_avro::types::Value;
use apache_avro::writer::datum::GenericDatumWriter;
use arrow::array::{Array as _, AsArray as _, RecordBatch};
use arrow::datatypes::{Int32Type, Int64Type, TimestampMicrosecondType};
use flywheel_joiner::source::{Source, SourceConfig, SourceError};
use flywheel_joiner::table::{Predicate, Warehouse};
use flywheel_joiner::{App, Config};
use flywheel_schemas::avro::{outcome_schema, prediction_schema};
use flywheel_schemas::contract::Contract;
use flywheel_schemas::registry::Registry;
use flywheel_schemas::sampling::is_in;
use flywheel_schemas::wire::{self, Kind};
use flywheel_schemas::{id, partition};
use flywheel_tests::servers::{shared, skipped};
use futures::TryStreamExt as _;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{FutureProducer, FutureRecord};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::log::{BOUND, BY_BROKER, PARTITIONS, make_topics};

/// Waits and grid as short as they may be, since the broker's clock cannot be turned.
pub const CONTRACT: &str = "
apiVersion: flywheel/v1
kind: ModelContract
model: m
version: 1
owner: team
description: A test.
features: {x: {type: double}}
prediction: {p: {type: double}}
labels: {won: {type: boolean, window: 1s, lateness: 1s, aggregate: any, default: false}}
seal: {when: all_closed, grid: 1s, drain: 1s, horizon: 1d}
";

/// A joiner in this process and what it works on.
pub struct Joiner {
    pub config: Config,
    admin: String,
    predictions: (String, u32),
    outcomes: (String, u32),
    producer: FutureProducer,
    running: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl Joiner {
    pub async fn start(dir: &Path, prefix: &str) -> Joiner {
        Joiner::start_with(dir, prefix, CONTRACT).await
    }

    async fn start_with(dir: &Path, prefix: &str, contract: &str) -> Joiner {
        Joiner::start_on(dir, prefix, contract, |_| {}).await
    }

    /// With other settings than those of a catalog and a registry in a folder.
    pub async fn start_on(dir: &Path, prefix: &str, contract: &str, change: impl FnOnce(&mut Config)) -> Joiner {
        let at = |name: &str| dir.join(name).display().to_string();
        let mut config = Config::default();
        config.log.url = format!("kafka://{}", shared().kafka.address());
        config.log.prefix = prefix.to_owned();
        config.log.group = format!("{prefix}-joiner");
        config.registry.url = format!("file:{}", at("registry"));
        config.catalog.url = format!("sqlite:{}", at("catalog.db"));
        config.catalog.warehouse = at("warehouse");
        config.index.dir = dir.join("index");
        config.commit.interval_ms = 500;
        config.listen.admin = "127.0.0.1:0".to_owned();
        change(&mut config);
        let contract = Contract::parse(contract).unwrap_or_else(|faults| panic!("{faults:?}"));
        let registry = Registry::open(&config.registry()).unwrap();
        let subject = |kind| wire::subject(&wire::topic(prefix, "m", kind));
        let register = async |kind, schema: String| {
            let id = registry.register(&subject(kind), &schema).await.unwrap();
            (schema, id)
        };
        let predictions = register(Kind::Predictions, prediction_schema(&contract)).await;
        let outcomes = register(Kind::Outcomes, outcome_schema(&contract)).await;
        let app = App::build(config.clone()).await.unwrap();
        let admin = format!("http://{}/metrics", app.admin_address().unwrap());
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(async move { app.run(async { drop(stopped.await) }).await.unwrap() });
        let producer = ClientConfig::new().set("bootstrap.servers", shared().kafka.address()).create().unwrap();
        Joiner { config, admin, predictions, outcomes, producer, running: Some((stop, task)) }
    }

    /// Sends a prediction of now to a partition, which may be one that it does not belong to.
    pub async fn send(&self, prediction_id: &str, event_ms: i64, number: i32) {
        let payload = self.prediction(prediction_id, event_ms);
        self.send_record(Kind::Predictions, prediction_id, number, &payload).await;
    }

    /// Sends a statement that the label `won` is true.
    async fn state(&self, prediction_id: &str, event_ms: i64) {
        let fields = vec![
            ("prediction_id", Value::String(prediction_id.to_owned())),
            ("event_id", Value::String(id::mint(event_ms).to_string())),
            ("outcome_id", Value::String(String::new())),
            ("revision", Value::Long(0)),
            ("op", Value::String("assert".to_owned())),
            ("op_time", Value::TimestampMicros(event_ms * 1000)),
            ("event_time", Value::TimestampMicros(event_ms * 1000)),
            ("contract_version", Value::Int(1)),
            ("label", Value::Record(vec![("won".to_owned(), Value::Boolean(true))])),
        ];
        let number = partition::of(prediction_id.as_bytes(), PARTITIONS);
        self.send_record(Kind::Outcomes, prediction_id, number, &payload(&self.outcomes, fields)).await;
    }

    /// What such a prediction is on the wire.
    pub fn prediction(&self, prediction_id: &str, event_ms: i64) -> Vec<u8> {
        let record = |name: &str, value: f64| Value::Record(vec![(name.to_owned(), Value::Double(value))]);
        // What is left out becomes null.
        let fields = vec![
            ("prediction_id", Value::String(prediction_id.to_owned())),
            ("event_time", Value::TimestampMicros(event_ms * 1000)),
            ("contract_version", Value::Int(1)),
            ("features", record("x", 1.5)),
            ("prediction", record("p", 0.5)),
        ];
        payload(&self.predictions, fields)
    }

    async fn send_record(&self, kind: Kind, prediction_id: &str, number: i32, payload: &[u8]) {
        let topic = wire::topic(&self.config.log.prefix, "m", kind);
        let record = FutureRecord::to(&topic).partition(number).key(prediction_id).payload(payload);
        self.producer.send(record, BOUND).await.unwrap();
    }

    pub async fn rows(&self, table: &str, columns: &[&str]) -> Vec<RecordBatch> {
        let warehouse = Warehouse::open(&self.config.catalog()).await.unwrap();
        let Some(table) = warehouse.load(table).await.unwrap() else { return Vec::new() };
        table.scan(columns, Predicate::All).await.unwrap().try_collect().await.unwrap()
    }

    pub async fn until_rows(&self, table: &str, count: usize) {
        let waiting = async {
            while self.rows(table, &["prediction_id"]).await.iter().map(RecordBatch::num_rows).sum::<usize>() < count {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        };
        assert!(tokio::time::timeout(BOUND, waiting).await.is_ok(), "{table} never had {count} rows");
    }

    /// The sum of a metric over its labels.
    pub async fn metric(&self, name: &str) -> f64 {
        let text = reqwest::get(&self.admin).await.unwrap().text().await.unwrap();
        let lines = text.lines().filter(|line| line.starts_with(&format!("flywheel_joiner_{name}{{")));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Stops it; what is sent by way of it is still sent.
    pub async fn stop(&mut self) {
        if let Some((stop, task)) = self.running.take() {
            stop.send(()).unwrap();
            task.await.unwrap();
        }
    }

    pub async fn finish(mut self) {
        self.stop().await;
    }
}

/// A framed datum of a registered schema.
fn payload((schema, schema_id): &(String, u32), fields: Vec<(&str, Value)>) -> Vec<u8> {
    let schema = apache_avro::Schema::parse_str(schema).unwrap();
    let fields = fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let value = Value::Record(fields).resolve(&schema).unwrap();
    let datum = GenericDatumWriter::builder(&schema).build().unwrap().write_value_to_vec(value).unwrap();
    [wire::frame(*schema_id).as_slice(), &datum].concat()
}

pub fn now_ms() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_that_stand_still_are_sealed_and_a_record_out_of_place_is_landed_where_it_belongs() {
    if skipped("partitions_that_stand_still_are_sealed_and_a_record_out_of_place_is_landed_where_it_belongs") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    make_topics(shared().kafka.address(), "still", "m", &[BY_BROKER]).await;
    let joiner = Joiner::start(dir.path(), "still").await;
    let event_ms = now_ms();
    let [right, wrong] = [id::mint(event_ms), id::mint(event_ms)].map(|id| id.to_string());
    let home = |id: &str| partition::of(id.as_bytes(), PARTITIONS);
    joiner.send(&right, event_ms, home(&right)).await;
    joiner.send(&wrong, event_ms, (home(&wrong) + 1) % PARTITIONS).await;
    // Nothing else is ever sent, and no outcome at all: only tick records let time pass.
    joiner.until_rows("m_training", 2).await;

    let mut sealed: Vec<(String, i32)> = Vec::new();
    let columns = ["prediction_id", "kafka_partition", "as_of", "ingest_time", "label_won", "label_won_status"];
    for batch in joiner.rows("m_training", &columns).await {
        for row in 0..batch.num_rows() {
            let number = batch.column(1).as_primitive::<Int32Type>().value(row);
            sealed.push((batch.column(0).as_string::<i32>().value(row).to_owned(), number));
            let time = |column: usize| batch.column(column).as_primitive::<TimestampMicrosecondType>().value(row);
            assert!(time(2) % 1_000_000 == 0 && time(2) > time(3) + 1_000_000, "a tick, more than the drain later");
            assert!(batch.column(4).is_valid(row) && !batch.column(4).as_boolean().value(row));
            assert_eq!(batch.column(5).as_string::<i32>().value(row), "default");
        }
    }
    sealed.sort_unstable();
    let mut expected = [(right.clone(), home(&right)), (wrong.clone(), home(&wrong))];
    expected.sort_unstable();
    assert_eq!(sealed, expected);
    let landed: usize = joiner.rows("m_predictions", &["prediction_id"]).await.iter().map(RecordBatch::num_rows).sum();
    assert_eq!((landed, joiner.metric("rerouted_total").await), (2, 1.0));
    assert_eq!(joiner.metric("dead_letters_total").await, 0.0);
    joiner.finish().await;

    // Every partition of both topics has its ticks, and the misplaced record both its places.
    let source = source("still").await;
    let feed = source.feed("m").unwrap();
    let mut records = 0;
    for number in 0..PARTITIONS {
        let (low, end) = feed.offsets(Kind::Outcomes, number).await.unwrap();
        assert!(end > low, "partition {number} of the outcomes has no tick");
        records += feed.offsets(Kind::Predictions, number).await.unwrap().1;
    }
    assert!(records >= i64::from(PARTITIONS) + 3, "{records}");
    source.close().await;
}

/// An outcome whose prediction the contract's own rate leaves out lands like any other, and is counted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outcomes_of_predictions_that_were_sampled_out_are_counted() {
    if skipped("outcomes_of_predictions_that_were_sampled_out_are_counted") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    make_topics(shared().kafka.address(), "sampled", "m", &[BY_BROKER]).await;
    let contract = format!("{CONTRACT}sampling: {{rate: 0.5}}\n");
    let joiner = Joiner::start_with(dir.path(), "sampled", &contract).await;
    let event_ms = now_ms();
    let ids: Vec<String> = (0..20).map(|_| id::mint(event_ms).to_string()).collect();
    for id in &ids {
        joiner.state(id, event_ms).await;
    }
    joiner.until_rows("m_outcomes", ids.len()).await;
    let sampled_out = ids.iter().filter(|id| !is_in(id.as_bytes(), 0.5)).count();
    assert_eq!(joiner.metric("sampled_out_outcomes_total").await, sampled_out as f64);
    joiner.finish().await;
}

async fn source(prefix: &str) -> Source {
    let url = format!("kafka://{}", shared().kafka.address());
    let (prefix, group) = (prefix.to_owned(), format!("{prefix}-looking"));
    Source::open(&SourceConfig { url, prefix, group, ..SourceConfig::default() }).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_with_times_of_their_producers_are_not_landed_until_the_broker_gives_the_times() {
    if skipped("topics_with_times_of_their_producers_are_not_landed_until_the_broker_gives_the_times") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let servers = shared().kafka.address();
    let by_producer = ("message.timestamp.type", "CreateTime");
    make_topics(servers, "times", "m", &[by_producer]).await;
    let looking = source("times").await;
    for kind in [Kind::Predictions, Kind::Outcomes] {
        let topic = wire::topic("times", "m", kind);
        let error = looking.feeds().check_times(&topic).await.unwrap_err();
        assert!(matches!(&error, SourceError::ProducerTimes { found, .. } if found == "CreateTime"), "{error:?}");
        assert!(error.to_string().contains(&topic) && error.to_string().contains("LogAppendTime"), "{error}");
        assert!(!error.is_passing());
    }
    let joiner = Joiner::start(dir.path(), "times").await;
    let waiting = async {
        while joiner.metric("failures_total").await < 1.0 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(BOUND, waiting).await.expect("an alarm");
    assert!(joiner.rows("m_predictions", &["prediction_id"]).await.is_empty());

    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", servers).create().unwrap();
    for kind in [Kind::Predictions, Kind::Outcomes] {
        let topic = wire::topic("times", "m", kind);
        let change = AlterConfig::new(ResourceSpecifier::Topic(&topic)).set(BY_BROKER.0, BY_BROKER.1);
        for altered in admin.alter_configs([&change], &AdminOptions::new()).await.unwrap() {
            altered.unwrap();
        }
        // The broker says it from then on, soon.
        let changed = async { while looking.feeds().check_times(&topic).await.is_err() {} };
        tokio::time::timeout(BOUND, changed).await.expect("the change");
    }
    let event_ms = now_ms();
    let id = id::mint(event_ms).to_string();
    joiner.send(&id, event_ms, partition::of(id.as_bytes(), PARTITIONS)).await;
    joiner.until_rows("m_predictions", 1).await;
    joiner.finish().await;
    looking.close().await;
}

/// Deletes the topics of a model, and makes them again.
async fn make_anew(servers: &str, prefix: &str) {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", servers).create().unwrap();
    for kind in [Kind::Predictions, Kind::Outcomes] {
        let name = wire::topic(prefix, "m", kind);
        for deleted in admin.delete_topics(&[&name], &AdminOptions::new()).await.unwrap() {
            deleted.unwrap();
        }
        // The broker deletes after it has answered.
        let is_there =
            || admin.inner().fetch_metadata(None, BOUND).unwrap().topics().iter().any(|topic| topic.name() == name);
        let gone = async {
            while is_there() {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        };
        tokio::time::timeout(BOUND, gone).await.expect("the topic's end");
    }
    make_topics(servers, prefix, "m", &[BY_BROKER]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_that_were_made_anew_are_an_alarm_until_a_person_adopts_them() {
    if skipped("topics_that_were_made_anew_are_an_alarm_until_a_person_adopts_them") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let servers = shared().kafka.address();
    make_topics(servers, "adopted", "m", &[BY_BROKER]).await;
    let send = async |joiner: &Joiner| {
        let event_ms = now_ms();
        let id = id::mint(event_ms).to_string();
        joiner.send(&id, event_ms, partition::of(id.as_bytes(), PARTITIONS)).await;
    };
    let joiner = Joiner::start(dir.path(), "adopted").await;
    send(&joiner).await;
    send(&joiner).await;
    joiner.until_rows("m_training", 2).await;
    joiner.finish().await;

    make_anew(servers, "adopted").await;
    let joiner = Joiner::start(dir.path(), "adopted").await;
    let waiting = async {
        while joiner.metric("failures_total").await < 1.0 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(BOUND, waiting).await.expect("an alarm");
    send(&joiner).await;
    let Config { log, registry, catalog, index, .. } = &joiner.config;
    let settings = format!(
        "[log]\nurl = {:?}\nprefix = {:?}\ngroup = {:?}\n[registry]\nurl = {:?}\n[catalog]\nurl = {:?}\nwarehouse = {:?}\n\
         [index]\ndir = {:?}\n",
        log.url, log.prefix, log.group, registry.url, catalog.url, catalog.warehouse, index.dir
    );
    let file = dir.path().join("joiner.toml");
    std::fs::write(&file, settings).unwrap();
    let adopt = async |more: &[&str]| {
        let arguments = [&["adopt", "m", "--config", file.to_str().unwrap()], more].concat();
        format!("{:?}", flywheel_joiner::run_from_args(arguments.into_iter().map(Into::into)).await)
    };
    let [done, failed] = [ExitCode::SUCCESS, ExitCode::FAILURE].map(|code| format!("{code:?}"));
    assert_eq!(adopt(&[]).await, done);
    assert_eq!(adopt(&["--yes"]).await, done, "what was only said is still to be done");
    // The joiner that was there all the time goes on.
    joiner.until_rows("m_predictions", 3).await;
    joiner.until_rows("m_training", 3).await;
    assert_eq!(adopt(&["--yes"]).await, failed, "there is nothing to adopt");
    send(&joiner).await;
    joiner.until_rows("m_training", 4).await;
    let mut places = Vec::new();
    for batch in joiner.rows("m_predictions", &["kafka_partition", "kafka_offset"]).await {
        let (numbers, offsets) =
            (batch.column(0).as_primitive::<Int32Type>(), batch.column(1).as_primitive::<Int64Type>());
        places.extend(numbers.values().iter().copied().zip(offsets.values().iter().copied()));
    }
    places.sort_unstable();
    places.dedup();
    assert_eq!(places.len(), 4, "an offset stands for one record for ever");
    joiner.finish().await;
}
