//! The one thread that writes.
//!
//! It starts when who appended begins to wait, and takes all that has come by then or while it was busy, so that the load
//! sets the size of the blocks. A second thread waits for the disk (`syncer`): while a sync is under way the next blocks are
//! written, and the next sync covers them. What is written and not yet synced stays in memory. When a write or a sync fails,
//! the segment is never written again: what it does not surely hold is written from memory into a new one, once at once; if
//! that fails too, the spool takes no appends and this is repeated every [`RETRY`] until the disk takes it. Such attempts, a
//! segment's end and the spool's end wait for their syncs.

mod syncer;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::SpoolError;
use crate::block::Block;
use crate::pack::{Packed, Packer};
use crate::segment::{Name, SEGMENT_HEADER_BYTES};
use crate::shared::{Failure, Segment, Shared};
use crate::storage::{self, StorageFile};
use crate::watermark::lock;
use crate::{Accepted, Compress};
use syncer::Syncer;

/// Between two attempts at a disk that takes nothing: soon enough for who is refused meanwhile, and no load.
const RETRY: Duration = Duration::from_secs(1);

/// The segment that is being written.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) name: Name,
    pub(crate) file: Arc<dyn StorageFile>,
    /// Up to the end of its last whole block.
    pub(crate) length: u64,
    /// Some of it is on the disk and, perhaps, nowhere else.
    pub(crate) synced: bool,
    /// A sync of it failed: the kernel may have dropped what it held, and a second sync would say nothing about that.
    pub(crate) distrusted: bool,
}

#[derive(Debug)]
pub(crate) struct Writer {
    shared: Arc<Shared>,
    live: Option<Live>,
    /// Of the next segment.
    number: u64,
    /// None where blocks go to the disk as they are.
    packer: Option<Packer>,
    syncer: Syncer,
    unwritten: VecDeque<Block>,
    /// Written to `live`, and to be on the disk once the sync under way has ended; empty while none is.
    syncing: VecDeque<Block>,
    /// Written to `live` after that began.
    unsynced: VecDeque<Block>,
    unsynced_bytes: u64,
    unsynced_since: Option<Instant>,
    /// As soon as no other is under way, a sync is to begin.
    sync_wanted: bool,
    /// Given up before anything in them was synced: all that they hold is in memory, and they go once it is written again.
    replaced: Vec<Name>,
    /// Set while the disk takes nothing.
    retry_at: Option<Instant>,
}

/// What one round of the writer is for.
struct Round {
    sync: bool,
    closing: bool,
}

/// Ends the spool with the thread, also should it panic, so that nobody waits for ever.
struct End(Arc<Shared>);

impl Drop for End {
    fn drop(&mut self) {
        lock(&self.0.queue).closing = true;
        self.0.ended.store(true, Ordering::SeqCst);
        self.0.written.wake_all();
        self.0.synced.wake_all();
    }
}

impl Writer {
    /// `number` is that of the next segment, begun with the next block unless one is at hand.
    pub(crate) fn new(shared: Arc<Shared>, live: Option<Live>, number: u64) -> io::Result<Writer> {
        let packer = match shared.options.compress {
            Compress::None => None,
            // It takes memory only; without it blocks are longer.
            Compress::Zstd => Packer::new()
                .inspect_err(|error| tracing::warn!(dir = %shared.dir.display(), %error, "spool blocks are not packed"))
                .ok(),
        };
        Ok(Writer {
            syncer: Syncer::start(shared.clone())?,
            shared,
            number,
            packer,
            live,
            unwritten: VecDeque::new(),
            syncing: VecDeque::new(),
            unsynced: VecDeque::new(),
            unsynced_bytes: 0,
            unsynced_since: None,
            sync_wanted: false,
            replaced: Vec::new(),
            retry_at: None,
        })
    }

    /// Makes a segment that readers may see, its name being on the disk.
    pub(crate) fn create(shared: &Shared, name: Name) -> Result<Live, SpoolError> {
        let path = name.path(&shared.dir);
        let made = shared.storage.create(&path).and_then(|file| {
            storage::write_all(&*file, &name.header(shared.options.compress), 0)?;
            shared.storage.sync_dir(&shared.dir)?;
            Ok(file)
        });
        match made {
            Ok(file) => {
                shared.add_segment(name);
                Ok(Live { name, file, length: SEGMENT_HEADER_BYTES, synced: false, distrusted: false })
            }
            Err(error) => {
                // Nothing is in it. Where this fails too, the next start finds an empty segment.
                let _ = shared.storage.remove(&path);
                Err(SpoolError::io("make a segment", &path)(error))
            }
        }
    }

