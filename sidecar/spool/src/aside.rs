//! `corrupt/`: copies of what could not be read, kept for a person to look at before its segment is deleted.
//!
//! A span of a segment is kept as `SEGMENT@OFFSET`, another file under its own name.

use std::io;
use std::path::Path;

use crate::storage::{self, Storage, StorageFile};

pub(crate) const DIR: &str = "corrupt";
/// Evidence, not an archive: a dying disk must not fill itself with copies of its damage.
const BYTES_MAX: u64 = 64 * 1024 * 1024;
/// As above, for very many small spans.
const FILES_MAX: usize = 1000;
/// Copied at a time.
const COPY_BYTES: u64 = 256 * 1024;

/// Keeps `bytes` from `offset` of a segment. A copy that cannot be made is logged and holds up nothing.
pub(crate) fn keep_span(
    storage: &dyn Storage,
    dir: &Path,
    segment: &str,
    file: &dyn StorageFile,
    offset: u64,
    bytes: u64,
) {
    keep(storage, dir, &format!("{segment}@{offset}"), bytes, |out| {
        let mut done = 0;
        while done < bytes {
            let mut part = vec![0; (bytes - done).min(COPY_BYTES) as usize];
            let read = storage::read_full(file, &mut part, offset + done)?;
            if read == 0 {
                break;
            }
            storage::write_all(out, &part[..read], done)?;
            done += read as u64;
        }
        Ok(())
    });
}

/// Keeps the content of another file.
pub(crate) fn keep_bytes(storage: &dyn Storage, dir: &Path, name: &str, bytes: &[u8]) {
    keep(storage, dir, name, bytes.len() as u64, |out| storage::write_all(out, bytes, 0));
}

fn keep(
    storage: &dyn Storage,
    dir: &Path,
    name: &str,
    bytes: u64,
    copy: impl FnOnce(&dyn StorageFile) -> io::Result<()>,
) {
    let folder = dir.join(DIR);
    let kept = storage.list(&folder).unwrap_or_default();
    if kept.iter().any(|(other, _)| other == name) {
        return;
    }
    let used: u64 = kept.iter().map(|(_, length)| length).sum();
    if kept.len() >= FILES_MAX || used + bytes > BYTES_MAX {
        tracing::warn!(dir = %dir.display(), name, bytes, "corrupt bytes not kept: the folder is at its bound");
        return;
    }
    if let Err(error) = storage.create(&folder.join(name)).and_then(|out| copy(&*out)) {
        tracing::warn!(dir = %dir.display(), name, bytes, %error, "corrupt bytes not kept");
    }
}
