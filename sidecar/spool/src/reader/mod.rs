//! Readers: in the writer's process, where they see what is written as soon as it is, or in another, without a lock.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;

use crate::block::{self, Record};
use crate::schema::{SchemaKey, Schemas};
use crate::segment::{self, HeaderState, Name, SEGMENT_HEADER_BYTES, Step, Walk};
use crate::shared::Shared;
use crate::storage::{Machine, Storage};
use crate::watermark::lock;
use crate::{SpoolError, aside};

/// How long a reader in another process sleeps before it looks again.
const POLL: Duration = Duration::from_millis(20);
/// A segment may be deleted between being found and being opened; so often in a row it is not.
const OPEN_ATTEMPTS: usize = 100;

/// Damage that a reader has stepped over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Skipped {
    pub spans: u64,
    pub bytes: u64,
}

/// Reads records in the order of their sequences, each once.
#[derive(Debug)]
pub struct Reader {
    source: Source,
    /// What the walk looks for next.
    next: u64,
    /// Read from the disk and not handed out.
    ahead: VecDeque<Record>,
    walk: Option<Walk>,
    /// From another process: the segment after the one that is walked.
    after: Option<Name>,
    /// From another process: the walk stands before bytes that are no whole block.
    at_tail: bool,
    /// From another process: nothing is being written any more.
    settled: bool,
    skipped: Skipped,
}

#[derive(Debug)]
enum Source {
    Own { shared: Arc<Shared>, grown: watch::Receiver<u64> },
    Foreign { storage: Arc<dyn Storage>, dir: PathBuf, schemas: Mutex<HashMap<SchemaKey, Arc<str>>> },
}

/// How far the walked segment may be read.
struct Extent {
    end: u64,
    after: Option<Name>,
    /// Where all is read up to `end` and nothing follows: the sequence there.
    next: Option<u64>,
}

impl Reader {
    /// Reads a directory that another process may be writing. Takes no lock and writes nothing; sees whole blocks only.
    pub fn open(dir: &Path, from: u64) -> Result<Reader, SpoolError> {
        Ok(Reader::foreign(Arc::new(Machine), dir, from))
    }

    pub(crate) fn foreign(storage: Arc<dyn Storage>, dir: &Path, from: u64) -> Reader {
        Reader::new(Source::Foreign { storage, dir: dir.to_path_buf(), schemas: Mutex::default() }, from)
    }

    pub(crate) fn own(shared: Arc<Shared>, from: u64) -> Reader {
        let grown = shared.grown.subscribe();
        Reader::new(Source::Own { shared, grown }, from)
    }

    fn new(source: Source, next: u64) -> Reader {
        let (ahead, skipped) = (VecDeque::new(), Skipped::default());
        Reader { source, next, ahead, walk: None, after: None, at_tail: false, settled: false, skipped }
    }

