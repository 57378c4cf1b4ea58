//! The handle: open, append, advance, close.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};

use tokio::sync::watch;

use crate::cursor::{self, Cursor, NOTE_BYTES_MAX};
use crate::options::Options;
use crate::pending::{Flush, Ids, Pending};
use crate::reader::Reader;
use crate::recovery::{self, Recovery};
use crate::schema::SchemaKey;
use crate::segment::Name;
use crate::shared::{Failure, Log, Queue, Shared};
use crate::storage::{Lock, Machine, Storage};
use crate::watermark::{Watermark, lock};
use crate::writer::Writer;
use crate::{AppendError, SpoolError};

const THREAD_NAME: &str = "spool-writer";

/// The one writer of a directory. Clones are the same spool; it is closed with the last one.
#[derive(Debug, Clone)]
pub struct Spool {
    handle: Arc<Handle>,
}

#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
    recovery: Recovery,
    ids: Ids,
    thread: Mutex<Thread>,
}

struct Thread {
    join: Option<JoinHandle<()>>,
    lock: Option<Lock>,
}

impl std::fmt::Debug for Thread {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Thread").field("running", &self.join.is_some()).finish_non_exhaustive()
    }
}

/// How much a spool holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// On disk and waiting for it.
    pub bytes: u64,
    pub max_bytes: u64,
    /// A segment takes so much; less than one is not made free.
    pub segment_bytes: u64,
    /// Where less than this is free, appends are refused.
    pub room_bytes: u64,
    /// The least sequence that is still there.
    pub oldest: u64,
    /// The next to forward.
    pub cursor: u64,
    /// What the next append gets.
    pub next: u64,
}

impl Spool {
    /// Opens a directory for writing, making it where it is missing, and recovers what a crash left there.
    pub fn open(dir: &Path, options: Options) -> Result<Spool, SpoolError> {
        Spool::open_in(Arc::new(Machine), dir, options)
    }

    pub(crate) fn open_in(storage: Arc<dyn Storage>, dir: &Path, options: Options) -> Result<Spool, SpoolError> {
        options.check()?;
        let opened = recovery::recover(&storage, dir, options.compress)?;
        let recovery = opened.recovery;
        let next = recovery.next_sequence;
        let disk_bytes = opened.segments.iter().map(|segment| segment.length).sum();
        let shared = Arc::new(Shared {
            dir: dir.to_path_buf(),
            storage,
            options,
            queue: Mutex::new(Queue::new(next, disk_bytes)),
            work: Condvar::new(),
            written: Watermark::new(next),
            synced: Watermark::new(next),
            failed: AtomicBool::new(false),
            failures: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            failure: Mutex::new(None),
            log: Mutex::new(Log { segments: opened.segments, next }),
            grown: watch::Sender::new(next),
            schemas: Mutex::new(opened.schemas),
            cursor: Mutex::new(recovery.cursor.clone()),
            advancing: Mutex::new(()),
        });
        let last = lock(&shared.log).segments.last().map(|segment| segment.name);
        let writer = match last {
            Some(last) => Writer::new(shared.clone(), opened.live, last.number + 1),
            // Made now, so that a disk that cannot be written is known at the start.
            None => Writer::new(shared.clone(), Some(Writer::create(&shared, Name { number: 0, start: next })?), 1),
        };
        let writer = writer.map_err(SpoolError::io("start the syncing thread of", dir))?;
        shared.remove_below(recovery.cursor.sequence);
        let join = thread::Builder::new()
            .name(THREAD_NAME.to_owned())
            .spawn(move || writer.run())
            .map_err(SpoolError::io("start the writer thread of", dir))?;
        let thread = Mutex::new(Thread { join: Some(join), lock: Some(opened.lock) });
        Ok(Spool { handle: Arc::new(Handle { shared, recovery, ids: Ids::new(), thread }) })
    }

    /// What opening found.
    pub fn recovery(&self) -> &Recovery {
        &self.handle.recovery
    }

    /// Gives the key of a schema text; a new text is on the disk when this returns. Blocks for that.
    pub fn add_schema(&self, text: &str) -> Result<SchemaKey, SpoolError> {
        let shared = &self.handle.shared;
        lock(&shared.schemas).add(&*shared.storage, &shared.dir, text)
    }

    pub fn schema(&self, key: SchemaKey) -> Option<Arc<str>> {
        lock(&self.handle.shared.schemas).get(key)
    }

    /// Appends the payload that `write` leaves in its (empty) buffer. `write` runs under the lock that gives sequences,
    /// and only when there is room for the longest record: a number it takes for each call has no holes, except where it
    /// writes more than `record_bytes_max`, which is [`AppendError::TooLarge`]. It should copy bytes and no more.
    ///
    /// Never waits for the disk.
    pub fn append(&self, schema: SchemaKey, write: impl FnOnce(u64, &mut Vec<u8>)) -> Result<Pending, AppendError> {
        let shared = &self.handle.shared;
        let (sequence, wake) = {
            let mut queue = lock(&shared.queue);
            let sequence = queue.append(&shared.options, schema, write)?;
            // Else the writer is woken by the `Pending`; a whole block is worth the writer's while.
            (sequence, queue.blocks.len() > 1 && std::mem::take(&mut queue.idle))
        };
        if wake {
            shared.work.notify_one();
        }
        Ok(Pending::new(shared.clone(), sequence))
    }

