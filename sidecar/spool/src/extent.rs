//! From where to where a directory's records go, for those who do not hold it.

use std::io;
use std::path::Path;

use crate::SpoolError;
use crate::block::Header;
use crate::cursor::{self, Found};
use crate::pack::PACKED_HEADER_BYTES;
use crate::segment::{self, SEGMENT_HEADER_BYTES, Step, Walk};
use crate::storage::{self, Machine, Storage};

/// As long as segments vanish between being listed and being opened, the look is repeated; so often in a row they do not.
const ATTEMPTS: usize = 100;

/// The sequences that a directory holds: `oldest..next`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Extent {
    pub oldest: u64,
    pub next: u64,
}

/// Looks at a directory that another process may be writing. Takes no lock, and reads the block headers of the last segment,
/// not its records. A directory that is not there holds nothing: 0 and 0.
pub fn extent(dir: &Path) -> Result<Extent, SpoolError> {
    extent_in(&Machine, dir)
}

pub(crate) fn extent_in(storage: &dyn Storage, dir: &Path) -> Result<Extent, SpoolError> {
    let mut attempts = 0;
    loop {
        attempts += 1;
        match try_extent(storage, dir) {
            Err(SpoolError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound && attempts < ATTEMPTS => {}
            other => return other,
        }
    }
}

fn try_extent(storage: &dyn Storage, dir: &Path) -> Result<Extent, SpoolError> {
    let segments = match segment::list(storage, dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Extent::default()),
        other => other.map_err(SpoolError::io("list the segments", dir))?,
    };
    let cursor = match cursor::load(storage, dir)? {
        Found::Cursor(cursor) => cursor.sequence,
        Found::None | Found::Damaged(_) => 0,
    };
    let walk = |name: segment::Name| -> Result<Walk, SpoolError> {
        let path = name.path(dir);
        Ok(Walk::new(name, storage.open(&path, false).map_err(SpoolError::io("open", &path))?))
    };
    let (Some((first, _)), Some((last, _))) = (segments.first(), segments.last()) else {
        return Ok(Extent { oldest: cursor, next: cursor });
    };
    let read = SpoolError::io("read", dir);
    let oldest = walk(*first)?.first().map_err(read)?.map_or(first.start, |sequence| sequence.min(first.start));
    let next = end(walk(*last)?).map_err(SpoolError::io("read", dir))?;
    Ok(Extent { oldest, next: next.max(last.start).max(cursor) })
}

/// The sequence after the last whole block of a segment, from its headers; 0 where there is none.
fn end(mut walk: Walk) -> io::Result<u64> {
    let length = walk.file.length()?;
    let (mut offset, mut next) = (SEGMENT_HEADER_BYTES, 0);
    loop {
        let mut bytes = [0; PACKED_HEADER_BYTES];
        let read = storage::read_full(&*walk.file, &mut bytes, offset)?;
        match Header::read(&bytes[..read], walk.name.number, offset) {
            Some(header) if offset + header.block_bytes() <= length => {
                offset += header.block_bytes();
                next = next.max(header.next());
            }
            Some(_) => return Ok(next),
            None => {
                // The end, or damage: only here the bytes between are looked at.
                walk.resume(offset);
                match walk.step(length)? {
                    Step::Block { .. } | Step::Damaged { .. } => offset = walk.offset,
                    Step::Tail { .. } | Step::End => return Ok(next),
                }
            }
        }
    }
}
