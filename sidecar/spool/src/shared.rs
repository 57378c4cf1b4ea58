//! What the callers, the writer thread and the readers of one spool share.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use tokio::sync::watch;

use crate::block::{Block, HEADER_BYTES, RECORD_HEADER_BYTES};
use crate::cursor::Cursor;
use crate::options::Options;
use crate::schema::Schemas;
use crate::segment::{Name, SEGMENT_HEADER_BYTES};
use crate::storage::Storage;
use crate::watermark::{Watermark, lock};
use crate::{AppendError, SchemaKey};

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) dir: PathBuf,
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) options: Options,
    pub(crate) queue: Mutex<Queue>,
    /// The writer waits here for the queue.
    pub(crate) work: Condvar,
    pub(crate) written: Watermark,
    pub(crate) synced: Watermark,
    /// The disk takes nothing; the same as in the queue, for those who do not hold its lock.
    pub(crate) failed: AtomicBool,
    /// Rounds of the writer that failed.
    pub(crate) failures: AtomicU64,
    /// The writer thread has ended.
    pub(crate) ended: AtomicBool,
    pub(crate) failure: Mutex<Option<Failure>>,
    pub(crate) log: Mutex<Log>,
    /// The end of what is written, for readers that wait.
    pub(crate) grown: watch::Sender<u64>,
    pub(crate) schemas: Mutex<Schemas>,
    pub(crate) cursor: Mutex<Cursor>,
    /// Held while the cursor file is written, so that looking at the cursor does not wait for the disk.
    pub(crate) advancing: Mutex<()>,
}

/// Why the disk takes nothing, and how many records are in memory for it.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) reason: String,
    pub(crate) records: u64,
}

/// What is on the disk, as far as readers may see it.
#[derive(Debug)]
pub(crate) struct Log {
    /// By number.
    pub(crate) segments: Vec<Segment>,
    /// The sequence after the last written record.
    pub(crate) next: u64,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Segment {
    pub(crate) name: Name,
    /// Up to the end of the last whole block.
    pub(crate) length: u64,
    /// The least sequence in it, as far as is known: below `name.start` where it holds second copies and was written, or was
    /// the oldest, in this process.
    pub(crate) first: u64,
}

/// What was appended and not yet written.
#[derive(Debug)]
pub(crate) struct Queue {
    /// The last one is still being filled.
    pub(crate) blocks: VecDeque<Block>,
    pub(crate) free: Vec<Vec<u8>>,
    scratch: Vec<u8>,
    pub(crate) next: u64,
    /// In memory and not written, whether here or in the writer's hands.
    pub(crate) bytes: u64,
    pub(crate) disk_bytes: u64,
    pub(crate) failed: bool,
    pub(crate) closing: bool,
    /// The writer waits to be told.
    pub(crate) idle: bool,
    pub(crate) sync_asked: bool,
    /// A sync that was under way has ended.
    pub(crate) sync_over: bool,
}

impl Queue {
    pub(crate) fn new(next: u64, disk_bytes: u64) -> Queue {
        Queue {
            blocks: VecDeque::new(),
            free: Vec::new(),
            scratch: Vec::new(),
            next,
            bytes: 0,
            disk_bytes,
            failed: false,
            closing: false,
            idle: false,
            sync_asked: false,
            sync_over: false,
        }
    }

    /// Appends what `write` writes, when there is room for the longest record that is allowed.
    pub(crate) fn append(
        &mut self,
        options: &Options,
        schema: SchemaKey,
        write: impl FnOnce(u64, &mut Vec<u8>),
    ) -> Result<u64, AppendError> {
        if self.closing {
            return Err(AppendError::Closed);
        }
        if self.failed {
            return Err(AppendError::Failed);
        }
        let room = options.room_bytes();
        if self.disk_bytes + self.bytes + room > options.max_bytes || self.bytes + room > options.queue_bytes_max() {
            return Err(AppendError::Full);
        }
        let sequence = self.next;
        // The payload goes through a buffer of its own: whatever `write` does to it, or if it panics, no block is harmed.
        let mut payload = std::mem::take(&mut self.scratch);
        payload.clear();
        write(sequence, &mut payload);
        let result = self.push(options, schema, &payload);
        if payload.capacity() <= 2 * options.record_bytes_max {
            self.scratch = payload;
        }
        result.map(|()| sequence)
    }

