//! Segment files: their names, their headers, and the walk over the blocks of one.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use crate::Compress;
use crate::block::{self, Header, u32_at};
use crate::pack::PACKED_HEADER_BYTES;
use crate::storage::{self, Storage, StorageFile};

/// Begins every segment file.
const MAGIC: [u8; 8] = [0xF1, b'f', b'w', b's', b'p', b'l', 0x1A, 0x0A];
/// Of a segment without packed blocks, so that a program that knows none reads it.
const VERSION: u32 = 1;
/// Of a segment that may have some.
const VERSION_PACKED: u32 = 2;
/// magic (8), version (4), number (8), start (8), CRC-32C (4).
pub(crate) const SEGMENT_HEADER_BYTES: u64 = 32;
/// What a walk reads at a time: large beside the cost of a call, small beside the memory of a process.
const READ_AHEAD_BYTES: u64 = 256 * 1024;
/// No block is shorter, so that either kind of header can be read there: one that is not packed has a record of 20 bytes at least.
const BLOCK_BYTES_MIN: u64 = PACKED_HEADER_BYTES as u64;

/// What the name of a segment file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Name {
    /// Files are read in the order of their numbers; a number is never used twice.
    pub(crate) number: u64,
    /// The least sequence that no earlier segment had when this one was begun. Records below it are in here only as second
    /// copies, after an earlier segment failed.
    pub(crate) start: u64,
}

impl Name {
    pub(crate) fn parse(text: &str) -> Option<Name> {
        let (number, start) = text.strip_suffix(".log")?.split_once('-')?;
        let digits = |text: &str, count| text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(number, 12) || !digits(start, 20) {
            return None;
        }
        Some(Name { number: number.parse().ok()?, start: start.parse().ok()? })
    }

    pub(crate) fn text(&self) -> String {
        format!("{:012}-{:020}.log", self.number, self.start)
    }

    pub(crate) fn path(&self, dir: &Path) -> PathBuf {
        dir.join(self.text())
    }

    pub(crate) fn header(&self, compress: Compress) -> [u8; SEGMENT_HEADER_BYTES as usize] {
        let version = match compress {
            Compress::None => VERSION,
            Compress::Zstd => VERSION_PACKED,
        };
        let mut bytes = [0; SEGMENT_HEADER_BYTES as usize];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&version.to_le_bytes());
        bytes[12..20].copy_from_slice(&self.number.to_le_bytes());
        bytes[20..28].copy_from_slice(&self.start.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..28]);
        bytes[28..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }
}

/// The segments of a directory with their lengths, by number.
pub(crate) fn list(storage: &dyn Storage, dir: &Path) -> io::Result<Vec<(Name, u64)>> {
    let files = storage.list(dir)?;
    let mut segments: Vec<_> = files.iter().filter_map(|(text, length)| Some((Name::parse(text)?, *length))).collect();
    segments.sort_unstable();
    Ok(segments)
}

/// How the header of a segment file was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeaderState {
    Right,
    /// The file is shorter than a header.
    Missing,
    Damaged,
    /// A right header of a format that this program does not know.
    Version(u32),
}

/// What stands at the place of a walk.
#[derive(Debug)]
pub(crate) enum Step {
    /// A whole block, at `offset`.
    Block { offset: u64, header: Header, body: Bytes },
    /// Bytes that are no block, up to where the next one begins; the walk stands there now.
    Damaged { offset: u64, bytes: u64 },
    /// From here to the end is no whole block: a block that is still being written, a torn one, or damage.
    Tail { offset: u64, bytes: u64 },
    /// Nothing more.
    End,
}

/// A walk over the blocks of one segment.
#[derive(Debug)]
pub(crate) struct Walk {
    pub(crate) name: Name,
    pub(crate) file: Arc<dyn StorageFile>,
    pub(crate) offset: u64,
    chunk: Bytes,
    chunk_offset: u64,
}

impl Walk {
    /// A walk that begins behind the segment's header.
    pub(crate) fn new(name: Name, file: Arc<dyn StorageFile>) -> Walk {
        Walk { name, file, offset: SEGMENT_HEADER_BYTES, chunk: Bytes::new(), chunk_offset: 0 }
    }

