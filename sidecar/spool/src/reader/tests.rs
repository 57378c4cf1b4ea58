use std::ops::Range;

use super::*;
use crate::{Options, Spool};

fn payload(sequence: u64) -> Vec<u8> {
    sequence.to_be_bytes().repeat(1 + sequence as usize % 20)
}

async fn append(spool: &Spool, count: u64) {
    for _ in 0..count {
        spool.append(SchemaKey(1), |sequence, out| out.extend(payload(sequence))).unwrap().await.unwrap();
    }
}

/// Reads to the end, looking at each payload.
fn read_all(reader: &mut Reader, bytes_max: usize) -> Vec<u64> {
    let mut all = Vec::new();
    loop {
        let records = reader.read(bytes_max).unwrap();
        if records.is_empty() {
            return all;
        }
        let bytes: usize = records.iter().map(|record| record.payload.len()).sum();
        assert!(records.len() == 1 || bytes <= bytes_max);
        assert!(records.iter().all(|record| record.payload == payload(record.sequence)));
        all.extend(records.iter().map(|record| record.sequence));
    }
}

fn sequences(range: Range<u64>) -> Vec<u64> {
    range.collect()
}

fn small() -> Options {
    Options { segment_bytes: 5000, max_bytes: 1_000_000, record_bytes_max: 1000, ..Options::default() }
}

#[tokio::test]
async fn readers_go_their_own_ways() {
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::open(dir.path(), small()).unwrap();
    append(&spool, 300).await;
    let (mut slow, mut quick) = (spool.reader(0), spool.reader(0));
    let first = slow.read(0).unwrap();
    assert_eq!((first.len(), first[0].sequence, slow.position()), (1, 0, 1), "at least one record");
    assert_eq!(read_all(&mut quick, 400), sequences(0..300));
    assert_eq!(read_all(&mut slow, 10_000), sequences(1..300));
    quick.seek(120);
    assert_eq!(quick.position(), 120);
    assert_eq!(read_all(&mut quick, 10_000), sequences(120..300));
    append(&spool, 1).await;
    assert_eq!(read_all(&mut slow, 1), [300]);
    assert_eq!(read_all(&mut quick, 1), [300]);
    slow.seek(1000);
    append(&spool, 10).await;
    assert_eq!(read_all(&mut slow, 1), Vec::<u64>::new());
}

#[tokio::test]
async fn a_reader_of_what_is_deleted_goes_on_at_the_oldest() {
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::open(dir.path(), small()).unwrap();
    append(&spool, 300).await;
    let mut own = spool.reader(0);
    let mut other = Reader::open(dir.path(), 0).unwrap();
    own.read(1).unwrap();
    spool.advance(250, b"").unwrap();
    let oldest = spool.usage().oldest;
    assert!(oldest > 200 && oldest <= 250, "{oldest}");
    assert_eq!(read_all(&mut other, 1000), sequences(oldest..300));
    let rest = read_all(&mut own, 1000);
    assert!(rest.ends_with(&sequences(oldest..300)), "{rest:?}");
}

#[tokio::test]
async fn waiting_ends_when_there_is_more() {
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::open(dir.path(), small()).unwrap();
    let mut reader = spool.reader(0);
    for round in 0..50 {
        let waiting = tokio::spawn(async move {
            reader.wait().await;
            reader
        });
        append(&spool, 1).await;
        reader = tokio::time::timeout(Duration::from_secs(30), waiting).await.expect("woken").unwrap();
        assert_eq!(read_all(&mut reader, 1), [round]);
    }
    assert!(futures_poll_once(reader.wait()).await.is_none(), "nothing to wait for");
}

async fn futures_poll_once<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = std::pin::pin!(future);
    std::future::poll_fn(|context| {
        std::task::Poll::Ready(match future.as_mut().poll(context) {
            std::task::Poll::Ready(value) => Some(value),
            std::task::Poll::Pending => None,
        })
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_tasks_append_while_another_process_would_read() {
    const TASKS: u64 = 64;
    const EACH: u64 = 200;
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::open(dir.path(), Options { segment_bytes: 100_000, ..Options::default() }).unwrap();
    let path = dir.path().to_path_buf();
    let reading = tokio::task::spawn_blocking(move || {
        let mut reader = Reader::open(&path, 0).unwrap();
        let mut expected = 0;
        let started = std::time::Instant::now();
        while expected < TASKS * EACH {
            for record in reader.read(10_000).unwrap() {
                assert_eq!(record.sequence, expected);
                assert_eq!(record.payload, payload(expected));
                expected += 1;
            }
            assert!(started.elapsed() < Duration::from_secs(60), "stands at {expected}");
            std::thread::yield_now();
        }
        assert_eq!(reader.skipped(), Skipped::default());
    });
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            let spool = spool.clone();
            tokio::spawn(async move { append(&spool, EACH).await })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(spool.next_sequence(), TASKS * EACH);
    reading.await.unwrap();
    spool.close().unwrap();
    assert_eq!(read_all(&mut Reader::open(dir.path(), 0).unwrap(), 100_000), sequences(0..TASKS * EACH));
}

#[test]
fn a_directory_that_is_not_there_yet_is_empty() {
    let dir = tempfile::tempdir().unwrap();
    let mut reader = Reader::open(&dir.path().join("later"), 0).unwrap();
    assert_eq!(reader.read(1).unwrap(), Vec::new());
    let spool = Spool::open(&dir.path().join("later"), small()).unwrap();
    drop(spool.append(SchemaKey(1), |sequence, out| out.extend(payload(sequence))).unwrap());
    drop(spool);
    assert_eq!(read_all(&mut reader, 1), [0]);
}