    /// What the next append gets.
    pub fn next_sequence(&self) -> u64 {
        lock(&self.handle.shared.queue).next
    }

    pub fn usage(&self) -> Usage {
        let shared = &self.handle.shared;
        let oldest = lock(&shared.log).segments.first().map(|segment| segment.first);
        let cursor = lock(&shared.cursor).sequence;
        let queue = lock(&shared.queue);
        Usage {
            bytes: queue.disk_bytes + queue.bytes,
            max_bytes: shared.options.max_bytes,
            segment_bytes: shared.options.segment_bytes(),
            room_bytes: shared.options.room_bytes(),
            oldest: oldest.unwrap_or(queue.next),
            cursor,
            next: queue.next,
        }
    }

    /// Why appends fail at present; none while the disk takes them.
    pub fn failure(&self) -> Option<String> {
        lock(&self.handle.shared.failure).as_ref().map(|failure| failure.reason.clone())
    }

    /// A reader that begins at `from`, or at the oldest record where that is gone, and follows what is appended.
    pub fn reader(&self, from: u64) -> Reader {
        Reader::own(self.handle.shared.clone(), from)
    }

    pub fn cursor(&self) -> Cursor {
        lock(&self.handle.shared.cursor).clone()
    }

    /// Moves the cursor to `sequence`, the next to forward, with a note of the caller's; both are on the disk when this
    /// returns. Deletes the segments that are wholly below. Blocks for two syncs: call it some times per second at most.
    pub fn advance(&self, sequence: u64, note: &[u8]) -> Result<(), SpoolError> {
        let shared = &self.handle.shared;
        if note.len() > NOTE_BYTES_MAX {
            return Err(SpoolError::NoteTooLong(note.len()));
        }
        let _advancing = lock(&shared.advancing);
        let (at, end) = (lock(&shared.cursor).sequence, shared.written.get());
        if sequence < at {
            return Err(SpoolError::CursorBack { cursor: at, asked: sequence });
        }
        if sequence > end {
            return Err(SpoolError::CursorPastEnd { end, asked: sequence });
        }
        // Without the lock a second writer may own the directory, and its cursor with it.
        if shared.has_ended() {
            return Err(SpoolError::Closed);
        }
        let cursor = Cursor { sequence, note: note.to_vec() };
        cursor::store(&*shared.storage, &shared.dir, &cursor)?;
        *lock(&shared.cursor) = cursor;
        shared.remove_below(sequence);
        Ok(())
    }

    /// Where the cursor would have to be for at least `bytes` of segments to go; the beginning of the last segment, which
    /// never goes, where there is not so much.
    pub fn boundary(&self, bytes: u64) -> u64 {
        let log = lock(&self.handle.shared.log);
        let mut freed = 0;
        for pair in log.segments.windows(2) {
            freed += pair[0].length;
            if freed >= bytes {
                return pair[1].name.start;
            }
        }
        log.segments.last().map_or(0, |last| last.name.start)
    }

    /// Resolves once everything appended before the call is on the disk; fails after an attempt at that failed.
    pub async fn sync(&self) -> Result<(), SpoolError> {
        let shared = &self.handle.shared;
        let flush = {
            let failures = shared.failures();
            let mut queue = lock(&shared.queue);
            queue.sync_asked = true;
            Flush { shared: shared.clone(), target: queue.next, who: self.handle.ids.next(), failures }
        };
        shared.work.notify_one();
        if flush.await { Ok(()) } else { Err(self.handle.unwritten(SpoolError::Failed)) }
    }

    /// Takes no more appends, brings everything to the disk, ends the writer thread and gives the directory free. Blocks
    /// for that. Closing twice is closing once.
    pub fn close(&self) -> Result<(), SpoolError> {
        self.handle.close()
    }
}

impl Handle {
    fn close(&self) -> Result<(), SpoolError> {
        let mut thread = lock(&self.thread);
        lock(&self.shared.queue).closing = true;
        self.shared.work.notify_one();
        if let Some(join) = thread.join.take() {
            // The last handle may go with a task that the writer thread itself woke; it cannot wait for itself.
            if join.thread().id() != thread::current().id() && join.join().is_err() {
                tracing::error!(dir = %self.shared.dir.display(), "spool writer thread panicked");
            }
        }
        // An advance that is under way holds the directory until it is done.
        let _advancing = lock(&self.shared.advancing);
        thread.lock = None;
        match &*lock(&self.shared.failure) {
            Some(Failure { reason, records }) => {
                Err(SpoolError::Unwritten { records: *records, reason: reason.clone() })
            }
            None => Ok(()),
        }
    }

    fn unwritten(&self, error: impl FnOnce(String) -> SpoolError) -> SpoolError {
        match &*lock(&self.shared.failure) {
            Some(failure) => error(failure.reason.clone()),
            None => SpoolError::Closed,
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::error!(dir = %self.shared.dir.display(), %error, "spool closed with records that are not on the disk");
        }
    }
}

#[cfg(test)]
mod crash;
#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