    /// The next records, as many as `bytes_max` bytes of payload hold, but at least one where there is one. Empty at the
    /// end. Records may be missing, where they were damaged or deleted: see [`Record::sequence`].
    ///
    /// Blocks for as long as the disk takes to read, as a rule from the page cache.
    pub fn read(&mut self, bytes_max: usize) -> Result<Vec<Record>, SpoolError> {
        let mut records = Vec::new();
        let mut bytes = 0;
        loop {
            while let Some(record) = self.ahead.front() {
                bytes += record.payload.len();
                if bytes > bytes_max && !records.is_empty() {
                    return Ok(records);
                }
                records.extend(self.ahead.pop_front());
            }
            match self.fill() {
                Ok(true) => {}
                Ok(false) => return Ok(records),
                // What was read before an error is handed out; the error comes again with the next call.
                Err(_) if !records.is_empty() => return Ok(records),
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits until there may be more to read: in the writer's process until more is written, and after its end for ever; in
    /// another process for a moment. Losing a race in a `select!` loses nothing.
    pub async fn wait(&mut self) {
        if !self.ahead.is_empty() {
            return;
        }
        match &mut self.source {
            Source::Foreign { .. } => tokio::time::sleep(POLL).await,
            Source::Own { grown, .. } => {
                while *grown.borrow_and_update() <= self.next {
                    if grown.changed().await.is_err() {
                        std::future::pending::<()>().await;
                    }
                }
            }
        }
    }

    /// The sequence that the next record has at least.
    pub fn position(&self) -> u64 {
        self.ahead.front().map_or(self.next, |record| record.sequence)
    }

    /// Goes on at `sequence`, or at the oldest record where that is gone.
    pub fn seek(&mut self, sequence: u64) {
        self.next = sequence;
        self.ahead.clear();
        self.leave_segment();
    }

    /// From another process: takes it that the writer has ended. What is no whole block at the end is damage from now on, and
    /// what is sound in a damaged last block is read; before, either may have been a block in the making.
    pub fn settle(&mut self) {
        self.settled = true;
        self.at_tail = false;
    }

    /// Damage met so far.
    pub fn skipped(&self) -> Skipped {
        self.skipped
    }

    /// The text of a record's schema; none where it is not there, or damaged.
    pub fn schema(&self, key: SchemaKey) -> Option<Arc<str>> {
        match &self.source {
            Source::Own { shared, .. } => lock(&shared.schemas).get(key),
            Source::Foreign { storage, dir, schemas } => {
                let mut schemas = lock(schemas);
                if let Some(text) = schemas.get(&key) {
                    return Some(text.clone());
                }
                let text = Schemas::load(&**storage, dir).ok()?.0.get(key)?;
                schemas.insert(key, text.clone());
                Some(text)
            }
        }
    }

    fn leave_segment(&mut self) {
        self.walk = None;
        self.after = None;
        self.at_tail = false;
    }

    /// Reads on until there is a record in `ahead`; false at the end.
    fn fill(&mut self) -> Result<bool, SpoolError> {
        loop {
            if self.walk.is_none() && !self.enter()? {
                return Ok(false);
            }
            let extent = self.extent()?;
            let Some(walk) = &mut self.walk else { return Ok(false) };
            let path = walk.name.path(self.source.dir());
            match walk.step(extent.end).map_err(SpoolError::io("read", &path))? {
                Step::Block { offset, header, body } => {
                    if header.next() <= self.next {
                        continue;
                    }
                    let mut records = VecDeque::with_capacity(header.count as usize);
                    let damaged = block::read_records(&header, &body, |record| records.push_back(record));
                    let is_last = offset + header.block_bytes() == extent.end && extent.after.is_none();
                    if damaged > 0 && is_last && self.source.is_foreign() && !self.settled {
                        // It may be half written still, on a file system that lengthens a file before it fills it.
                        walk.resume(offset);
                        if self.wait_at_tail() {
                            return Ok(false);
                        }
                        continue;
                    }
                    if damaged > 0 {
                        self.skip(offset, header.block_bytes());
                    }
                    self.at_tail = false;
                    if let Err(error) = self.take(records) {
                        self.resume(offset);
                        return Err(error);
                    }
                    if !self.ahead.is_empty() {
                        return Ok(true);
                    }
                }
                Step::Damaged { offset, bytes } => {
                    self.at_tail = false;
                    self.skip(offset, bytes);
                }
                Step::Tail { .. } if self.source.is_foreign() && !self.settled && extent.after.is_none() => {
                    if self.wait_at_tail() {
                        return Ok(false);
                    }
                }
                Step::Tail { offset, bytes } => {
                    walk.resume(offset + bytes);
                    self.skip(offset, bytes);
                }
                Step::End => match extent.after {
                    Some(after) => {
                        self.leave_segment();
                        self.enter_segment(after)?;
                    }
                    None => {
                        self.next = self.next.max(extent.next.unwrap_or(self.next));
                        return Ok(false);
                    }
                },
            }
        }
    }

    /// Takes the block at `offset` for not read yet.
    fn resume(&mut self, offset: u64) {
        if let Some(walk) = &mut self.walk {
            walk.resume(offset);
        }
    }

    /// Takes over the records of a block from `next` on. Where one is missing before them, a later segment may hold what was
    /// written again after a failure, the missing one and all that follows it: then the walk goes on there.
    fn take(&mut self, records: VecDeque<Record>) -> Result<(), SpoolError> {
        for record in records {
            if record.sequence < self.next {
                continue;
            }
            if record.sequence > self.next && self.enter_copy(record.sequence)? {
                return Ok(());
            }
            self.next = record.sequence + 1;
            self.ahead.push_back(record);
        }
        Ok(())
    }

    /// Enters the first later segment that holds records below `sequence`; false where there is none.
    fn enter_copy(&mut self, sequence: u64) -> Result<bool, SpoolError> {
        let Some(walked) = self.walk.as_ref().map(|walk| walk.name) else { return Ok(false) };
        for name in self.source.segments()? {
            if name.number <= walked.number {
                continue;
            }
            let path = name.path(self.source.dir());
            let file = match self.source.storage().open(&path, false) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other.map_err(SpoolError::io("open", &path))?,
            };
            if Walk::new(name, file)
                .first()
                .map_err(SpoolError::io("read", &path))?
                .is_some_and(|first| first < sequence)
            {
                self.leave_segment();
                return self.enter_segment(name);
            }
        }
        Ok(false)
    }

    /// At what may be a block in the making: true when it is time to stop, false when the directory has yet to be looked
    /// at for a later segment, which would mean that it never gets finished.
    fn wait_at_tail(&mut self) -> bool {
        self.at_tail = !self.at_tail;
        !self.at_tail
    }

    /// Enters the segment that `next` is in; false where there is none.
    fn enter(&mut self) -> Result<bool, SpoolError> {
        for _ in 0..OPEN_ATTEMPTS {
            let names = self.source.segments()?;
            let later = names.partition_point(|name| name.start <= self.next);
            let Some(name) = names.get(later.saturating_sub(1)) else { return Ok(false) };
            if self.enter_segment(*name)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// False where the segment is gone.
    fn enter_segment(&mut self, name: Name) -> Result<bool, SpoolError> {
        let path = name.path(self.source.dir());
        let file = match self.source.storage().open(&path, false) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            other => other.map_err(SpoolError::io("open", &path))?,
        };
        let mut walk = Walk::new(name, file);
        let header = walk.header().map_err(SpoolError::io("read", &path))?;
        if let HeaderState::Version(version) = header {
            return Err(SpoolError::Version { path, version });
        }
        self.walk = Some(walk);
        if header == HeaderState::Damaged {
            self.skip(0, SEGMENT_HEADER_BYTES);
        }
        Ok(true)
    }

    fn extent(&mut self) -> Result<Extent, SpoolError> {
        let Some(walk) = &self.walk else { return Ok(Extent { end: 0, after: None, next: None }) };
        match &self.source {
            Source::Own { shared, .. } => {
                let log = lock(&shared.log);
                let at = log.segments.partition_point(|segment| segment.name.number < walk.name.number);
                let found = log.segments.get(at).filter(|segment| segment.name == walk.name);
                let after = log.segments.get(at + usize::from(found.is_some())).map(|segment| segment.name);
                // A segment that is gone was forwarded, or written again: nothing in it is needed any more.
                let end = found.map_or(0, |segment| segment.length);
                Ok(Extent { end, after, next: after.is_none().then_some(log.next) })
            }
            Source::Foreign { storage, dir, .. } => {
                let path = walk.name.path(dir);
                let length = || walk.file.length().map_err(SpoolError::io("look at", &path));
                if self.after.is_none() && (self.at_tail || length()? <= walk.offset) {
                    let names = segment::list(&**storage, dir).map_err(SpoolError::io("list the segments", dir))?;
                    self.after = names.iter().map(|(name, _)| *name).find(|name| name.number > walk.name.number);
                }
                // Looked at after the listing: once a later segment is there, this one grows no more.
                Ok(Extent { end: length()?, after: self.after, next: None })
            }
        }
    }

    /// Counts damage in the walked segment and, in the writer's process, keeps a copy.
    fn skip(&mut self, offset: u64, bytes: u64) {
        self.skipped.spans += 1;
        self.skipped.bytes += bytes;
        let Some(walk) = &self.walk else { return };
        let path = walk.name.path(self.source.dir());
        tracing::error!(path = %path.display(), offset, bytes, "corrupt bytes in the spool stepped over");
        if let Source::Own { shared, .. } = &self.source {
            aside::keep_span(&*shared.storage, &shared.dir, &walk.name.text(), &*walk.file, offset, bytes);
        }
    }
}

impl Source {
    fn is_foreign(&self) -> bool {
        matches!(self, Source::Foreign { .. })
    }

    fn dir(&self) -> &Path {
        match self {
            Source::Own { shared, .. } => &shared.dir,
            Source::Foreign { dir, .. } => dir,
        }
    }

    fn storage(&self) -> &dyn Storage {
        match self {
            Source::Own { shared, .. } => &*shared.storage,
            Source::Foreign { storage, .. } => &**storage,
        }
    }

    /// By number, and so by start.
    fn segments(&self) -> Result<Vec<Name>, SpoolError> {
        match self {
            Source::Own { shared, .. } => Ok(lock(&shared.log).segments.iter().map(|segment| segment.name).collect()),
            Source::Foreign { storage, dir, .. } => match segment::list(&**storage, dir) {
                Ok(segments) => Ok(segments.into_iter().map(|(name, _)| name).collect()),
                // It may not have been made yet.
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
                Err(error) => Err(SpoolError::io("list the segments", dir)(error)),
            },
        }
    }
}

#[cfg(test)]
mod tests;