    fn push(&mut self, options: &Options, schema: SchemaKey, payload: &[u8]) -> Result<(), AppendError> {
        if payload.len() > options.record_bytes_max {
            return Err(AppendError::TooLarge);
        }
        let record_bytes = (RECORD_HEADER_BYTES + payload.len()) as u64;
        let next = self.next;
        let fits = self.blocks.back().is_some_and(|block| block.len() + record_bytes <= options.block_bytes());
        if !fits {
            self.blocks.push_back(Block::begin(next, self.free.pop().unwrap_or_default()));
            self.bytes += HEADER_BYTES as u64 + SEGMENT_HEADER_BYTES;
        }
        if let Some(block) = self.blocks.back_mut() {
            block.push(schema, payload);
        }
        self.bytes += record_bytes;
        self.next += 1;
        Ok(())
    }

    /// Takes back the buffers of blocks that are done with: as much as one sync gives back, so that under load none is
    /// made anew.
    pub(crate) fn recycle(&mut self, options: &Options, blocks: impl Iterator<Item = Block>) {
        let mut kept: u64 = self.free.iter().map(|buffer| buffer.capacity() as u64).sum();
        for block in blocks {
            let buffer = block.into_buffer();
            kept += buffer.capacity() as u64;
            if kept > options.unsynced_bytes_max() {
                return;
            }
            self.free.push(buffer);
        }
    }
}

impl Shared {
    /// Has an idle writer take what is in the queue.
    pub(crate) fn wake_writer(&self) {
        if std::mem::take(&mut lock(&self.queue).idle) {
            self.work.notify_one();
        }
    }

    /// The watermark that acceptance waits for.
    pub(crate) fn accepted(&self) -> &Watermark {
        match self.options.accepted {
            crate::Accepted::Kernel => &self.written,
            crate::Accepted::Disk => &self.synced,
        }
    }

    pub(crate) fn is_failed(&self) -> bool {
        self.failed.load(Ordering::SeqCst)
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }

    pub(crate) fn failures(&self) -> u64 {
        self.failures.load(Ordering::SeqCst)
    }

    /// Removes the files of segments that nobody needs, and what they count for.
    pub(crate) fn remove_segments(&self, unneeded: impl Fn(&[Segment], usize) -> bool) {
        let removed: Vec<Segment> = {
            let mut log = lock(&self.log);
            let (removed, kept) = (0..log.segments.len()).partition::<Vec<_>, _>(|&at| unneeded(&log.segments, at));
            let removed = removed.into_iter().map(|at| log.segments[at]).collect();
            log.segments = kept.into_iter().map(|at| log.segments[at]).collect();
            removed
        };
        for segment in &removed {
            let path = segment.name.path(&self.dir);
            // What stays behind is found, and removed, at the next start.
            if let Err(error) = self.storage.remove(&path) {
                tracing::warn!(path = %path.display(), %error, "spool segment not deleted");
            }
        }
        let bytes: u64 = removed.iter().map(|segment| segment.length).sum();
        let mut queue = lock(&self.queue);
        queue.disk_bytes = queue.disk_bytes.saturating_sub(bytes);
    }

    /// Removes the segments all of whose records are below `sequence`; never the last, which is being written.
    pub(crate) fn remove_below(&self, sequence: u64) {
        self.remove_segments(|segments, at| segments.get(at + 1).is_some_and(|after| after.name.start <= sequence));
    }

    pub(crate) fn add_segment(&self, name: Name) {
        lock(&self.log).segments.push(Segment { name, length: SEGMENT_HEADER_BYTES, first: name.start });
        lock(&self.queue).disk_bytes += SEGMENT_HEADER_BYTES;
    }
}
