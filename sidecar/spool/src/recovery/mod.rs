//! What the writer finds when it opens a directory, and what it makes of it.
//!
//! Only the last segment can end in a torn block: a segment is synced before the next is begun, unless it failed, and then
//! the next holds again what the failed one may have lost. So only the last is read through here; damage in the others is
//! met, and counted, by the readers.

use std::path::Path;
use std::sync::Arc;

use crate::aside;
use crate::block;
use crate::cursor::{self, Cursor, Found};
use crate::schema::{self, Schemas};
use crate::segment::{self, HeaderState, Name, SEGMENT_HEADER_BYTES, Step, Walk};
use crate::shared::Segment;
use crate::storage::{self, Lock, Storage, StorageFile};
use crate::{Compress, SpoolError, writer};

const LOCK_FILE: &str = "lock";

/// What opening a spool found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Cut off the end of the last segment, where a block was not wholly written; a copy is under `corrupt/`.
    pub torn_bytes: u64,
    /// Damaged places in the last segment, stepped over; a copy of each is under `corrupt/`.
    pub skipped_spans: u64,
    pub skipped_bytes: u64,
    /// From the cursor to the end, by sequence.
    pub records: u64,
    /// What the next append gets.
    pub next_sequence: u64,
    pub cursor: Cursor,
    /// The cursor file was damaged: all that is still there is forwarded again.
    pub cursor_damaged: bool,
}

/// A directory ready to be written.
pub(crate) struct Opened {
    pub(crate) recovery: Recovery,
    pub(crate) schemas: Schemas,
    pub(crate) segments: Vec<Segment>,
    /// The last segment, where nothing was written to it yet.
    pub(crate) live: Option<writer::Live>,
    pub(crate) lock: Lock,
}

/// `compress` is how an empty last segment, which is written on, is going to be.
pub(crate) fn recover(storage: &Arc<dyn Storage>, dir: &Path, compress: Compress) -> Result<Opened, SpoolError> {
    for folder in [dir.to_path_buf(), dir.join(schema::DIR), dir.join(aside::DIR)] {
        storage.create_dir(&folder).map_err(SpoolError::io("make the directory", &folder))?;
    }
    let lock_path = dir.join(LOCK_FILE);
    let lock = storage.lock(&lock_path).map_err(SpoolError::io("lock", &lock_path))?;
    let lock = lock.ok_or_else(|| SpoolError::Locked(dir.to_path_buf()))?;
    storage.sync_dir(dir).map_err(SpoolError::io("sync the directory", dir))?;

    let mut recovery = Recovery::default();
    let (schemas, damaged) = Schemas::load(&**storage, dir)?;
    for name in damaged {
        let path = dir.join(schema::DIR).join(&name);
        tracing::error!(path = %path.display(), "spool schema damaged: its records wait until the same text is added again");
        let bytes = storage::read_file(&**storage, &path, schema::TEXT_BYTES_MAX as u64).unwrap_or_default();
        aside::keep_bytes(&**storage, dir, &name, &bytes);
    }

    let listed = segment::list(&**storage, dir).map_err(SpoolError::io("list the segments", dir))?;
    let to_segment = |(name, length): (Name, u64)| Segment { name, length, first: name.start };
    let mut segments: Vec<Segment> = listed.into_iter().map(to_segment).collect();
    if let Some(oldest) = segments.first_mut() {
        oldest.first = first_sequence(&**storage, dir, oldest)?;
    }
    let oldest = segments.first().map_or(0, |segment| segment.first);
    recovery.cursor = match cursor::load(&**storage, dir)? {
        // Nothing was ever forwarded, so nothing deleted.
        Found::None => Cursor::default(),
        Found::Cursor(cursor) => cursor,
        Found::Damaged(bytes) => {
            tracing::warn!(dir = %dir.display(), from = oldest, "spool cursor damaged: what is still there is forwarded again");
            aside::keep_bytes(&**storage, dir, cursor::FILE, &bytes);
            recovery.cursor_damaged = true;
            Cursor { sequence: oldest, note: Vec::new() }
        }
    };
    recovery.next_sequence = recovery.cursor.sequence;
    let live = match segments.last_mut() {
        Some(last) => mend(&**storage, dir, last, compress, &mut recovery)?,
        None => None,
    };
    recovery.records = recovery.next_sequence - recovery.cursor.sequence;
    Ok(Opened { recovery, schemas, segments, live, lock })
}

