//! Both ends of the log: what the sidecar's forwarder writes is what the joiner's source reads, every record at least once and
//! in order within its partition, whatever happens to the broker, the forwarder or the reader in between.

use std::collections::BTreeMap;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use flywheel_joiner::source::{Feed, Kind, Record, Source, SourceConfig, SourceError, SourceEvent};
use flywheel_schemas::registry::{Registry, RegistryConfig};
use flywheel_schemas::{partition, wire};
use flywheel_sidecar::forward::{
    Blocked, Destination, Forwarder, LogConfig, Remaining, Topics, Undeliverable, Watcher,
};
use flywheel_sidecar::record::{Envelope, RecordKind};
use flywheel_spool::{Options, SchemaKey, Spool};
use flywheel_tests::servers::{Kafka, shared, skipped};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{FutureProducer, FutureRecord};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;

const SCHEMA: &str = r#"{"type":"record","name":"r","fields":[]}"#;
pub const PARTITIONS: i32 = 3;
/// How long anything may take; nothing here is timed.
pub const BOUND: Duration = Duration::from_secs(120);

/// What a forwarder says, with a bound on the waiting for it.
#[derive(Default)]
struct Seen {
    delivered: Mutex<u64>,
    blocked: Mutex<Option<Blocked>>,
    letters: Mutex<Vec<u64>>,
    changed: Notify,
}

impl Watcher for Seen {
    fn delivered(&self, _kind: RecordKind, _bytes: usize) {
        *self.delivered.lock().unwrap() += 1;
        self.changed.notify_one();
    }

    fn blocked(&self, blocked: Option<&Blocked>) {
        *self.blocked.lock().unwrap() = blocked.cloned();
        self.changed.notify_one();
    }

    fn dead_letter<'a>(&'a self, letter: Undeliverable<'a>) -> Pin<Box<dyn Future<Output = bool> + Send + 'a>> {
        assert_eq!(letter.reason, "too_large", "{}", letter.detail);
        self.letters.lock().unwrap().push(letter.sequence);
        Box::pin(std::future::ready(true))
    }
}

impl Seen {
    async fn until(&self, what: &str, done: impl Fn(&Seen) -> bool) {
        let waiting = async {
            while !done(self) {
                self.changed.notified().await;
            }
        };
        assert!(tokio::time::timeout(BOUND, waiting).await.is_ok(), "{what}: never came");
    }

    async fn until_delivered(&self, records: u64) {
        self.until("delivery", |seen| *seen.delivered.lock().unwrap() >= records).await;
    }

    async fn until_blocked(&self, cause: &str) {
        self.until(cause, |seen| seen.blocked.lock().unwrap().as_ref().is_some_and(|it| it.cause == cause)).await;
    }
}

/// A forwarder under way.
struct Running {
    task: JoinHandle<Remaining>,
    stop: oneshot::Sender<()>,
    seen: Arc<Seen>,
}

impl Running {
    fn start(spool: &Spool, prefix: &str, model: &str, registry: &Registry, destination: &Destination) -> Running {
        let seen = Arc::new(Seen::default());
        let topics = Topics::model(prefix, model);
        let forwarder = Forwarder::new(spool.clone(), topics, registry.clone(), true, destination, seen.clone());
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(forwarder.run(async { drop(stopped.await) }, BOUND));
        Running { task, stop, seen }
    }

    async fn finish(self) {
        self.stop.send(()).unwrap();
        assert_eq!(self.task.await.unwrap(), Remaining { records: 0 });
    }

    async fn kill(self) {
        self.task.abort();
        assert!(self.task.await.is_err());
    }
}

fn registry(dir: &Path) -> Registry {
    let url = format!("file:{}", dir.join("registry").display());
    Registry::open(&RegistryConfig { url, ..RegistryConfig::default() }).unwrap()
}

fn spool(dir: &Path, model: &str) -> Spool {
    Spool::open(&dir.join("spool").join(model), Options::default()).unwrap()
}

