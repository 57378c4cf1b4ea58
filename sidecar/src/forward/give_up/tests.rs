//! A real spool and a real log that is full, or has what it had before: each number is in the log or in the span of a loss.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use flywheel_schemas::log::{self, Folder};
use flywheel_schemas::registry::{Registry, RegistryConfig};
use flywheel_schemas::wire::{self, Kind};
use flywheel_spool::{AppendError, Options, Reader};
use futures::future::BoxFuture;
use tempfile::TempDir;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;

use super::*;
use crate::forward::{Blocked, Destination, Loss, Remaining, Topics, Watcher, local};
use crate::record::{ProducerSeq, RecordKind};

const SCHEMA: &str = r#"{"type":"record","name":"r","fields":[]}"#;
const TOPIC: &str = "flywheel.m.predictions";
const PRODUCER: [u8; 16] = [9; 16];
const BOUND: Duration = Duration::from_secs(120);

/// Stands for the ledger.
#[derive(Default)]
struct Book {
    losses: Mutex<Vec<Loss>>,
    /// So many are refused.
    refuses: AtomicUsize,
    /// What it took is never answered, as where the process is killed then.
    stalls: AtomicBool,
    is_full: AtomicBool,
    changed: Notify,
}

impl Watcher for Book {
    fn blocked(&self, blocked: Option<&Blocked>) {
        self.is_full.store(blocked.is_some_and(|blocked| blocked.cause == "full"), Ordering::SeqCst);
        self.changed.notify_one();
    }

    fn lost<'a>(&'a self, losses: &'a [Loss]) -> BoxFuture<'a, usize> {
        if self.refuses.load(Ordering::SeqCst) > 0 {
            self.refuses.fetch_sub(1, Ordering::SeqCst);
            self.changed.notify_one();
            return Box::pin(std::future::ready(0));
        }
        self.losses.lock().unwrap().extend(losses);
        self.changed.notify_one();
        if self.stalls.load(Ordering::SeqCst) {
            return Box::pin(std::future::pending());
        }
        Box::pin(std::future::ready(losses.len()))
    }
}

impl Book {
    fn losses(&self) -> Vec<Loss> {
        self.losses.lock().unwrap().clone()
    }

    /// As a start takes it from the ledger.
    fn named(&self) -> Note {
        let mut note = Note::default();
        for loss in self.losses() {
            note.set(loss.kind, ProducerSeq { producer_id: loss.producer_id, producer_seq: loss.last_seq });
        }
        note
    }

    /// The lost numbers; that spans overlap is a fault.
    fn numbers(&self) -> BTreeSet<u64> {
        let mut numbers = BTreeSet::new();
        for loss in self.losses() {
            assert_eq!((loss.kind, loss.producer_id), (Kind::Predictions, PRODUCER));
            assert!(loss.count >= 1 && loss.count <= loss.last_seq + 1 - loss.first_seq, "{loss:?}");
            assert!((loss.first_seq..=loss.last_seq).all(|seq| numbers.insert(seq)), "{loss:?} is named twice");
        }
        numbers
    }

    async fn until(&self, what: &str, done: impl Fn(&Book) -> bool) {
        let waited = tokio::time::timeout(BOUND, async {
            while !done(self) {
                let _ = tokio::time::timeout(Duration::from_millis(50), self.changed.notified()).await;
            }
        });
        assert!(waited.await.is_ok(), "{what}: never came; {:?}", self.losses());
    }
}

struct Bench {
    dir: TempDir,
    registry: Registry,
    book: std::sync::Arc<Book>,
    ended: Note,
    registers: bool,
}

type Running = (oneshot::Sender<()>, JoinHandle<Remaining>);

impl Bench {
    fn new() -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("file:{}", dir.path().join("registry").display());
        let registry = Registry::open(&RegistryConfig { url, ..RegistryConfig::default() }).unwrap();
        Bench { dir, registry, book: Default::default(), ended: Note::default(), registers: true }
    }

    fn spool_dir(&self) -> PathBuf {
        self.dir.path().join("spool")
    }

    /// Small: eight segments of some ten records.
    fn spool(&self) -> Spool {
        let options =
            Options { segment_bytes: 25_000, max_bytes: 200_000, record_bytes_max: 20_000, ..Options::default() };
        Spool::open(&self.spool_dir(), options).unwrap()
    }

    fn log(&self) -> Folder {
        Folder::new(&self.dir.path().join("log"))
    }

    /// A log of one partition that takes so many bytes until they are landed.
    fn destination(&self, partition_bytes_max: u64) -> Destination {
        let bounds = local::Bounds { partition_bytes_max, segment_bytes: 25_000, record_bytes_max: 20_000 };
        Destination::Local(local::Log::open_within(self.log().dir(), 1, true, bounds).unwrap())
    }

    fn start(&self, spool: &Spool, destination: &Destination, retention: Retention) -> Running {
        let topics = Topics::model("flywheel", "m");
        let forwarder = Forwarder::new(
            spool.clone(),
            topics,
            self.registry.clone(),
            self.registers,
            destination,
            self.book.clone(),
        )
        .with_retention(retention, self.book.named(), self.ended);
        let (stop, stopped) = oneshot::channel::<()>();
        (stop, tokio::spawn(forwarder.run(async { drop(stopped.await) }, BOUND)))
    }

    /// Sends all that is left to a log that takes it.
    async fn drain(&self, spool: &Spool) {
        let destination = self.destination(1 << 30);
        let (stop, task) = self.start(spool, &destination, Retention::default());
        stop.send(()).unwrap();
        assert_eq!(task.await.unwrap(), Remaining { records: 0 });
    }

    /// The numbers in the log, with copies.
    fn delivered(&self) -> Vec<u64> {
        let mut reader = Reader::open(&self.log().partition_dir(TOPIC, 0), 0).unwrap();
        let mut numbers = Vec::new();
        loop {
            let records = reader.read(1 << 20).unwrap();
            if records.is_empty() {
                return numbers;
            }
            numbers.extend(records.iter().map(|record| {
                let mut headers = log::decode(&record.payload).unwrap().headers;
                let (_, number) = headers.find(|(name, _)| *name == wire::PRODUCER_SEQ).unwrap();
                str::from_utf8(number.unwrap()).unwrap().parse::<u64>().unwrap()
            }));
        }
    }
}

