//! The cursor file: how far the one reader that counts has come.
//!
//! `cursor`: magic (8) | version u32 | sequence u64 | note length u32 | note | CRC-32C u32 of all before it.

use std::io;
use std::path::Path;

use crate::SpoolError;
use crate::block::{u32_at, u64_at};
use crate::storage::{self, Storage};

pub(crate) const FILE: &str = "cursor";
/// A note is a few numbers per kind of record; a page is plenty and keeps the file one block of the disk.
pub const NOTE_BYTES_MAX: usize = 4096;
const MAGIC: [u8; 8] = [0xF1, b'f', b'w', b'c', b'u', b'r', 0x1A, 0x0A];
const VERSION: u32 = 1;
const FIXED_BYTES: usize = 24;

/// How far the spool has been forwarded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cursor {
    /// The next sequence to forward; all below are done with.
    pub sequence: u64,
    /// The caller's own, at most [`NOTE_BYTES_MAX`]; kept with the sequence, atomically.
    pub note: Vec<u8>,
}

impl Cursor {
    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(FIXED_BYTES + self.note.len() + 4);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&self.sequence.to_le_bytes());
        bytes.extend_from_slice(&(self.note.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&self.note);
        let crc = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Result<Cursor, Fault> {
        let body = bytes.len().checked_sub(4).filter(|&body| body >= FIXED_BYTES).ok_or(Fault::Damaged)?;
        if bytes[..8] != MAGIC || u32_at(bytes, body) != Some(crc32c::crc32c(&bytes[..body])) {
            return Err(Fault::Damaged);
        }
        match u32_at(bytes, 8) {
            Some(VERSION) => {}
            Some(version) => return Err(Fault::Version(version)),
            None => return Err(Fault::Damaged),
        }
        let sequence = u64_at(bytes, 12).ok_or(Fault::Damaged)?;
        if u32_at(bytes, 20).map(|length| length as usize) != Some(body - FIXED_BYTES) {
            return Err(Fault::Damaged);
        }
        Ok(Cursor { sequence, note: bytes[FIXED_BYTES..body].to_vec() })
    }
}

enum Fault {
    Damaged,
    Version(u32),
}

/// What a directory's cursor file holds.
pub(crate) enum Found {
    None,
    Cursor(Cursor),
    /// Its content is not what was written: everything that is still there is to be forwarded again.
    Damaged(Vec<u8>),
}

pub(crate) fn load(storage: &dyn Storage, dir: &Path) -> Result<Found, SpoolError> {
    let path = dir.join(FILE);
    let bytes_max = (FIXED_BYTES + NOTE_BYTES_MAX + 4) as u64;
    let bytes = match storage::read_file(storage, &path, bytes_max) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::None),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => return Ok(Found::Damaged(Vec::new())),
        Err(error) => return Err(SpoolError::io("read the cursor", &path)(error)),
    };
    match Cursor::from_bytes(&bytes) {
        Ok(cursor) => Ok(Found::Cursor(cursor)),
        Err(Fault::Damaged) => Ok(Found::Damaged(bytes)),
        Err(Fault::Version(version)) => Err(SpoolError::Version { path, version }),
    }
}

pub(crate) fn store(storage: &dyn Storage, dir: &Path, cursor: &Cursor) -> Result<(), SpoolError> {
    storage::replace(storage, dir, FILE, &cursor.to_bytes())
        .map_err(SpoolError::io("write the cursor", &dir.join(FILE)))
}