    pub(crate) fn header(&mut self) -> io::Result<HeaderState> {
        let mut bytes = [0; SEGMENT_HEADER_BYTES as usize];
        if storage::read_full(&*self.file, &mut bytes, 0)? < bytes.len() {
            return Ok(HeaderState::Missing);
        }
        if [Compress::None, Compress::Zstd].into_iter().any(|compress| bytes == self.name.header(compress)) {
            return Ok(HeaderState::Right);
        }
        let right = bytes[..8] == MAGIC && u32_at(&bytes, 28) == Some(crc32c::crc32c(&bytes[..28]));
        match u32_at(&bytes, 8) {
            Some(version) if right && version > VERSION_PACKED => Ok(HeaderState::Version(version)),
            _ => Ok(HeaderState::Damaged),
        }
    }

    /// The next step in a file that is to be read up to `end`. Blocks and damage are passed; a tail is not.
    pub(crate) fn step(&mut self, end: u64) -> io::Result<Step> {
        let offset = self.offset;
        if offset >= end {
            return Ok(Step::End);
        }
        let found = self.bytes(offset, BLOCK_BYTES_MIN, end)?;
        if let Some(header) = found.and_then(|bytes| Header::read(&bytes, self.name.number, offset)) {
            return Ok(match self.bytes(offset, header.block_bytes(), end)? {
                Some(block) => {
                    self.offset += header.block_bytes();
                    Step::Block { offset, header, body: block.slice(header.header_bytes()..) }
                }
                None => self.tail(end),
            });
        }
        match self.find(offset + 1, end)? {
            Some(next) => {
                self.offset = next;
                Ok(Step::Damaged { offset, bytes: next - offset })
            }
            None => Ok(self.tail(end)),
        }
    }

    /// The sequence that the first whole block begins with.
    pub(crate) fn first(&mut self) -> io::Result<Option<u64>> {
        let end = self.file.length()?;
        loop {
            match self.step(end)? {
                Step::Block { header, .. } => return Ok(Some(header.first)),
                Step::Damaged { .. } => {}
                Step::Tail { .. } | Step::End => return Ok(None),
            }
        }
    }

    /// Goes on at `offset`, as if nothing had been read ahead.
    pub(crate) fn resume(&mut self, offset: u64) {
        self.offset = offset;
        self.chunk = Bytes::new();
    }

    /// What was read ahead of a tail is forgotten: it may yet become a block.
    fn tail(&mut self, end: u64) -> Step {
        self.chunk = Bytes::new();
        Step::Tail { offset: self.offset, bytes: end - self.offset }
    }

    /// The offset of the next block header from `from` on.
    fn find(&mut self, mut from: u64, end: u64) -> io::Result<Option<u64>> {
        while from + BLOCK_BYTES_MIN <= end {
            let length = (end - from).min(READ_AHEAD_BYTES);
            let Some(bytes) = self.bytes(from, length, end)? else { return Ok(None) };
            let last = bytes.len() - BLOCK_BYTES_MIN as usize;
            let mut at = 0;
            while at <= last {
                let Some(ahead) = bytes[at..=last].iter().position(|&byte| byte == block::MAGIC[0]) else { break };
                at += ahead;
                if Header::read(&bytes[at..], self.name.number, from + at as u64).is_some() {
                    return Ok(Some(from + at as u64));
                }
                at += 1;
            }
            from += last as u64 + 1;
        }
        Ok(None)
    }

    /// `length` bytes at `offset`; none where the file, or what may be read of it, ends before.
    fn bytes(&mut self, offset: u64, length: u64, end: u64) -> io::Result<Option<Bytes>> {
        if offset + length > end {
            return Ok(None);
        }
        let ahead = offset.checked_sub(self.chunk_offset).filter(|at| at + length <= self.chunk.len() as u64);
        if let Some(at) = ahead {
            return Ok(Some(self.chunk.slice(at as usize..(at + length) as usize)));
        }
        let mut bytes = vec![0; length.max(READ_AHEAD_BYTES.min(end - offset)) as usize];
        let read = storage::read_full(&*self.file, &mut bytes, offset)?;
        bytes.truncate(read);
        self.chunk = Bytes::from(bytes);
        self.chunk_offset = offset;
        Ok((read as u64 >= length).then(|| self.chunk.slice(..length as usize)))
    }
}

#[cfg(test)]
mod tests {
    use super::Name;

    #[test]
    fn a_name_is_read_back_and_other_files_are_not_segments() {
        let name = Name { number: 7, start: u64::MAX };
        assert_eq!(Name::parse(&name.text()), Some(name));
        for other in [
            "cursor",
            "lock",
            "1-2.log",
            "000000000007-00000000000000000001.log.tmp",
            "+00000000007-00000000000000000001.log",
        ] {
            assert_eq!(Name::parse(other), None, "{other}");
        }
    }
}
