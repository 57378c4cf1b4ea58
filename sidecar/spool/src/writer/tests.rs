use std::path::{Path, PathBuf};

use super::*;
use crate::storage::memory::Memory;
use crate::{AppendError, Options, Pending, SchemaKey, Spool};

const DIR: &str = "/spool";
const MODES: [(Accepted, Compress); 4] = [
    (Accepted::Kernel, Compress::None),
    (Accepted::Disk, Compress::None),
    (Accepted::Kernel, Compress::Zstd),
    (Accepted::Disk, Compress::Zstd),
];

fn open(memory: &Memory, options: Options) -> Spool {
    Spool::open_in(Arc::new(memory.clone()), Path::new(DIR), options).unwrap()
}

fn append(spool: &Spool, bytes: usize) -> Result<Pending, AppendError> {
    spool.append(SchemaKey::NONE, |sequence, out| out.resize(bytes, sequence as u8))
}

fn segments(memory: &Memory) -> Vec<PathBuf> {
    memory.paths().into_iter().filter(|path| path.extension().is_some_and(|kind| kind == "log")).collect()
}

fn sequences(spool: &Spool) -> Vec<u64> {
    spool.reader(0).read(usize::MAX).unwrap().into_iter().map(|record| record.sequence).collect()
}

#[tokio::test]
async fn a_full_disk_refuses_appends_and_loses_nothing() {
    for (accepted, compress) in MODES {
        let memory = Memory::default();
        let spool = open(&memory, Options { accepted, compress, ..Options::default() });
        append(&spool, 100).unwrap().await.unwrap();
        memory.fail(|faults| (faults.full_writes, faults.full_after_bytes) = (u32::MAX, 40));
        let pending = append(&spool, 100).unwrap();
        assert_eq!(pending.await, Err(AppendError::Failed));
        // From now on nothing is taken, and `write` does not run.
        let refused = spool.append(SchemaKey::NONE, |_, _| panic!("not called"));
        assert_eq!(refused.unwrap_err(), AppendError::Failed);
        assert!(spool.failure().unwrap().contains("No space left"));
        for _ in 0..20 {
            assert!(matches!(spool.sync().await, Err(SpoolError::Failed(_))));
        }
        assert!(segments(&memory).len() <= 3, "attempts leave files behind: {:?}", segments(&memory));
        assert_eq!(sequences(&spool), [0], "what is not written is not read");
        memory.mend();
        spool.sync().await.unwrap();
        assert_eq!(spool.failure(), None);
        append(&spool, 100).unwrap().await.unwrap();
        assert_eq!(sequences(&spool), [0, 1, 2]);
        spool.close().unwrap();
    }
}

#[tokio::test]
async fn closing_on_a_full_disk_says_what_is_missing() {
    let memory = Memory::default();
    let spool = open(&memory, Options::default());
    memory.fail(|faults| faults.full_writes = u32::MAX);
    assert_eq!(append(&spool, 10).unwrap().await, Err(AppendError::Failed));
    assert!(matches!(spool.close(), Err(SpoolError::Unwritten { records: 1, .. })));
    assert!(matches!(spool.close(), Err(SpoolError::Unwritten { records: 1, .. })));
}

#[tokio::test]
async fn after_a_failed_sync_the_records_are_synced_in_another_file() {
    for ((accepted, compress), failures) in MODES.into_iter().flat_map(|mode| [(mode, 1), (mode, 5)]) {
        let memory = Memory::default();
        let sync_interval = Duration::MAX;
        let spool = open(&memory, Options { accepted, compress, sync_interval, ..Options::default() });
        append(&spool, 10).unwrap().await.unwrap();
        spool.sync().await.unwrap();
        memory.fail(|faults| faults.failed_syncs = failures);
        let first = append(&spool, 10).unwrap().await;
        if accepted == Accepted::Kernel || failures == 1 {
            assert_eq!(first, Ok(1));
        } else {
            assert_eq!(first, Err(AppendError::Failed));
        }
        let mut attempts = 0;
        while spool.sync().await.is_err() {
            attempts += 1;
            assert!(attempts <= failures);
            assert!(segments(&memory).len() <= 3);
        }
        // The memory file system keeps nothing of a file whose sync failed, whatever later syncs of it say.
        memory.cut_power(|_| 0);
        drop(spool);
        let spool = open(&memory, Options::default());
        assert_eq!(sequences(&spool), [0, 1], "{accepted:?} {compress:?} {failures}");
    }
}