    pub(crate) fn run(mut self) {
        let _end = End(self.shared.clone());
        loop {
            let round = self.wait();
            self.sync_wanted |= round.sync;
            let mut result = self.work(round.closing || self.retry_at.is_some());
            if let (Err(error), None) = (&result, self.retry_at) {
                tracing::warn!(dir = %self.shared.dir.display(), %error, "spool segment given up; going on in a new one");
                result = self.work(true);
            }
            match result {
                Ok(()) => self.succeed(),
                Err(error) => self.fail(&error),
            }
            if round.closing {
                return;
            }
        }
    }

    /// Waits for something to do and takes all that was appended.
    fn wait(&mut self) -> Round {
        let shared = self.shared.clone();
        let mut queue = lock(&shared.queue);
        loop {
            let now = Instant::now();
            let sync_at = self.unsynced_since.and_then(|since| since.checked_add(shared.options.sync_interval));
            // One that is under way comes first.
            let sync_at = sync_at.filter(|_| self.syncing.is_empty());
            let due = self.retry_at.or(sync_at);
            let is_due = due.is_some_and(|due| due <= now);
            let is_asked = queue.closing || queue.sync_asked;
            let is_over = std::mem::take(&mut queue.sync_over);
            if is_asked || is_due || is_over || (self.retry_at.is_none() && !queue.blocks.is_empty()) {
                self.unwritten.append(&mut queue.blocks);
                queue.sync_asked = false;
                return Round { sync: is_asked || is_due, closing: queue.closing };
            }
            queue.idle = true;
            queue = match due {
                Some(due) => {
                    let waited = shared.work.wait_timeout(queue, due - now);
                    waited.unwrap_or_else(std::sync::PoisonError::into_inner).0
                }
                None => shared.work.wait(queue).unwrap_or_else(std::sync::PoisonError::into_inner),
            };
            queue.idle = false;
        }
    }

    /// Writes what there is, in the segment at hand or a new one, and begins a sync where one is wanted; to the end of that
    /// where the caller `stays`. After an error that segment is given up.
    fn work(&mut self, stays: bool) -> Result<(), SpoolError> {
        let result = self.write_all(stays);
        if result.is_err() {
            self.give_up();
        }
        result
    }

    fn write_all(&mut self, stays: bool) -> Result<(), SpoolError> {
        if !self.syncing.is_empty()
            && let Some(result) = self.syncer.try_end()
        {
            self.end_sync(result)?;
        }
        while let Some(mut block) = self.unwritten.pop_front() {
            if let Err(error) = self.write(&mut block) {
                self.unwritten.push_front(block);
                return Err(error);
            }
            self.unsynced_bytes += block.len();
            self.unsynced_since.get_or_insert_with(Instant::now);
            self.unsynced.push_back(block);
            // The other half may be under way.
            if self.unsynced_bytes >= self.shared.options.unsynced_bytes_max() / 2 {
                self.await_sync()?;
                self.begin_sync();
            }
        }
        let replaced = std::mem::take(&mut self.replaced);
        if !replaced.is_empty() {
            self.shared.remove_segments(|segments, at| replaced.contains(&segments[at].name));
        }
        // Only here is all written that is to be synced.
        if stays {
            self.sync()?;
            self.sync_wanted = false;
        } else if (self.sync_wanted || self.shared.options.accepted == Accepted::Disk) && self.syncing.is_empty() {
            self.begin_sync();
            self.sync_wanted = false;
        }
        Ok(())
    }

    /// Writes one block where it belongs and shows it to readers.
    fn write(&mut self, block: &mut Block) -> Result<(), SpoolError> {
        block.seal();
        // Taken for as long as it lends its buffer.
        let mut packer = self.packer.take();
        let mut packed = packer.as_mut().and_then(|packer| packer.pack(block));
        let result = self.place(block, packed.as_mut());
        self.packer = packer;
        result
    }

    fn place(&mut self, block: &mut Block, packed: Option<&mut Packed<'_>>) -> Result<(), SpoolError> {
        let shared = self.shared.clone();
        let length = packed.as_ref().map_or(block.len(), |packed| packed.len());
        let full = self.live.as_ref().is_some_and(|live| {
            live.length > SEGMENT_HEADER_BYTES && live.length + length > shared.options.segment_bytes()
        });
        if full {
            self.sync()?;
            self.live = None;
        }
        let live = match &mut self.live {
            Some(live) => live,
            None => {
                let name = Name { number: self.number, start: shared.written.get() };
                self.number += 1;
                let live = Writer::create(&shared, name)?;
                // Only now, so that there is a segment at any time: its name tells the next start where to go on.
                shared.remove_segments(|segments, at| {
                    let Segment { name, length, .. } = segments[at];
                    length == SEGMENT_HEADER_BYTES && self.replaced.contains(&name)
                });
                self.live.insert(live)
            }
        };
        let bytes = match packed {
            Some(packed) => packed.bytes_at(live.name.number, live.length),
            None => block.bytes_at(live.name.number, live.length),
        };
        storage::write_all(&*live.file, bytes, live.length)
            .map_err(SpoolError::io("write", &live.name.path(&shared.dir)))?;
        live.length += length;
        let next = {
            let mut log = lock(&shared.log);
            log.next = log.next.max(block.next());
            if let Some(segment) = log.segments.last_mut() {
                segment.length = live.length;
                segment.first = segment.first.min(block.first);
            }
            log.next
        };
        {
            let mut queue = lock(&shared.queue);
            queue.bytes = queue.bytes.saturating_sub(block.room_bytes());
            queue.disk_bytes += length;
        }
        shared.written.raise(next);
        shared.grown.send_replace(next);
        Ok(())
    }

