use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use flywheel_schemas::log::{self, Folder};
use flywheel_schemas::partition;
use flywheel_schemas::registry::RegistryConfig;
use flywheel_schemas::wire;
use flywheel_spool::{Options, SchemaKey};
use futures::future::BoxFuture;
use tempfile::TempDir;
use tokio::sync::{Notify, oneshot};

use super::*;
use crate::forward::headers::TICK;
use crate::record::RecordKind;

const SCHEMA: &str = r#"{"type":"record","name":"r","fields":[]}"#;

/// What a test has to be told, with a bound on the waiting.
#[derive(Default)]
struct Seen {
    delivered: AtomicU64,
    blocked: Mutex<Option<Blocked>>,
    letters: Mutex<Vec<(u64, &'static str)>>,
    changed: Notify,
}

impl Watcher for Seen {
    fn delivered(&self, _kind: RecordKind, _bytes: usize) {
        self.delivered.fetch_add(1, Ordering::SeqCst);
        self.changed.notify_one();
    }

    fn blocked(&self, blocked: Option<&Blocked>) {
        *self.blocked.lock().unwrap() = blocked.cloned();
        self.changed.notify_one();
    }

    fn dead_letter<'a>(&'a self, letter: Undeliverable<'a>) -> BoxFuture<'a, bool> {
        self.letters.lock().unwrap().push((letter.sequence, letter.reason));
        Box::pin(std::future::ready(true))
    }
}

impl Seen {
    async fn until(&self, what: &str, done: impl Fn(&Seen) -> bool) {
        let waited = tokio::time::timeout(Duration::from_secs(20), async {
            while !done(self) {
                self.changed.notified().await;
            }
        });
        assert!(waited.await.is_ok(), "{what}: never came");
    }

    async fn until_delivered(&self, records: u64) {
        self.until("delivery", |seen| seen.delivered.load(Ordering::SeqCst) >= records).await;
    }
}

struct Bench {
    dir: TempDir,
    registry: Registry,
}

impl Bench {
    fn new() -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("file:{}", dir.path().join("registry").display());
        let registry = Registry::open(&RegistryConfig { url, ..RegistryConfig::default() }).unwrap();
        Bench { dir, registry }
    }

    fn spool(&self, model: &str) -> Spool {
        Spool::open(&self.dir.path().join("spool").join(model), Options::default()).unwrap()
    }

    fn log(&self) -> Folder {
        Folder::new(&self.dir.path().join("log"))
    }

    async fn destination(&self) -> Destination {
        let url = format!("file:{}", self.log().dir().display());
        let config = LogConfig { url, prefix: "flywheel".into(), partitions: 3, replay: true, ..LogConfig::default() };
        Destination::open(&config).await.unwrap()
    }

    fn forwarder(
        &self,
        model: &str,
        spool: &Spool,
        destination: &Destination,
        seen: &Arc<Seen>,
        register: bool,
    ) -> Forwarder {
        let topics = Topics::model("flywheel", model);
        Forwarder::new(spool.clone(), topics, self.registry.clone(), register, destination, seen.clone())
    }

    /// What is in a topic's partitions.
    fn read(&self, topic: &str) -> Vec<Vec<Bytes>> {
        let folder = self.log();
        let count = folder.partition_count(topic).unwrap().unwrap();
        let read = |partition| {
            let records = Reader::open(&folder.partition_dir(topic, partition), 0).unwrap().read(usize::MAX).unwrap();
            records.into_iter().map(|record| record.payload).collect()
        };
        (0..count).map(read).collect()
    }
}

async fn put(spool: &Spool, kind: RecordKind, number: u64) {
    let schema = spool.add_schema(SCHEMA).unwrap();
    let key = format!("key-{number}");
    let datum = number.to_le_bytes();
    let envelope = Envelope {
        kind,
        time_ms: 1_000 * number as i64,
        producer_id: [9; 16],
        producer_seq: number + 1,
        key: key.as_bytes(),
        event_id: b"e",
        traceparent: None,
        datum: &datum,
    };
    spool.append(schema, |_, out| envelope.write(out)).unwrap().await.unwrap();
}

async fn put_time(spool: &Spool, time_ms: i64) {
    let envelope = Envelope {
        kind: RecordKind::Time,
        time_ms,
        producer_id: [0; 16],
        producer_seq: 0,
        key: b"",
        event_id: b"",
        traceparent: None,
        datum: b"",
    };
    spool.append(SchemaKey::NONE, |_, out| envelope.write(out)).unwrap().await.unwrap();
}

/// The numbers of the records of a partition, in order; none for a tick.
fn numbers(partition: &[Bytes]) -> Vec<Option<u64>> {
    let number = |payload: &Bytes| {
        let record = log::decode(payload).unwrap();
        let (_, datum) = wire::unframe(record.value?).unwrap();
        Some(u64::from_le_bytes(datum.try_into().unwrap()))
    };
    partition.iter().map(number).collect()
}

