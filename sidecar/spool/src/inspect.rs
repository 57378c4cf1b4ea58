//! A look at a directory for a person: what stands in it, whoever wrote it and whether that process lives or not.

use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::cursor::{self, Cursor, Found};
use crate::schema::{SchemaKey, Schemas};
use crate::storage::{Machine, Storage};
use crate::{SpoolError, aside, segment};

/// What a directory holds beside its records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inspection {
    pub segments: u64,
    /// Of all segments.
    pub bytes: u64,
    /// None where there is none yet, or where it is damaged.
    pub cursor: Option<Cursor>,
    pub cursor_damaged: bool,
    /// By key.
    pub schemas: Vec<StoredSchema>,
    /// Copies of damage that the writer kept.
    pub kept_aside: u64,
}

/// One schema text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredSchema {
    pub key: SchemaKey,
    /// In hexadecimal.
    pub sha256: String,
    /// None where the file is not what its name says.
    pub text: Option<Arc<str>>,
}

/// Looks at a directory. Takes no lock and writes nothing. None where it is no spool: it has neither segment nor cursor.
pub fn inspect(dir: &Path) -> Result<Option<Inspection>, SpoolError> {
    let storage = Machine;
    let segments = segment::list(&storage, dir).map_err(SpoolError::io("list the segments", dir))?;
    let found = cursor::load(&storage, dir)?;
    if segments.is_empty() && matches!(found, Found::None) {
        return Ok(None);
    }
    let cursor_damaged = matches!(found, Found::Damaged(_));
    let cursor = match found {
        Found::Cursor(cursor) => Some(cursor),
        Found::None | Found::Damaged(_) => None,
    };
    let folder = dir.join(aside::DIR);
    let kept_aside = match storage.list(&folder) {
        Ok(files) => files.len() as u64,
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => return Err(SpoolError::io("list the copies of damage", &folder)(error)),
    };
    Ok(Some(Inspection {
        segments: segments.len() as u64,
        bytes: segments.iter().map(|(_, length)| length).sum(),
        cursor,
        cursor_damaged,
        schemas: Schemas::load(&storage, dir)?.0.stored(),
        kept_aside,
    }))
}
