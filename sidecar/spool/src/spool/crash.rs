//! A short life of a spool that ends between any two operations on the disk: the process is killed there, or the power goes.

use std::time::Duration;

use super::*;
use crate::storage::memory::Memory;
use crate::{Accepted, Compress};

const DIR: &str = "/spool";
const TEXT: &str = "{\"type\": \"string\"}";
const RECORDS: u64 = 24;

/// How it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Kill,
    /// What was not synced is there or not, by this seed.
    Power(u64),
}

/// What had been answered when it ended.
#[derive(Debug, Default)]
struct Answered {
    /// Below this all were accepted.
    accepted: u64,
    schema: Option<SchemaKey>,
    /// The cursor, and where it was to go.
    cursor: u64,
    cursor_asked: u64,
    /// It came to its end, before the machine stopped.
    whole: bool,
}

fn payload(sequence: u64) -> Vec<u8> {
    format!("record {sequence}{}", " and so on".repeat(sequence as usize % 7)).into_bytes()
}

fn open(memory: &Memory, options: &Options) -> Result<Spool, SpoolError> {
    Spool::open_in(Arc::new(memory.clone()), Path::new(DIR), options.clone())
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(120), future).await }).expect("the spool answers")
}

/// Until something fails: two processes, several segments, a schema, and a cursor that moves.
fn live(memory: &Memory, options: &Options) -> Answered {
    let mut answered = Answered::default();
    for process in 0..2 {
        let Ok(spool) = open(memory, options) else { return answered };
        let Ok(schema) = spool.add_schema(TEXT) else { return answered };
        answered.schema = Some(schema);
        for _ in 0..RECORDS / 2 {
            let appended = spool.append(schema, |sequence, out| out.extend(payload(sequence)));
            let Ok(Ok(sequence)) = appended.map(wait) else { return answered };
            assert_eq!(sequence, answered.accepted);
            answered.accepted = sequence + 1;
            if sequence % 5 == 4 {
                answered.cursor_asked = sequence - 2;
                if spool.advance(answered.cursor_asked, b"note").is_err() {
                    return answered;
                }
                answered.cursor = answered.cursor_asked;
            }
        }
        if spool.close().is_err() {
            return answered;
        }
        answered.whole = process == 1;
    }
    answered
}

fn check(operations: u64, end: End, options: &Options) -> bool {
    let case = format!("{end:?} after {operations} operations, {:?}, {:?}", options.accepted, options.compress);
    let memory = Memory::default();
    memory.stop_after(operations);
    let answered = live(&memory, options);
    match end {
        End::Kill => memory.run_again(),
        End::Power(seed) => {
            let mut state = seed;
            memory.cut_power(|bound| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (state >> 33) as usize % bound
            });
        }
    }
    let spool = open(&memory, options).unwrap_or_else(|error| panic!("{case}: {error}"));
    let cursor = spool.cursor().sequence;
    assert!(cursor == answered.cursor || cursor == answered.cursor_asked, "{case}: cursor {cursor}, {answered:?}");
    if let Some(schema) = answered.schema {
        assert_eq!(spool.schema(schema).as_deref(), Some(TEXT), "{case}");
    }
    let appended = wait(spool.append(SchemaKey(1), |sequence, out| out.extend(payload(sequence))).unwrap()).unwrap();
    let mut reader = spool.reader(cursor);
    let mut found = Vec::new();
    loop {
        let records = reader.read(1000).unwrap();
        if records.is_empty() {
            break;
        }
        for record in records {
            assert_eq!((record.schema, record.payload), (SchemaKey(1), payload(record.sequence).into()), "{case}");
            found.push(record.sequence);
        }
    }
    assert!(found.is_sorted_by(|one, other| one < other), "{case}: {found:?}");
    let survives = end == End::Kill || options.accepted == Accepted::Disk;
    let must = if survives { cursor..answered.accepted } else { cursor..cursor };
    assert!(must.into_iter().all(|sequence| found.binary_search(&sequence).is_ok()), "{case}: {answered:?}, {found:?}");
    assert_eq!(found.last(), Some(&appended), "{case}");
    spool.close().unwrap();
    answered.whole
}

#[test]
fn between_any_two_operations_a_crash_takes_nothing_that_was_answered() {
    for (accepted, compress) in [
        (Accepted::Kernel, Compress::None),
        (Accepted::Kernel, Compress::Zstd),
        (Accepted::Disk, Compress::None),
        (Accepted::Disk, Compress::Zstd),
    ] {
        let options = Options {
            segment_bytes: 500,
            max_bytes: 100_000,
            record_bytes_max: 300,
            accepted,
            compress,
            sync_interval: Duration::MAX,
        };
        for end in [End::Kill, End::Power(1), End::Power(2), End::Power(3), End::Power(4)] {
            let operations = (0..).find(|&operations| check(operations, end, &options)).unwrap_or_default();
            assert!(operations > 60, "a life of {operations} operations shows little");
        }
    }
}