#[tokio::test]
async fn records_and_ticks_arrive_in_order_each_in_its_partition() {
    let bench = Bench::new();
    let spool = bench.spool("m");
    for number in 0..200 {
        put(&spool, RecordKind::Prediction, number).await;
        if number == 99 {
            put_time(&spool, 300_000).await;
        }
    }
    put(&spool, RecordKind::Outcome, 7).await;
    let (destination, seen) = (bench.destination().await, Arc::new(Seen::default()));
    let forwarder = bench.forwarder("m", &spool, &destination, &seen, true);
    let remaining = forwarder.run(std::future::ready(()), Duration::from_secs(20)).await;
    assert_eq!(remaining, Remaining { records: 0 });
    assert_eq!(spool.cursor().sequence, 202);
    let note = Note::decode(&spool.cursor().note);
    assert_eq!(note.predictions.map(|place| place.producer_seq), Some(200));
    assert_eq!(note.outcomes.map(|place| place.producer_seq), Some(8));

    let mut found = Vec::new();
    for (number, partition) in bench.read("flywheel.m.predictions").iter().enumerate() {
        let numbers = numbers(partition);
        let tick = numbers.iter().position(Option::is_none).expect("a tick in every partition");
        assert!(numbers[..tick].iter().flatten().all(|number| *number <= 99));
        assert!(numbers[tick..].iter().flatten().all(|number| *number > 99));
        assert!(numbers.iter().flatten().is_sorted());
        found.extend(numbers.iter().flatten().copied());
        for payload in partition {
            let record = log::decode(payload).unwrap();
            let headers: Vec<_> = record.headers.collect();
            match record.key {
                Some(key) => {
                    assert_eq!(partition::of(key, 3), number as i32);
                    assert!(headers.contains(&(wire::PRODUCER_ID, Some(b"09090909-0909-0909-0909-090909090909"))));
                    assert!(headers.iter().any(|(name, _)| *name == wire::PRODUCER_SEQ));
                    assert!(headers.contains(&("ce_type", Some(b"flywheel.prediction.v1"))));
                }
                None => assert_eq!((headers, record.time_ms), (TICK.to_vec(), 300_000)),
            }
        }
    }
    found.sort_unstable();
    assert_eq!(found, (0..200).collect::<Vec<_>>());
    let outcomes = bench.read("flywheel.m.outcomes");
    assert!(outcomes.iter().all(|partition| numbers(partition).contains(&None)));
    assert_eq!(outcomes.iter().flat_map(|partition| numbers(partition)).flatten().collect::<Vec<_>>(), [7]);
}

