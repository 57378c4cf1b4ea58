//! What can go wrong, and what the caller does about it.

use std::io;
use std::path::{Path, PathBuf};

/// Why the spool could not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The file system said no. Passing or not is for the source to say; nothing that was accepted is lost.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    /// Another process, or another [`Spool`](crate::Spool) of this one, writes here.
    #[error("{}: another process holds this spool; give each its own directory, or stop the other", .0.display())]
    Locked(PathBuf),
    /// The options contradict each other.
    #[error("spool options: {0}")]
    Options(String),
    /// The files were written by a newer program.
    #[error("{}: spool format {version} is newer than this program reads; use the program that wrote it", path.display())]
    Version { path: PathBuf, version: u32 },
    /// [`Spool::advance`](crate::Spool::advance) was asked to go back.
    #[error("the cursor stands at {cursor} and does not go back to {asked}")]
    CursorBack { cursor: u64, asked: u64 },
    /// [`Spool::advance`](crate::Spool::advance) was asked to pass what is written.
    #[error("the cursor cannot go to {asked}: the spool ends at {end}")]
    CursorPastEnd { end: u64, asked: u64 },
    #[error("a cursor note of {0} bytes; the most are {max}", max = crate::cursor::NOTE_BYTES_MAX)]
    NoteTooLong(usize),
    #[error("a schema of {0} bytes; the most are {max}", max = crate::schema::TEXT_BYTES_MAX)]
    SchemaTooLong(usize),
    #[error("this spool has {max} schemas already, the most it takes", max = crate::schema::SCHEMAS_MAX)]
    TooManySchemas,
    /// The disk does not take what was appended. It is kept in memory and tried again.
    #[error("the spool cannot write: {0}")]
    Failed(String),
    /// The spool ended while the disk did not take this many records.
    #[error("the spool ended with {records} records not on the disk: {reason}")]
    Unwritten { records: u64, reason: String },
    /// The spool was closed before.
    #[error("the spool is closed")]
    Closed,
}

impl SpoolError {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SpoolError {
        move |source| SpoolError::Io { action, path: path.to_path_buf(), source }
    }
}

/// Why a record was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The directory, or the memory between it and the writer, is at its bound. Nothing was appended; later there may be
    /// room.
    #[error("the spool is full")]
    Full,
    /// The payload is longer than `record_bytes_max`. Nothing was appended.
    #[error("the record is longer than the spool takes")]
    TooLarge,
    /// The disk takes nothing at present. From [`Spool::append`](crate::Spool::append): nothing was appended. From
    /// [`Pending`](crate::Pending): the record was not accepted, but it is kept in memory and may still be written.
    #[error("the spool cannot write")]
    Failed,
    /// The spool is closed. Nothing was appended, or what was did not reach the disk.
    #[error("the spool is closed")]
    Closed,
}
