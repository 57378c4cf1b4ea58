//! The spool beside a plain list of what was appended, through faults, crashes and power cuts in any order.

use std::path::PathBuf;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::Config;

use super::*;
use crate::block::{MAGIC, Record};
use crate::extent::extent_in;
use crate::storage::memory::Memory;
use crate::{Accepted, Compress, Skipped};

const RECORD_BYTES_MAX: usize = 300;

#[derive(Debug, Clone)]
enum Step {
    Append { sizes: Vec<usize>, wait: bool },
    Sync,
    Read { bytes_max: usize },
    Seek { to: f64 },
    ForeignRead,
    Advance { by: f64 },
    FullWrites { count: u32, after_bytes: usize },
    FailedSyncs { count: u32 },
    FailedCuts,
    FailedCreates { count: u32 },
    ShortWrites { bytes: usize },
    Mend,
    Reopen,
    Crash { after: u64, sizes: Vec<usize>, advance: Option<f64>, power: Option<u64> },
}

fn sizes() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(prop_oneof![4 => 0..60usize, 1 => 0..=RECORD_BYTES_MAX], 1..12)
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (sizes(), any::<bool>()).prop_map(|(sizes, wait)| Step::Append { sizes, wait }),
        3 => Just(Step::Sync),
        4 => (0..2000usize).prop_map(|bytes_max| Step::Read { bytes_max }),
        1 => (0.0..1.0).prop_map(|to| Step::Seek { to }),
        3 => Just(Step::ForeignRead),
        4 => (0.0..=1.0).prop_map(|by| Step::Advance { by }),
        2 => (1..4u32, 0..400usize).prop_map(|(count, after_bytes)| Step::FullWrites { count, after_bytes }),
        2 => (1..5u32).prop_map(|count| Step::FailedSyncs { count }),
        1 => Just(Step::FailedCuts),
        1 => (1..3u32).prop_map(|count| Step::FailedCreates { count }),
        1 => (1..100usize).prop_map(|bytes| Step::ShortWrites { bytes }),
        3 => Just(Step::Mend),
        2 => Just(Step::Reopen),
        3 => (0..12u64, sizes(), prop::option::of(0.0..=1.0), prop::option::of(any::<u64>()))
            .prop_map(|(after, sizes, advance, power)| Step::Crash { after, sizes, advance, power }),
    ]
}

#[derive(Debug, Clone)]
struct Entry {
    payload: Vec<u8>,
    /// It must be there until the cursor has passed it.
    certain: bool,
    /// A process that was told of a failed sync died before it could write again: the next one reads the record, syncs it
    /// with success, and it is still not on the disk. Only the power finds out.
    shaky: bool,
}

struct Model {
    memory: Memory,
    dir: PathBuf,
    options: Options,
    runtime: tokio::runtime::Runtime,
    spool: Spool,
    own: Reader,
    foreign: Reader,
    /// By sequence.
    entries: Vec<Entry>,
    /// Below, all was answered with success, or is on the disk.
    accepted: u64,
    durable: u64,
    appended: u64,
    /// Bytes may be broken that nobody broke on purpose.
    may_be_damaged: bool,
    may_fail: bool,
    /// Once something failed, what is written a second time may be beyond the bound for a while.
    has_failed: bool,
    syncs_failed: bool,
}

impl Model {
    fn new(accepted: Accepted, compress: Compress, sync_interval: Duration, max_bytes: u64) -> Model {
        let record_bytes_max = RECORD_BYTES_MAX;
        let options = Options { segment_bytes: 1500, max_bytes, record_bytes_max, accepted, sync_interval, compress };
        let (memory, dir) = (Memory::default(), PathBuf::from("/spool"));
        let spool = Spool::open_in(Arc::new(memory.clone()), &dir, options.clone()).unwrap();
        Model {
            own: spool.reader(0),
            foreign: Reader::foreign(Arc::new(memory.clone()), &dir, 0),
            runtime: tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap(),
            memory,
            dir,
            options,
            spool,
            entries: Vec::new(),
            accepted: 0,
            durable: 0,
            appended: 0,
            may_be_damaged: false,
            may_fail: false,
            has_failed: false,
            syncs_failed: false,
        }
    }

    fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime
            .block_on(async { tokio::time::timeout(Duration::from_secs(60), future).await })
            .expect("the spool answers")
    }

    fn append(&mut self, sizes: &[usize], wait: bool) {
        let mut pending = Vec::new();
        for &size in sizes {
            self.appended += 1;
            // Each payload is another, and looks like the beginning of a block.
            let payload: Vec<u8> = MAGIC.into_iter().chain(self.appended.to_le_bytes()).cycle().take(size).collect();
            let mut called = false;
            let before = self.spool.usage();
            let result = self.spool.append(SchemaKey(7), |sequence, out| {
                assert_eq!(sequence, self.entries.len() as u64, "no holes");
                assert!(out.is_empty());
                out.extend_from_slice(&payload);
                called = true;
            });
            assert_eq!(called, result.is_ok());
            match result {
                Ok(one) => {
                    self.entries.push(Entry { payload, certain: true, shaky: false });
                    pending.push(one);
                }
                Err(AppendError::Full) => {
                    // The writer makes room at any time, and takes more of it only where it writes something again.
                    let is_full = before.bytes + self.options.room_bytes() > before.max_bytes;
                    assert!(is_full || self.has_failed, "{before:?}");
                }
                Err(AppendError::Failed) => assert!(self.may_fail),
                Err(error) => panic!("{error}"),
            }
        }
        if !self.has_failed {
            assert!(self.spool.usage().bytes <= self.options.max_bytes);
        }
        for one in pending.into_iter().filter(|_| wait) {
            match self.wait(one) {
                Ok(sequence) => self.accepted = self.accepted.max(sequence + 1),
                Err(error) => assert!(self.may_fail && error == AppendError::Failed, "{error}"),
            }
        }
        if self.options.accepted == Accepted::Disk {
            self.durable = self.durable.max(self.accepted);
        }
    }

    fn sync(&mut self) {
        match self.wait(self.spool.sync()) {
            Ok(()) => self.all_is_durable(),
            Err(error) => assert!(self.may_fail, "{error}"),
        }
    }

    fn all_is_durable(&mut self) {
        self.accepted = self.entries.len() as u64;
        self.durable = self.accepted;
    }

    /// `records` were read from position `from`, and what they leave out was not certain, or below the cursor; so is what
    /// follows them up to `to`.
    fn check(&self, from: u64, cursor: u64, records: &[Record], to: u64) {
        let mut expected = from;
        let missing = |range: std::ops::Range<u64>| {
            range.into_iter().find(|&sequence| sequence >= cursor && self.entries[sequence as usize].certain)
        };
        for record in records {
            assert!(record.sequence >= expected, "in order, each once");
            assert_eq!(missing(expected..record.sequence), None);
            assert_eq!(record.payload, self.entries[record.sequence as usize].payload);
            assert_eq!(record.schema, SchemaKey(7));
            expected = record.sequence + 1;
        }
        assert_eq!(missing(expected..to.max(expected)), None);
    }

    fn read_own(&mut self, bytes_max: usize) {
        let (from, cursor) = (self.own.position(), self.spool.cursor().sequence);
        let records = self.own.read(bytes_max).unwrap();
        self.check(from, cursor, &records, if records.is_empty() { self.accepted } else { 0 });
        if !self.may_be_damaged {
            assert_eq!(self.own.skipped(), Skipped::default());
        }
    }

    fn read_foreign(&mut self, to: u64) {
        let (from, cursor) = (self.foreign.position(), self.spool.cursor().sequence);
        let mut all = Vec::new();
        loop {
            let records = self.foreign.read(500).unwrap();
            if records.is_empty() {
                break;
            }
            all.extend(records);
        }
        // A second look, as one that polls takes: a tail may be in the way of what follows.
        all.extend(self.foreign.read(usize::MAX).unwrap());
        self.check(from, cursor, &all, to);
    }

    fn advance(&mut self, by: f64) {
        let cursor = self.spool.cursor().sequence;
        let to = cursor + ((self.accepted.max(cursor) - cursor) as f64 * by) as u64;
        match self.spool.advance(to, &to.to_le_bytes()) {
            Ok(()) => assert_eq!(self.spool.cursor(), Cursor { sequence: to, note: to.to_le_bytes().to_vec() }),
            Err(error) => {
                assert!(self.may_fail, "{error}");
                assert_eq!(self.spool.cursor().sequence, cursor);
            }
        }
    }

    fn open(&mut self) {
        let storage = Arc::new(self.memory.clone());
        self.spool = Spool::open_in(storage, &self.dir, self.options.clone()).unwrap();
        self.own = self.spool.reader(self.spool.cursor().sequence);
    }

    fn reopen(&mut self) {
        let (cursor, next) = (self.spool.cursor(), self.spool.next_sequence());
        match self.spool.close() {
            Ok(()) => self.all_is_durable(),
            Err(error) => assert!(self.may_fail, "{error}"),
        }
        self.mend();
        self.open();
        assert_eq!(self.spool.cursor(), cursor);
        let recovery = self.spool.recovery();
        if self.accepted == next {
            assert_eq!(recovery.next_sequence, next);
        }
        assert_eq!(recovery.records, recovery.next_sequence - cursor.sequence);
        if !self.may_be_damaged {
            assert_eq!((recovery.skipped_spans, recovery.cursor_damaged), (0, false));
        }
        self.settle(self.accepted);
    }

    /// After a start that was no continuation: what was not accepted may be there or not.
    fn settle(&mut self, required: u64) {
        let next = self.spool.next_sequence();
        assert!(next >= required, "{next} < {required}");
        self.entries.truncate(next as usize);
        self.entries.resize(next as usize, Entry { payload: Vec::new(), certain: false, shaky: false });
        self.accepted = next;
        for entry in self.entries.iter_mut().skip(self.durable as usize).filter(|_| self.syncs_failed) {
            entry.shaky = true;
        }
        // What a process left in the page cache is synced when the next one opens it.
        self.durable = next;
    }

    fn crash(&mut self, after: u64, sizes: &[usize], advance: Option<f64>, power: Option<u64>) {
        let cursor = self.spool.cursor().sequence;
        (self.may_fail, self.has_failed) = (true, true);
        self.memory.stop_after(after);
        self.append(sizes, true);
        let mut cursor_max = cursor;
        if let Some(by) = advance {
            cursor_max = self.accepted.max(cursor);
            self.advance(by);
        }
        let reached = self.spool.cursor().sequence;
        // Whether it ends well is all the same: the machine has stopped by then, or everything was written.
        let closed = self.spool.close();
        if closed.is_ok() {
            self.all_is_durable();
        }
        if let Some(seed) = power {
            self.may_be_damaged = true;
            let mut state = seed | 1;
            self.memory.cut_power(|bound| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (state >> 33) as usize % bound
            });
            for (sequence, entry) in self.entries.iter_mut().enumerate() {
                entry.certain &= (sequence as u64) < self.durable && !entry.shaky;
            }
            self.durable = self.entries.iter().rposition(|entry| entry.certain).map_or(0, |last| last as u64 + 1);
        } else {
            self.memory.run_again();
        }
        self.may_fail = false;
        self.open();
        let found = self.spool.cursor().sequence;
        assert!((reached..=cursor_max.max(reached)).contains(&found), "{reached} <= {found} <= {cursor_max}");
        if power.is_some() {
            self.settle(self.durable);
            self.foreign = Reader::foreign(Arc::new(self.memory.clone()), &self.dir, found);
        } else {
            self.settle(self.accepted);
            assert!(self.foreign.position() <= self.spool.next_sequence(), "a killed process takes back nothing seen");
        }
    }

    fn mend(&mut self) {
        self.memory.mend();
        // A round that met a fault before may still be under way; the one after it cannot fail.
        let healed = (0..3).any(|_| self.wait(self.spool.sync()).is_ok());
        if healed {
            self.all_is_durable();
            self.may_fail = false;
        }
    }

    fn step(&mut self, step: &Step) {
        self.has_failed |= self.may_fail;
        match step {
            Step::Append { sizes, wait } => self.append(sizes, *wait),
            Step::Sync => self.sync(),
            Step::Read { bytes_max } => self.read_own(*bytes_max),
            Step::Seek { to } => self.own.seek((self.accepted as f64 * to) as u64),
            Step::ForeignRead => self.read_foreign(0),
            Step::Advance { by } => self.advance(*by),
            Step::FullWrites { count, after_bytes } => {
                self.may_fail = true;
                self.memory.fail(|faults| (faults.full_writes, faults.full_after_bytes) = (*count, *after_bytes));
            }
            Step::FailedSyncs { count } => {
                self.may_fail = true;
                self.syncs_failed = true;
                self.memory.fail(|faults| faults.failed_syncs = *count);
            }
            Step::FailedCuts => {
                self.may_fail = true;
                self.may_be_damaged = true;
                self.memory.fail(|faults| faults.failed_cuts = 1);
            }
            Step::FailedCreates { count } => {
                self.may_fail = true;
                self.memory.fail(|faults| faults.failed_creates = *count);
            }
            Step::ShortWrites { bytes } => self.memory.fail(|faults| faults.short_write_bytes = Some(*bytes)),
            Step::Mend => {
                self.mend();
                assert!(!self.may_fail, "a mended disk takes everything");
            }
            Step::Reopen => self.reopen(),
            Step::Crash { after, sizes, advance, power } => self.crash(*after, sizes, *advance, *power),
        }
    }

    /// Whatever happened: on a disk that works all is read, the cursor reaches the end, and there is room again.
    fn finish(&mut self) {
        self.mend();
        assert!(!self.may_fail, "a mended disk takes everything");
        let cursor = self.spool.cursor().sequence;
        self.own.seek(cursor);
        while self.own.position() < self.accepted {
            self.read_own(1000);
        }
        self.read_foreign(self.accepted);
        let extent = extent_in(&self.memory, &self.dir).unwrap();
        // Second copies below the oldest that the writer knows of may be there.
        assert!(extent.oldest <= self.spool.usage().oldest);
        assert_eq!(extent.next, self.accepted);
        self.spool.advance(self.accepted, b"end").unwrap();
        self.append(&[RECORD_BYTES_MAX], true);
        assert_eq!(self.entries.len() as u64, self.accepted);
        self.spool.close().unwrap();
    }
}

proptest! {
    #![proptest_config(Config { cases: 2000, failure_persistence: None, ..Config::default() })]

    #[test]
    fn whatever_happens_nothing_accepted_is_lost(
        steps in prop::collection::vec(step(), 1..40),
        on_disk in any::<bool>(),
        packs in any::<bool>(),
        syncs_by_itself in any::<bool>(),
        max_bytes in 3000..30_000u64,
    ) {
        let accepted = if on_disk { Accepted::Disk } else { Accepted::Kernel };
        let sync_interval = if syncs_by_itself { Duration::ZERO } else { Duration::MAX };
        let compress = if packs { Compress::Zstd } else { Compress::None };
        let mut model = Model::new(accepted, compress, sync_interval, max_bytes);
        for step in &steps {
            model.step(step);
        }
        model.finish();
    }
}