#[tokio::test]
async fn without_a_sync_a_power_cut_takes_what_only_the_kernel_had() {
    // The counterpart of the test above: it shows that the memory file system can lose something.
    let memory = Memory::default();
    let spool = open(&memory, Options { sync_interval: Duration::MAX, ..Options::default() });
    append(&spool, 10).unwrap().await.unwrap();
    let copy = memory.duplicate_unsynced();
    copy.cut_power(|_| 0);
    assert_eq!(sequences(&open(&copy, Options::default())), Vec::<u64>::new());
    drop(spool);
}

#[tokio::test]
async fn a_written_record_is_synced_by_itself_after_the_interval() {
    let memory = Memory::default();
    let spool = open(&memory, Options { sync_interval: Duration::from_millis(1), ..Options::default() });
    append(&spool, 10).unwrap().await.unwrap();
    let started = Instant::now();
    loop {
        let copy = memory.duplicate_unsynced();
        copy.cut_power(|_| 0);
        if sequences(&open(&copy, Options::default())) == [0] {
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(30), "never synced");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn the_bound_holds_and_forwarding_makes_room() {
    for compress in [Compress::None, Compress::Zstd] {
        bound_of(compress).await;
    }
}

async fn bound_of(compress: Compress) {
    let memory = Memory::default();
    let (segment_bytes, max_bytes, record_bytes_max) = (2000, 20_000, 500);
    let options = Options { segment_bytes, max_bytes, record_bytes_max, compress, ..Options::default() };
    let spool = open(&memory, options);
    let mut appended = 0;
    for _ in 0..5 {
        let refused = loop {
            match append(&spool, 200) {
                Ok(pending) => appended = pending.await.unwrap() + 1,
                Err(error) => break error,
            }
            let on_disk: usize = segments(&memory).iter().map(|path| memory.with(path, |bytes| bytes.len())).sum();
            assert_eq!(spool.usage().bytes, on_disk as u64);
            assert!(on_disk <= 20_000);
        };
        assert_eq!(refused, AppendError::Full);
        assert!(spool.usage().bytes > 19_000, "the room is used: {:?}", spool.usage());
        spool.advance(appended - 1, b"").unwrap();
        assert!(segments(&memory).len() <= 2);
        assert_eq!(sequences(&spool).last(), Some(&(appended - 1)));
    }
}

#[tokio::test]
async fn memory_is_bounded_while_the_disk_stands_still() {
    let memory = Memory::default();
    let spool = open(&memory, Options { record_bytes_max: 100_000, ..Options::default() });
    let hold = memory.hold_writes();
    let mut taken = 0;
    let refused = loop {
        match append(&spool, 100_000) {
            Ok(pending) => drop(pending),
            Err(error) => break error,
        }
        taken += 1;
        assert!(taken < 1000, "no bound");
    };
    assert_eq!(refused, AppendError::Full);
    assert!(taken > 50);
    drop(hold);
    spool.sync().await.unwrap();
    assert_eq!(sequences(&spool).len(), taken);
}

#[tokio::test]
async fn what_an_append_must_not_do_harms_nobody() {
    let memory = Memory::default();
    let spool = open(&memory, Options { record_bytes_max: 100, ..Options::default() });
    assert_eq!(append(&spool, 101).unwrap_err(), AppendError::TooLarge);
    append(&spool, 100).unwrap().await.unwrap();
    let panics = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        spool.append(SchemaKey::NONE, |_, out| {
            out.extend_from_slice(b"half a rec");
            panic!("on purpose");
        })
    }));
    assert!(panics.is_err());
    assert_eq!(append(&spool, 0).unwrap().await, Ok(1));
    assert_eq!(sequences(&spool), [0, 1]);
}