    /// Begins to bring what is written to the disk; no other sync is under way.
    fn begin_sync(&mut self) {
        let Some(live) = &self.live else { return };
        if self.unsynced.is_empty() {
            return;
        }
        self.syncing.append(&mut self.unsynced);
        self.unsynced_bytes = 0;
        self.unsynced_since = None;
        self.syncer.begin(live.file.clone());
    }

    /// Waits for the sync under way, where there is one.
    fn await_sync(&mut self) -> Result<(), SpoolError> {
        if self.syncing.is_empty() {
            return Ok(());
        }
        let result = self.syncer.end();
        self.end_sync(result)
    }

    /// Brings what is written to the disk, and waits for that.
    fn sync(&mut self) -> Result<(), SpoolError> {
        self.await_sync()?;
        self.begin_sync();
        self.await_sync()
    }

    fn end_sync(&mut self, result: io::Result<()>) -> Result<(), SpoolError> {
        let mut blocks = std::mem::take(&mut self.syncing);
        let mut path = self.shared.dir.clone();
        // Segments end, and are given up, only when no sync of them is under way: it is this one's.
        if let Some(live) = &mut self.live {
            live.synced |= result.is_ok();
            live.distrusted |= result.is_err();
            path = live.name.path(&path);
        }
        if let Err(error) = result {
            blocks.append(&mut self.unsynced);
            self.unsynced = blocks;
            return Err(SpoolError::io("sync", &path)(error));
        }
        let next = blocks.back().map(Block::next);
        lock(&self.shared.queue).recycle(&self.shared.options, blocks.drain(..));
        if let Some(next) = next {
            // Said first, so that who waited for the disk finds the spool open.
            if self.unwritten.is_empty() && self.unsynced.is_empty() {
                self.succeed();
            }
            self.shared.synced.raise(next);
        }
        Ok(())
    }

    /// Ends the segment at hand: what it does not surely hold is to be written again.
    fn give_up(&mut self) {
        if self.live.as_ref().is_some_and(|live| !live.distrusted) {
            self.cut_off();
        }
        if let Some(live) = self.live.take().filter(|live| !live.synced) {
            self.replaced.push(live.name);
        }
        lock(&self.shared.queue).bytes += self.unsynced.iter().map(Block::room_bytes).sum::<u64>();
        self.unsynced.append(&mut self.unwritten);
        self.unwritten = std::mem::take(&mut self.unsynced);
        self.unsynced_bytes = 0;
        self.unsynced_since = None;
    }

    /// After a write that failed: cuts off the part of a block that may be there, and syncs what is before it.
    fn cut_off(&mut self) {
        let Some(live) = &self.live else { return };
        // A part that cannot be cut off is no whole block: readers step over it.
        if let Err(error) = live.file.cut(live.length) {
            let path = live.name.path(&self.shared.dir);
            tracing::warn!(path = %path.display(), %error, "part of a block not cut off");
        }
        // What neither the sync under way nor the next brings to the disk is written again.
        let _ = self.sync();
    }

    fn succeed(&mut self) {
        if self.retry_at.take().is_none() {
            return;
        }
        *lock(&self.shared.failure) = None;
        lock(&self.shared.queue).failed = false;
        self.shared.failed.store(false, Ordering::SeqCst);
        tracing::info!(dir = %self.shared.dir.display(), "spool writes again; nothing accepted was lost");
    }

    fn fail(&mut self, error: &SpoolError) {
        let records = self.unwritten.iter().map(|block| u64::from(block.count)).sum();
        if self.retry_at.is_none() {
            let dir = self.shared.dir.display();
            tracing::error!(%dir, %error, records, "spool cannot write: appends are refused until it can; its records are in memory");
        }
        self.retry_at = Some(Instant::now() + RETRY);
        *lock(&self.shared.failure) = Some(Failure { reason: error.to_string(), records });
        lock(&self.shared.queue).failed = true;
        self.shared.failed.store(true, Ordering::SeqCst);
        self.shared.failures.fetch_add(1, Ordering::SeqCst);
        self.shared.written.wake_all();
        self.shared.synced.wake_all();
    }
}

#[cfg(test)]
mod tests;