#[tokio::test]
async fn a_forwarder_that_is_killed_leaves_no_gap() {
    let bench = Bench::new();
    let spool = bench.spool("m");
    for number in 0..500 {
        put(&spool, RecordKind::Prediction, number).await;
    }
    for delivered in [1, 150, 300] {
        let (destination, seen) = (bench.destination().await, Arc::new(Seen::default()));
        let forwarder = bench.forwarder("m", &spool, &destination, &seen, true);
        let task = tokio::spawn(forwarder.run(std::future::pending(), Duration::ZERO));
        seen.until_delivered(delivered).await;
        task.abort();
        assert!(task.await.is_err());
    }
    let (destination, seen) = (bench.destination().await, Arc::new(Seen::default()));
    let forwarder = bench.forwarder("m", &spool, &destination, &seen, true);
    assert_eq!(forwarder.run(std::future::ready(()), Duration::from_secs(20)).await.records, 0);
    let mut all = Vec::new();
    for partition in bench.read("flywheel.m.predictions") {
        let mut first = Vec::new();
        for number in numbers(&partition).into_iter().flatten() {
            if !first.contains(&number) {
                first.push(number);
            }
        }
        assert!(first.is_sorted(), "the first copies are in order");
        all.extend(first);
    }
    all.sort_unstable();
    assert_eq!(all, (0..500).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_schema_that_is_missing_holds_one_spool_and_loses_nothing() {
    let bench = Bench::new();
    let (held, free) = (bench.spool("held"), bench.spool("free"));
    put(&held, RecordKind::Prediction, 1).await;
    put(&free, RecordKind::Prediction, 2).await;
    bench.registry.register("flywheel.free.predictions-value", SCHEMA).await.unwrap();
    let destination = bench.destination().await;
    let (waits, goes) = (Arc::new(Seen::default()), Arc::new(Seen::default()));
    let (stop, stopped) = oneshot::channel::<()>();
    let first = bench.forwarder("held", &held, &destination, &waits, false);
    let first = tokio::spawn(first.run(async { drop(stopped.await) }, Duration::from_secs(20)));
    let second = bench.forwarder("free", &free, &destination, &goes, false);
    let second = tokio::spawn(second.run(std::future::pending(), Duration::ZERO));
    goes.until_delivered(1).await;
    let missing =
        |seen: &Seen| seen.blocked.lock().unwrap().as_ref().is_some_and(|it| it.cause == "schema" && it.alarm);
    waits.until("the alarm", missing).await;
    assert_eq!(held.cursor().sequence, 0);
    bench.registry.register("flywheel.held.predictions-value", SCHEMA).await.unwrap();
    waits.until_delivered(1).await;
    waits.until("the end of the alarm", |seen| seen.blocked.lock().unwrap().is_none()).await;
    stop.send(()).unwrap();
    assert_eq!(first.await.unwrap().records, 0);
    assert_eq!(held.cursor().sequence, 1);
    second.abort();
}

#[tokio::test]
async fn what_can_never_be_sent_is_a_dead_letter_and_the_rest_goes_on() {
    let bench = Bench::new();
    let spool = bench.spool("m");
    spool.append(SchemaKey::NONE, |_, out| out.extend_from_slice(b"junk")).unwrap().await.unwrap();
    put(&spool, RecordKind::Ledger, 1).await;
    let lost = Envelope {
        kind: RecordKind::Prediction,
        time_ms: 0,
        producer_id: [0; 16],
        producer_seq: 1,
        key: b"k",
        event_id: b"",
        traceparent: None,
        datum: b"",
    };
    spool.append(SchemaKey(77), |_, out| lost.write(out)).unwrap().await.unwrap();
    put(&spool, RecordKind::Prediction, 3).await;
    let (destination, seen) = (bench.destination().await, Arc::new(Seen::default()));
    let forwarder = bench.forwarder("m", &spool, &destination, &seen, true);
    assert_eq!(forwarder.run(std::future::ready(()), Duration::from_secs(20)).await.records, 0);
    let letters = seen.letters.lock().unwrap().clone();
    assert_eq!(letters, [(0, "unreadable"), (1, "misplaced"), (2, "schema_lost")]);
    let found: Vec<_> = bench.read("flywheel.m.predictions").iter().flat_map(|it| numbers(it)).collect();
    assert_eq!(found, [Some(3)]);
}

#[tokio::test]
async fn a_full_log_makes_the_forwarder_wait_until_the_joiner_has_landed() {
    let bench = Bench::new();
    let spool = bench.spool("m");
    let schema = spool.add_schema(SCHEMA).unwrap();
    let datum = vec![7; 10_000];
    for number in 0..100_u64 {
        let envelope = Envelope {
            kind: RecordKind::Prediction,
            time_ms: 0,
            producer_id: [9; 16],
            producer_seq: number + 1,
            key: b"one partition",
            event_id: b"",
            traceparent: None,
            datum: &datum,
        };
        spool.append(schema, |_, out| envelope.write(out)).unwrap().await.unwrap();
    }
    let bounds = local::Bounds { partition_bytes_max: 400_000, segment_bytes: 50_000, record_bytes_max: 20_000 };
    let log = local::Log::open_within(bench.log().dir(), 1, true, bounds).unwrap();
    let (destination, seen) = (Destination::Local(log), Arc::new(Seen::default()));
    let forwarder = bench.forwarder("m", &spool, &destination, &seen, true);
    let (stop, stopped) = oneshot::channel::<()>();
    let task = tokio::spawn(forwarder.run(async { drop(stopped.await) }, Duration::from_secs(20)));
    let full = |seen: &Seen| seen.blocked.lock().unwrap().as_ref().is_some_and(|blocked| blocked.cause == "full");
    seen.until("a full log", full).await;
    assert!(seen.delivered.load(Ordering::SeqCst) < 100);
    let topic = "flywheel.m.predictions";
    let mut reader = Reader::open(&bench.log().partition_dir(topic, 0), 0).unwrap();
    let mut offsets = Vec::new();
    let all = async {
        while offsets.len() < 100 {
            offsets.extend(reader.read(usize::MAX).unwrap().iter().map(|record| record.sequence));
            bench.log().set_landed(topic, 0, offsets.len() as u64).unwrap();
            reader.wait().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), all).await.unwrap();
    assert_eq!(offsets, (0..100).collect::<Vec<_>>());
    stop.send(()).unwrap();
    assert_eq!(task.await.unwrap().records, 0);
}

#[tokio::test]
async fn a_log_has_one_writer_and_keeps_its_id() {
    let bench = Bench::new();
    let first = bench.destination().await;
    let id = bench.log().cluster_id().unwrap().unwrap();
    let url = format!("file:{}", bench.log().dir().display());
    let config = LogConfig { url, partitions: 3, ..LogConfig::default() };
    let error = Destination::open(&config).await.err().unwrap().to_string();
    assert!(error.contains("one writer"), "{error}");
    drop(first);
    let _second = bench.destination().await;
    assert_eq!(bench.log().cluster_id().unwrap().unwrap(), id);
}

#[tokio::test]
async fn an_absent_broker_costs_bounded_memory_and_a_stop_ends_in_time() {
    let bench = Bench::new();
    let spool = bench.spool("m");
    put(&spool, RecordKind::Prediction, 1).await;
    let config = LogConfig { url: "kafka://127.0.0.1:1".into(), prefix: "flywheel".into(), ..LogConfig::default() };
    let destination = Destination::open(&config).await.unwrap();
    let seen = Arc::new(Seen::default());
    let forwarder = bench.forwarder("m", &spool, &destination, &seen, true);
    let remaining = forwarder.run(std::future::ready(()), Duration::from_millis(100)).await;
    assert_eq!(remaining, Remaining { records: 1 });
    assert_eq!(spool.cursor().sequence, 0);
}