/// Record `number` of a spool: every 50th is an outcome, every 100th is followed by a tick.
async fn put(spool: &Spool, numbers: std::ops::Range<u64>) {
    let schema = spool.add_schema(SCHEMA).unwrap();
    let mut last = None;
    for number in numbers {
        let kind = if number % 50 == 49 { RecordKind::Outcome } else { RecordKind::Prediction };
        let (key, datum) = (format!("key-{number}"), number.to_le_bytes());
        let envelope = Envelope {
            kind,
            time_ms: time_ms(number),
            producer_id: [9; 16],
            producer_seq: number + 1,
            key: key.as_bytes(),
            event_id: key.as_bytes(),
            traceparent: None,
            datum: &datum,
        };
        last = Some(spool.append(schema, |_, out| envelope.write(out)).unwrap());
        if number % 100 == 99 {
            let tick = Envelope { kind: RecordKind::Time, key: b"", event_id: b"", datum: b"", ..envelope };
            last = Some(spool.append(SchemaKey::NONE, |_, out| tick.write(out)).unwrap());
        }
    }
    if let Some(pending) = last {
        pending.await.unwrap();
    }
}

/// A replay of today, so that no broker finds its times too old.
fn time_ms(number: u64) -> i64 {
    static START: std::sync::OnceLock<i64> = std::sync::OnceLock::new();
    let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64;
    START.get_or_init(now) + number as i64
}

fn source_config(url: &str, prefix: &str) -> SourceConfig {
    let (url, prefix, group) = (url.to_string(), prefix.to_string(), format!("{prefix}-joiner"));
    SourceConfig { url, prefix, group, ..SourceConfig::default() }
}

async fn assigned(source: &mut Source, model: &str) -> Vec<i32> {
    let waiting = async {
        let mut partitions = Vec::new();
        while partitions.len() < PARTITIONS as usize {
            match source.next().await {
                SourceEvent::Assigned { model: found, partitions: more } if found == model => partitions.extend(more),
                SourceEvent::Assigned { .. } | SourceEvent::Revoked { .. } => {}
                SourceEvent::Failed(error) => panic!("{error}"),
            }
        }
        partitions.sort_unstable();
        partitions
    };
    tokio::time::timeout(BOUND, waiting).await.expect("an assignment")
}

/// What a feed has handed out, by topic and partition.
#[derive(Default)]
struct Read(BTreeMap<(Kind, i32), Vec<Record>>);

impl Read {
    fn add(&mut self, records: Vec<Record>) {
        for record in records {
            self.0.entry((record.kind, record.partition)).or_default().push(record);
        }
    }

    fn next(&self, kind: Kind, partition: i32) -> i64 {
        self.0.get(&(kind, partition)).and_then(|records| records.last()).map_or(-1, |last| last.offset + 1)
    }

    async fn until_end(&mut self, feed: &mut Feed, records: usize) {
        let reading = async {
            while !(feed.at_end() && self.0.values().map(Vec::len).sum::<usize>() >= records) {
                self.add(feed.poll(1_000, Duration::from_millis(200)).await.unwrap());
            }
        };
        assert!(tokio::time::timeout(BOUND, reading).await.is_ok(), "the end never came");
    }

    /// Records 0 to `count` are there, first copies in order, in their partitions, with what was sent with them; and every
    /// tick is in every partition, behind what was sent before it.
    fn check(&self, count: u64, by_log: bool) {
        let mut all = Vec::new();
        for kind in [Kind::Predictions, Kind::Outcomes] {
            for partition in 0..PARTITIONS {
                let records = self.0.get(&(kind, partition)).expect("a tick at least");
                assert!(records.is_sorted_by_key(|record| record.offset));
                let mut first = Vec::new();
                let mut ticks = Vec::new();
                for record in records {
                    assert_eq!(record.time_by_log, by_log);
                    if record.tick {
                        assert_eq!((record.key.as_ref(), record.value.as_ref()), (None, None));
                        if !ticks.contains(&record.time_ms) {
                            ticks.push(record.time_ms);
                            let before = first.iter().filter(|number| time_ms(**number) <= record.time_ms).count();
                            assert_eq!(before, first.len(), "a tick is not behind its successors");
                        }
                        continue;
                    }
                    let (id, datum) = wire::unframe(record.value.as_ref().unwrap()).unwrap();
                    assert!(id > 0);
                    let number = u64::from_le_bytes(datum.try_into().unwrap());
                    assert_eq!(record.time_ms, time_ms(number));
                    assert_eq!(record.key.as_deref(), Some(format!("key-{number}").as_bytes()));
                    assert_eq!(partition::of(record.key.as_ref().unwrap(), PARTITIONS), partition);
                    assert_eq!(record.producer_id.as_deref(), Some("09090909-0909-0909-0909-090909090909"));
                    assert_eq!(record.producer_seq, Some(number as i64 + 1));
                    assert!(record.headers.is_empty(), "it is where it belongs");
                    if !first.contains(&number) {
                        first.push(number);
                    }
                }
                assert!(first.is_sorted(), "first copies are in order");
                assert_eq!(ticks, (0..count).filter(|n| n % 100 == 99).map(time_ms).collect::<Vec<_>>());
                all.extend(first);
            }
        }
        all.sort_unstable();
        assert_eq!(all, (0..count).collect::<Vec<_>>());
    }
}

