use std::future::Future;
use std::path::Path;

use super::*;
use crate::Accepted;

fn payload(sequence: u64) -> Vec<u8> {
    format!("record {sequence}").into_bytes()
}

fn read_all(reader: &mut Reader) -> Vec<(u64, Vec<u8>)> {
    let mut all = Vec::new();
    loop {
        let records = reader.read(1000).unwrap();
        if records.is_empty() {
            return all;
        }
        all.extend(records.into_iter().map(|record| (record.sequence, record.payload.to_vec())));
    }
}

fn append(spool: &Spool, count: u64) -> Vec<Pending> {
    (0..count).map(|_| spool.append(SchemaKey::NONE, |sequence, out| out.extend(payload(sequence))).unwrap()).collect()
}

fn expected(range: std::ops::Range<u64>) -> Vec<(u64, Vec<u8>)> {
    range.map(|sequence| (sequence, payload(sequence))).collect()
}

#[tokio::test]
async fn what_is_accepted_is_read_by_every_reader_and_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    for accepted in [Accepted::Kernel, Accepted::Disk] {
        let dir: &Path = &dir.path().join(format!("{accepted:?}"));
        let spool = Spool::open(dir, Options { accepted, ..Options::default() }).unwrap();
        let key = spool.add_schema("{\"type\": \"string\"}").unwrap();
        assert_eq!(spool.add_schema("{\"type\": \"string\"}").unwrap(), key);
        let mut own = spool.reader(0);
        for (expected, pending) in append(&spool, 100).into_iter().enumerate() {
            assert_eq!(pending.await, Ok(expected as u64));
        }
        own.wait().await;
        assert_eq!(read_all(&mut own), expected(0..100));
        assert_eq!(read_all(&mut spool.reader(40)), expected(40..100));
        assert_eq!(own.position(), 100);
        let mut foreign = Reader::open(dir, 0).unwrap();
        assert_eq!(read_all(&mut foreign), expected(0..100));
        spool.advance(60, b"note").unwrap();
        assert!(matches!(spool.advance(59, b""), Err(SpoolError::CursorBack { .. })));
        assert!(matches!(spool.advance(101, b""), Err(SpoolError::CursorPastEnd { .. })));
        assert!(matches!(Spool::open(dir, Options::default()), Err(SpoolError::Locked(_))));
        spool.close().unwrap();
        assert_eq!(spool.append(SchemaKey::NONE, |_, _| panic!("not called")).unwrap_err(), AppendError::Closed);
        assert!(matches!(spool.advance(70, b""), Err(SpoolError::Closed)));

        let spool = Spool::open(dir, Options { accepted, ..Options::default() }).unwrap();
        let cursor = Cursor { sequence: 60, note: b"note".to_vec() };
        let recovery = Recovery { records: 40, next_sequence: 100, cursor, ..Recovery::default() };
        assert_eq!(*spool.recovery(), recovery);
        assert_eq!(spool.schema(key).as_deref(), Some("{\"type\": \"string\"}"));
        assert_eq!(foreign.schema(key).as_deref(), Some("{\"type\": \"string\"}"));
        append(&spool, 5).pop().unwrap().await.unwrap();
        spool.sync().await.unwrap();
        assert_eq!(read_all(&mut foreign), expected(100..105));
        assert_eq!(read_all(&mut spool.reader(60)), expected(60..105));
    }
}

/// The writer sleeps until somebody asks for what was appended: who goes away without asking has it woken all the same,
/// and one who asks once for many records too.
#[tokio::test]
async fn what_nobody_waits_for_is_written_too() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { sync_interval: std::time::Duration::MAX, ..Options::default() };
    let spool = Spool::open(dir.path(), options).unwrap();
    let mut reader = spool.reader(0);
    let written = async |reader: &mut Reader, count: u64| {
        while spool.handle.shared.written.get() < count {
            tokio::time::timeout(std::time::Duration::from_secs(60), reader.wait()).await.expect("written in time");
            read_all(reader);
        }
    };
    drop(append(&spool, 1));
    written(&mut reader, 1).await;
    // Polled once and then left, as by a client that goes away.
    let mut pending = append(&spool, 1).pop().unwrap();
    assert_eq!(poll_once(&mut pending).await, std::task::Poll::Pending);
    drop(pending);
    written(&mut reader, 2).await;
    // Held and never polled, but whole blocks of them.
    let held = append(&spool, 100_000);
    written(&mut reader, 3).await;
    drop(held);
    written(&mut reader, 100_002).await;
}

/// Polls a record that the writer, which sleeps, cannot have written yet.
async fn poll_once(pending: &mut Pending) -> std::task::Poll<Result<u64, AppendError>> {
    std::future::poll_fn(|context| std::task::Poll::Ready(std::pin::Pin::new(&mut *pending).poll(context))).await
}