/// The least sequence in a segment, as its first block says.
fn first_sequence(storage: &dyn Storage, dir: &Path, segment: &Segment) -> Result<u64, SpoolError> {
    let path = segment.name.path(dir);
    let file = storage.open(&path, false).map_err(SpoolError::io("open", &path))?;
    let first = Walk::new(segment.name, file).first().map_err(SpoolError::io("read", &path))?;
    Ok(first.map_or(segment.name.start, |first| first.min(segment.name.start)))
}

/// Reads the last segment through, cuts its torn end, and makes sure of what is left.
fn mend(
    storage: &dyn Storage,
    dir: &Path,
    segment: &mut Segment,
    compress: Compress,
    recovery: &mut Recovery,
) -> Result<Option<writer::Live>, SpoolError> {
    let name = segment.name;
    let path = name.path(dir);
    let file = storage.open(&path, true).map_err(SpoolError::io("open", &path))?;
    let io = |action| SpoolError::io(action, &path);
    let mut walk = Walk::new(name, file.clone());
    recovery.next_sequence = recovery.next_sequence.max(name.start);
    let header = walk.header().map_err(io("read"))?;
    match header {
        HeaderState::Right => {}
        HeaderState::Version(version) => return Err(SpoolError::Version { path, version }),
        HeaderState::Missing => file.cut(0).map_err(io("cut"))?,
        HeaderState::Damaged => skip(storage, dir, name, &*file, (0, SEGMENT_HEADER_BYTES), recovery),
    }
    if header != HeaderState::Right {
        // Whether it has packed blocks is not known, and the later version reads either.
        storage::write_all(&*file, &name.header(Compress::Zstd), 0).map_err(io("write"))?;
        segment.length = segment.length.max(SEGMENT_HEADER_BYTES);
    }
    loop {
        match walk.step(segment.length).map_err(io("read"))? {
            Step::Block { offset, header, body } => {
                let damaged = block::read_records(&header, &body, |_| {});
                if damaged > 0 {
                    skip(storage, dir, name, &*file, (offset, header.block_bytes()), recovery);
                }
                recovery.next_sequence = recovery.next_sequence.max(header.next());
            }
            Step::Damaged { offset, bytes } => skip(storage, dir, name, &*file, (offset, bytes), recovery),
            Step::Tail { offset, bytes } => {
                tracing::warn!(path = %path.display(), offset, bytes, "torn end of the spool cut off");
                recovery.torn_bytes += bytes;
                aside::keep_span(storage, dir, &name.text(), &*file, offset, bytes);
                file.cut(offset).map_err(io("cut"))?;
                segment.length = offset;
            }
            Step::End => break,
        }
    }
    // What has blocks is written no more: a sync of it may have failed without a trace.
    let is_empty = segment.length == SEGMENT_HEADER_BYTES;
    if is_empty {
        storage::write_all(&*file, &name.header(compress), 0).map_err(io("write"))?;
    }
    file.sync().map_err(io("sync"))?;
    let live = writer::Live { name, file, length: segment.length, synced: false, distrusted: false };
    Ok(is_empty.then_some(live))
}

fn skip(
    storage: &dyn Storage,
    dir: &Path,
    name: Name,
    file: &dyn StorageFile,
    (offset, bytes): (u64, u64),
    recovery: &mut Recovery,
) {
    tracing::error!(path = %name.path(dir).display(), offset, bytes, "corrupt bytes in the spool; a copy is kept under corrupt/");
    recovery.skipped_spans += 1;
    recovery.skipped_bytes += bytes;
    aside::keep_span(storage, dir, &name.text(), file, offset, bytes);
}

#[cfg(test)]
mod tests;