fn assign_all(feed: &mut Feed, partitions: &[i32], read: &Read) {
    for kind in [Kind::Predictions, Kind::Outcomes] {
        for partition in partitions {
            feed.assign(kind, *partition, read.next(kind, *partition)).unwrap();
        }
    }
}

#[tokio::test]
async fn a_file_log_is_read_as_it_was_written_across_kills_on_both_sides() {
    let dir = tempfile::tempdir().unwrap();
    let (registry, spool) = (registry(dir.path()), spool(dir.path(), "m"));
    let url = format!("file:{}", dir.path().join("log").display());
    let config = LogConfig {
        url: url.clone(),
        prefix: "flywheel".into(),
        partitions: PARTITIONS,
        replay: true,
        ..LogConfig::default()
    };
    put(&spool, 0..400).await;
    let destination = Destination::open(&config).await.unwrap();
    let mut source = Source::open(&source_config(&url, "flywheel")).await.unwrap();
    assert!(!source.needs_ticks());
    let running = Running::start(&spool, "flywheel", "m", &registry, &destination);
    let partitions = assigned(&mut source, "m").await;
    assert_eq!(partitions, (0..PARTITIONS).collect::<Vec<_>>());
    let mut read = Read::default();
    let mut feed = source.feed("m").unwrap();
    assign_all(&mut feed, &partitions, &read);
    running.seen.until_delivered(100).await;
    read.add(feed.poll(50, BOUND).await.unwrap());
    running.kill().await;
    drop((feed, destination));

    // Another process on each side.
    let destination = Destination::open(&config).await.unwrap();
    let running = Running::start(&spool, "flywheel", "m", &registry, &destination);
    put(&spool, 400..800).await;
    let mut feed = source.feeds().feed("m").unwrap();
    assign_all(&mut feed, &partitions, &read);
    running.seen.until_delivered(1).await;
    running.finish().await;
    read.until_end(&mut feed, 800).await;
    read.check(800, true);
    for partition in partitions {
        let next = read.next(Kind::Predictions, partition);
        assert_eq!(feed.offsets(Kind::Predictions, partition).await.unwrap(), (0, next));
        feed.landed(Kind::Predictions, partition, next);
        feed.assign(Kind::Predictions, partition, next + 1).unwrap();
        let error = feed.poll(10, Duration::ZERO).await.unwrap_err();
        assert!(matches!(error, SourceError::OutOfRange { end, .. } if end == next), "{error}");
        feed.unassign(partition);
    }
    assert!(feed.at_end());
}

/// Makes topics as `register` does; `time`: `LogAppendTime` or `CreateTime`.
pub async fn make_topics(servers: &str, prefix: &str, model: &str, settings: &[(&str, &str)]) {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", servers).create().unwrap();
    for kind in [Kind::Predictions, Kind::Outcomes] {
        let name = wire::topic(prefix, model, kind);
        let mut topic = NewTopic::new(&name, PARTITIONS, TopicReplication::Fixed(1));
        for (key, value) in settings {
            topic = topic.set(key, value);
        }
        for result in admin.create_topics([&topic], &AdminOptions::new()).await.unwrap() {
            result.unwrap();
        }
    }
}