fn append(spool: &Spool, seq: u64, time_ms: i64) -> Result<(), AppendError> {
    let schema = spool.add_schema(SCHEMA).unwrap();
    let datum = vec![seq as u8; 2_000];
    let envelope = Envelope {
        kind: RecordKind::Prediction,
        time_ms,
        producer_id: PRODUCER,
        producer_seq: seq,
        key: b"one partition",
        event_id: b"e",
        traceparent: None,
        datum: &datum,
    };
    spool.append(schema, |_, out| envelope.write(out)).map(drop)
}

/// Appends these, waiting for room where there is none: it must come.
async fn append_all(spool: &Spool, numbers: std::ops::RangeInclusive<u64>) {
    let appended = tokio::time::timeout(BOUND, async {
        for seq in numbers {
            while let Err(error) = append(spool, seq, 0) {
                assert_eq!(error, AppendError::Full);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        spool.sync().await.unwrap();
    });
    appended.await.expect("room for new records");
}

fn all(last: u64) -> BTreeSet<u64> {
    (1..=last).collect()
}

const DROP_OLDEST: Retention = Retention { drop_oldest: true, max_age: None };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_spool_goes_on_taking_records_and_every_number_is_in_the_log_or_named() {
    let bench = Bench::new();
    let spool = bench.spool();
    let destination = bench.destination(100_000);
    let (stop, task) = bench.start(&spool, &destination, DROP_OLDEST);
    append_all(&spool, 1..=60).await;
    // All that was sent is acknowledged by now, and from here on the log takes nothing.
    bench.book.until("a full log", |book| book.is_full.load(Ordering::SeqCst)).await;
    append_all(&spool, 61..=500).await;
    let count = |book: &Book| book.losses().iter().map(|loss| loss.count).sum::<u64>();
    bench.book.until("losses", |book| count(book) > 250).await;
    drop((stop, destination));
    task.abort();
    let _ = task.await;
    bench.drain(&spool).await;
    let (delivered, lost) = (bench.delivered().into_iter().collect::<BTreeSet<_>>(), bench.book.numbers());
    assert_eq!(&delivered | &lost, all(500));
    assert!(bench.book.losses().iter().all(|loss| loss.reason == Reason::SpoolFull));
    assert_eq!(delivered.len() as u64 + count(&bench.book), 500, "accepted = landed + dropped");
    assert!(delivered.contains(&1) && delivered.contains(&500), "the newest are kept");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_moment_it_names_each_loss_and_names_none_twice() {
    let bench = Bench::new();
    let mut spool = bench.spool();
    let mut appended = 0;
    for round in 0..6 {
        let destination = bench.destination(90_000 + 10_000 * round);
        // In turns: killed between the naming and the cursor, and at any moment.
        bench.book.stalls.store(round % 2 == 0, Ordering::SeqCst);
        let (before, began) = (bench.book.losses().len(), Instant::now());
        let (_stop, task) = bench.start(&spool, &destination, DROP_OLDEST);
        while bench.book.losses().len() == before {
            if append(&spool, appended + 1, 0).is_ok() {
                appended += 1;
            } else {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            assert!(began.elapsed() < BOUND, "no loss");
        }
        task.abort();
        let _ = task.await;
        drop(destination);
        spool.close().unwrap();
        spool = bench.spool();
    }
    bench.book.stalls.store(false, Ordering::SeqCst);
    bench.drain(&spool).await;
    let (delivered, lost) = (bench.delivered().into_iter().collect::<BTreeSet<_>>(), bench.book.numbers());
    assert_eq!(&delivered | &lost, all(appended));
    assert!(lost.len() > 50 && delivered.len() > 50, "{} lost, {} delivered", lost.len(), delivered.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_the_ledger_takes_nothing_nothing_is_given_up() {
    let bench = Bench::new();
    bench.book.refuses.store(usize::MAX, Ordering::SeqCst);
    let spool = bench.spool();
    let destination = bench.destination(90_000);
    let (_stop, task) = bench.start(&spool, &destination, DROP_OLDEST);
    let mut appended = 0;
    let (mut refused_since, began) = (None::<usize>, Instant::now());
    // Full, and still full after the ledger was asked again.
    while refused_since.is_none_or(|since| since - bench.book.refuses.load(Ordering::SeqCst) < 2) {
        match append(&spool, appended + 1, 0) {
            Ok(()) => (appended, refused_since) = (appended + 1, None),
            Err(error) => {
                assert_eq!(error, AppendError::Full);
                assert!(began.elapsed() < BOUND, "the ledger was not asked again");
                refused_since.get_or_insert(bench.book.refuses.load(Ordering::SeqCst));
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }
    assert_eq!(bench.book.losses(), []);
    // Once it takes them, there is room.
    bench.book.refuses.store(0, Ordering::SeqCst);
    append_all(&spool, appended + 1..=appended + 100).await;
    task.abort();
    let _ = task.await;
    drop(destination);
    bench.drain(&spool).await;
    let delivered: BTreeSet<u64> = bench.delivered().into_iter().collect();
    assert_eq!(&delivered | &bench.book.numbers(), all(appended + 100));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_old_is_given_up_to_the_record() {
    let mut bench = Bench::new();
    let spool = bench.spool();
    for seq in 1..=10 {
        append(&spool, seq, 1_000).unwrap();
    }
    let now_ms = crate::api::now_ms();
    for seq in 11..=15 {
        append(&spool, seq, now_ms).unwrap();
    }
    spool.sync().await.unwrap();
    // The schema is not registered, so nothing is sent.
    bench.registers = false;
    let destination = bench.destination(1 << 30);
    let retention = Retention { drop_oldest: false, max_age: Some(Duration::from_secs(3_600)) };
    let (_stop, task) = bench.start(&spool, &destination, retention);
    bench.book.until("the loss of the old", |_| spool.cursor().sequence == 10).await;
    task.abort();
    let _ = task.await;
    drop(destination);
    bench.registers = true;
    bench.drain(&spool).await;
    let delivered: BTreeSet<u64> = bench.delivered().into_iter().collect();
    let reason = Reason::TooOld;
    let loss = bench.book.losses()[0];
    assert_eq!((loss.last_seq, loss.reason, bench.book.losses().len()), (10, reason, 1));
    assert_eq!(delivered, (11..=15).collect());
}

/// The bytes of a record in the segment files, to be damaged.
fn damage(bench: &Bench, seqs: &[u64]) {
    let mut left: BTreeSet<u64> = seqs.iter().copied().collect();
    for entry in std::fs::read_dir(bench.spool_dir()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "log") {
            continue;
        }
        let mut bytes = std::fs::read(&path).unwrap();
        for &seq in seqs {
            let datum = vec![seq as u8; 2_000];
            if let Some(at) = bytes.windows(datum.len()).position(|window| window == datum) {
                bytes[at] ^= 1;
                left.remove(&seq);
            }
        }
        std::fs::write(&path, bytes).unwrap();
    }
    assert!(left.is_empty(), "not found: {left:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_is_named_when_the_cursor_passes_it() {
    let mut bench = Bench::new();
    let spool = bench.spool();
    append_all(&spool, 1..=40).await;
    spool.close().unwrap();
    damage(&bench, &[3, 4, 17, 39, 40]);
    let spool = bench.spool();
    // The ledger has what the spool cannot show any more; and another producer comes after it.
    bench.ended.set(Kind::Predictions, ProducerSeq { producer_id: PRODUCER, producer_seq: 40 });
    let schema = spool.add_schema(SCHEMA).unwrap();
    let successor = Envelope {
        kind: RecordKind::Prediction,
        time_ms: 0,
        producer_id: [8; 16],
        producer_seq: 1,
        key: b"one partition",
        event_id: b"e",
        traceparent: None,
        datum: b"",
    };
    spool.append(schema, |_, out| successor.write(out)).unwrap().await.unwrap();
    // Not before they are on record.
    bench.book.refuses.store(usize::MAX, Ordering::SeqCst);
    bench.drain(&spool).await;
    assert_eq!((spool.cursor().sequence, bench.book.losses()), (0, Vec::new()));
    bench.book.refuses.store(0, Ordering::SeqCst);
    bench.drain(&spool).await;
    assert_eq!(spool.cursor().sequence, 41);
    let spans: Vec<_> = bench.book.losses().iter().map(|loss| (loss.first_seq, loss.last_seq, loss.reason)).collect();
    assert_eq!(spans, [(3, 4, Reason::Damaged), (17, 17, Reason::Damaged), (39, 40, Reason::Damaged)]);
    let mut delivered: BTreeSet<u64> = bench.delivered().into_iter().collect();
    delivered.extend(bench.book.numbers());
    assert_eq!(delivered, all(40));
}