pub const BY_BROKER: (&str, &str) = ("message.timestamp.type", "LogAppendTime");

fn kafka_config(servers: &str, prefix: &str, replay: bool) -> LogConfig {
    LogConfig { url: format!("kafka://{servers}"), prefix: prefix.into(), replay, ..LogConfig::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_killed_in_the_middle_costs_no_record_and_no_order() {
    if skipped("a_broker_that_is_killed_in_the_middle_costs_no_record_and_no_order") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut kafka = Kafka::start(dir.path()).unwrap();
    let servers = kafka.address().to_string();
    make_topics(&servers, "killed", "m", &[]).await;
    let (registry, spool) = (registry(dir.path()), spool(dir.path(), "m"));
    let destination = Destination::open(&kafka_config(&servers, "killed", true)).await.unwrap();
    let mut source = Source::open(&source_config(&format!("kafka://{servers}"), "killed")).await.unwrap();
    assert!(!source.cluster_id().is_empty());
    let partitions = assigned(&mut source, "m").await;
    let mut feed = source.feed("m").unwrap();
    let mut read = Read::default();
    assign_all(&mut feed, &partitions, &read);

    put(&spool, 0..5_000).await;
    let running = Running::start(&spool, "killed", "m", &registry, &destination);
    running.seen.until_delivered(1).await;
    kafka.kill().unwrap();
    put(&spool, 5_000..20_000).await;
    // Without a broker the feed hands out what it had, then nothing; it does not fail.
    while !feed.poll(1_000, Duration::from_secs(1)).await.map(|more| (more.is_empty(), read.add(more))).unwrap().0 {}
    let cursor = spool.cursor().sequence;
    assert!(cursor < spool.next_sequence(), "the cursor moves only behind what is delivered");
    kafka.restart().unwrap();
    running.finish().await;
    assert_eq!(spool.cursor().sequence, spool.next_sequence());
    read.until_end(&mut feed, 20_000).await;
    read.check(20_000, false);
    source.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forwarder_that_is_killed_sends_again_from_its_cursor() {
    if skipped("a_forwarder_that_is_killed_sends_again_from_its_cursor") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let servers = shared().kafka.address();
    make_topics(servers, "resent", "m", &[]).await;
    let (registry, spool) = (registry(dir.path()), spool(dir.path(), "m"));
    put(&spool, 0..3_000).await;
    for _ in 0..3 {
        let destination = Destination::open(&kafka_config(servers, "resent", true)).await.unwrap();
        let running = Running::start(&spool, "resent", "m", &registry, &destination);
        running.seen.until_delivered(500).await;
        running.kill().await;
    }
    let destination = Destination::open(&kafka_config(servers, "resent", true)).await.unwrap();
    Running::start(&spool, "resent", "m", &registry, &destination).finish().await;
    let mut source = Source::open(&source_config(&format!("kafka://{servers}"), "resent")).await.unwrap();
    let partitions = assigned(&mut source, "m").await;
    let mut feed = source.feed("m").unwrap();
    let mut read = Read::default();
    assign_all(&mut feed, &partitions, &read);
    read.until_end(&mut feed, 3_000).await;
    read.check(3_000, false);
    source.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_topic_and_a_record_too_long_hold_up_nothing_else() {
    if skipped("a_missing_topic_and_a_record_too_long_hold_up_nothing_else") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let servers = shared().kafka.address();
    make_topics(servers, "policy", "there", &[("max.message.bytes", "2000")]).await;
    let registry = registry(dir.path());
    let (missing, there) = (spool(dir.path(), "missing"), spool(dir.path(), "there"));
    put(&missing, 0..10).await;
    let schema = there.add_schema(SCHEMA).unwrap();
    // Bytes that no compression makes shorter.
    let long: Vec<u8> = (0..300).flat_map(|_| uuid::Uuid::new_v4().into_bytes()).collect();
    for number in 0..20_u64 {
        let short = number.to_le_bytes();
        let envelope = Envelope {
            kind: RecordKind::Prediction,
            time_ms: time_ms(number),
            producer_id: [9; 16],
            producer_seq: number + 1,
            key: b"one partition",
            event_id: b"",
            traceparent: None,
            datum: if number == 7 { &long } else { &short },
        };
        there.append(schema, |_, out| envelope.write(out)).unwrap().await.unwrap();
    }
    let destination = Destination::open(&kafka_config(servers, "policy", true)).await.unwrap();
    let waits = Running::start(&missing, "policy", "missing", &registry, &destination);
    let goes = Running::start(&there, "policy", "there", &registry, &destination);
    waits.seen.until_blocked("topic").await;
    let seen = goes.seen.clone();
    goes.finish().await;
    assert_eq!(*seen.letters.lock().unwrap(), [7]);
    assert_eq!(missing.cursor().sequence, 0);
    make_topics(servers, "policy", "missing", &[]).await;
    waits.finish().await;
    assert_eq!(missing.cursor().sequence, missing.next_sequence());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_feed_seeks_pauses_ticks_and_reroutes() {
    if skipped("a_feed_seeks_pauses_ticks_and_reroutes") {
        return;
    }
    let servers = shared().kafka.address();
    make_topics(servers, "feed", "m", &[BY_BROKER]).await;
    let producer: FutureProducer = ClientConfig::new().set("bootstrap.servers", servers).create().unwrap();
    // A producer with another partitioner.
    let foreign = |number: i32| {
        let producer = producer.clone();
        async move {
            let (key, value) = (format!("key-{number}"), number.to_le_bytes());
            let record = FutureRecord::to("feed.m.predictions").partition(0).key(&key).payload(&value);
            let record = record.headers(
                rdkafka::message::OwnedHeaders::new()
                    .insert(rdkafka::message::Header { key: "kept", value: Some("yes") }),
            );
            producer.send(record, BOUND).await.unwrap();
        }
    };
    for number in 0..30 {
        foreign(number).await;
    }
    let mut source = Source::open(&source_config(&format!("kafka://{servers}"), "feed")).await.unwrap();
    assert_eq!(assigned(&mut source, "m").await, [0, 1, 2]);
    assert_eq!(source.partition_count("feed.m.outcomes").await.unwrap(), PARTITIONS);
    let unknown = source.partition_count("feed.none.outcomes").await.unwrap_err();
    assert!(matches!(unknown, SourceError::UnknownTopic { .. }), "{unknown}");
    let mut feed = source.feed("m").unwrap();
    let (kind, mut read) = (Kind::Predictions, Read::default());
    feed.assign(kind, 0, -1).unwrap();
    read.until_end(&mut feed, 30).await;
    assert!(read.0[&(kind, 0)].iter().all(|record| record.time_by_log && record.time_ms > 0));
    assert_eq!(feed.offsets(kind, 0).await.unwrap(), (0, 30));

    // Seeks back and forth end where they should, with nothing read ahead of them in between.
    for offset in [10, 25, 3] {
        feed.assign(kind, 0, offset).unwrap();
        let mut again = Read::default();
        again.until_end(&mut feed, 30 - offset as usize).await;
        let offsets: Vec<_> = again.0[&(kind, 0)].iter().map(|record| record.offset).collect();
        assert_eq!(offsets, (offset..30).collect::<Vec<_>>());
    }

    // A paused partition hands out nothing and does not count for the end.
    feed.assign(Kind::Outcomes, 1, -1).unwrap();
    feed.pause(kind, 0, 30);
    foreign(30).await;
    feed.append_tick(Kind::Outcomes, 1).await.unwrap();
    let mut ticks = Read::default();
    ticks.until_end(&mut feed, 1).await;
    assert_eq!(ticks.0.keys().copied().collect::<Vec<_>>(), [(Kind::Outcomes, 1)]);
    let tick = &ticks.0[&(Kind::Outcomes, 1)][0];
    assert!(tick.tick && tick.value.is_none() && tick.time_ms >= read.0[&(kind, 0)][29].time_ms);
    feed.assign(kind, 0, 30).unwrap();
    read.until_end(&mut feed, 31).await;

    // A record out of place is told by its headers, and goes where its key belongs with all of them.
    let misplaced = read.0[&(kind, 0)].iter().find(|record| !record.headers.is_empty()).unwrap();
    let right = partition::of(misplaced.key.as_ref().unwrap(), PARTITIONS);
    assert_ne!(right, 0);
    feed.reroute(misplaced, right).await.unwrap();
    feed.assign(kind, right, -1).unwrap();
    let mut moved = Read::default();
    moved.until_end(&mut feed, 1).await;
    let copy = &moved.0[&(kind, right)][0];
    assert_eq!((&copy.key, &copy.value), (&misplaced.key, &misplaced.value));
    assert!(copy.headers.is_empty(), "it is where it belongs now");

    // An offset that is not there is said, and not jumped.
    feed.assign(kind, 0, 500).unwrap();
    let reading = async {
        loop {
            if let Err(error) = feed.poll(10, Duration::from_millis(200)).await {
                return error;
            }
        }
    };
    let error = tokio::time::timeout(BOUND, reading).await.unwrap();
    assert!(matches!(error, SourceError::OutOfRange { partition: 0, offset: 500, low: 0, end: 31, .. }), "{error:?}");
    feed.landed(kind, 0, 31);
    source.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_members_share_the_partitions_and_a_new_model_is_found() {
    if skipped("two_members_share_the_partitions_and_a_new_model_is_found") {
        return;
    }
    let servers = shared().kafka.address();
    let config = source_config(&format!("kafka://{servers}"), "group");
    let mut first = Source::open(&config).await.unwrap();
    make_topics(servers, "group", "m", &[]).await;
    assert_eq!(assigned(&mut first, "m").await, [0, 1, 2]);
    let mut second = Source::open(&config).await.unwrap();
    let (mut lost, mut gained) = (Vec::new(), Vec::new());
    let sharing = async {
        while lost.is_empty() || gained.is_empty() {
            let event = tokio::select! {
                event = first.next() => event,
                event = second.next() => event,
            };
            match event {
                SourceEvent::Revoked { partitions, .. } => lost.extend(partitions),
                SourceEvent::Assigned { partitions, .. } => gained.extend(partitions),
                SourceEvent::Failed(error) => panic!("{error}"),
            }
        }
    };
    tokio::time::timeout(BOUND, sharing).await.expect("a rebalance");
    assert_eq!(lost, gained);
    second.close().await;
    let mut back = Vec::new();
    let returning = async {
        while back.len() < lost.len() {
            if let SourceEvent::Assigned { partitions, .. } = first.next().await {
                back.extend(partitions);
            }
        }
    };
    tokio::time::timeout(BOUND, returning).await.expect("the partitions of the member that left");
    assert_eq!(back, lost);
    first.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_side_topic_comes_again_until_it_is_committed() {
    if skipped("a_side_topic_comes_again_until_it_is_committed") {
        return;
    }
    let servers = shared().kafka.address();
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", servers).create().unwrap();
    let topic = NewTopic::new("side.ledger", 1, TopicReplication::Fixed(1));
    admin.create_topics([&topic], &AdminOptions::new()).await.unwrap();
    let producer: FutureProducer = ClientConfig::new().set("bootstrap.servers", servers).create().unwrap();
    for number in 0..10 {
        let value = vec![number];
        producer.send(FutureRecord::<(), _>::to("side.ledger").payload(&value), BOUND).await.unwrap();
    }
    let source = Source::open(&source_config(&format!("kafka://{servers}"), "side")).await.unwrap();
    for (commit, want) in [(false, 0), (true, 0), (true, 10)] {
        let mut feed = source.side_feed("side.ledger").unwrap();
        if want == 10 {
            producer.send(FutureRecord::<(), _>::to("side.ledger").payload(&vec![10]), BOUND).await.unwrap();
        }
        let mut records = Vec::new();
        let reading = async {
            while records.last().is_none_or(|last: &Record| last.offset < if want == 10 { 10 } else { 9 }) {
                records.extend(feed.poll(100, Duration::from_secs(1)).await.unwrap());
            }
        };
        tokio::time::timeout(BOUND, reading).await.expect("the records");
        assert_eq!(records.first().map(|first| first.offset), Some(want));
        if commit {
            feed.commit().await.unwrap();
        }
    }
    source.close().await;
}
