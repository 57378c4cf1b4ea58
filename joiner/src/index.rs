//! The outcome index: the landed statements of a model by prediction, on local disk.
//!
//! It is a cache of `<model>_outcomes`, of committed batches only, so that sealing need not search a table for the
//! outcomes of each prediction. It says how far it is by a stamp, the next offset of each partition, which changes
//! together with the rows: behind the table it is to be caught up from it, ahead of it (a table that was rolled back)
//! it is to be cleared. One that cannot be opened, or belongs to another table, is deleted and begun anew.
//!
//! Writes reach the operating system, not the disk: after a power cut the index is at an earlier stamp, or damaged,
//! and either is repaired from the table.
//!
//! | key | value |
//! |---|---|
//! | prediction id, `00`, ingest time (8 bytes), partition (4), offset (8), all big-endian | the statement, postcard |
//!
//! A `00` within an id is written `00 FF`. An ingest time is not negative, so that its first byte is below `80` and
//! no id's keys are a prefix of another's. Minted ids are UUIDv7 texts, so that their keys are ordered by event time
//! and what is old is one range.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use flywheel_schemas::id;

use crate::label::Statement;
use crate::map::HashMap;

/// Blocks that are kept in memory. Look-ups follow the order of ids closely, so that little is read twice.
const CACHE_BYTES: u64 = 16 * 1024 * 1024;
/// Rows that are not yet in a sorted file.
const MEMTABLE_BYTES: u64 = 8 * 1024 * 1024;
/// Of the journal; the least that the store takes.
const JOURNAL_BYTES: u64 = 64 * 1024 * 1024;
/// Background threads of one index: it is written to once per commit.
const THREADS: usize = 1;
/// Entries that one call of [`Index::expire`] removes, so that it does not hold up landing.
const EXPIRE_MAX: usize = 50_000;
/// The layout of keys and values. Another one is not read, but begun anew.
const LAYOUT: &[u8] = b"2";

/// Entries of other predictions that a walk passes before it looks the next one up: about what a look-up costs.
const SKIPPED_MAX: u32 = 16;

const ROWS: &str = "rows";
const META: &str = "meta";
const KEY_TABLE: &[u8] = b"table";
const KEY_LAYOUT: &[u8] = b"layout";
const KEY_STAMP: &[u8] = b"stamp";
const KEY_EXPIRED: &[u8] = b"expired";

/// An error of the index.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    #[error("the index {dir} is in use by another process")]
    InUse { dir: PathBuf },
    /// To be answered by [`Index::discard`], as is damage; the table has everything.
    #[error("the index {dir}: {source}")]
    Store { dir: PathBuf, source: fjall::Error },
    #[error("the index {dir} holds an entry that is not a statement")]
    Damaged { dir: PathBuf },
    #[error("the index {dir}: {source}")]
    Folder { dir: PathBuf, source: std::io::Error },
    #[error("a statement about {prediction_id} cannot be kept: {reason}")]
    Statement { prediction_id: String, reason: &'static str },
}

/// The open index of one table. Cheap to clone; calls block on the disk.
#[derive(Clone)]
pub struct Index {
    dir: PathBuf,
    database: Database,
    rows: Keyspace,
    meta: Keyspace,
}

impl Index {
    /// Opens the index in `dir` of the table with that uuid, or begins an empty one.
    ///
    /// # Errors
    /// [`IndexError::InUse`] where another process has it open; else of the disk.
    pub fn open(dir: &Path, table_uuid: &str) -> Result<Index, IndexError> {
        let cause = match Index::open_present(dir) {
            Ok(index) => match index.belongs_to(table_uuid) {
                Ok(true) => return Ok(index),
                Ok(false) if index.is_new()? => return index.begin(table_uuid),
                Ok(false) => "of another table or layout".to_owned(),
                Err(error) => error.to_string(),
            },
            Err(error @ IndexError::InUse { .. }) => return Err(error),
            Err(error) => error.to_string(),
        };
        tracing::warn!(dir = %dir.display(), cause, "the outcome index is of no use, building it anew");
        Index::discard(dir)?;
        Index::open_present(dir)?.begin(table_uuid)
    }

    /// Deletes an index, unless somebody has it open.
    ///
    /// # Errors
    /// [`IndexError::InUse`], and of the disk.
    pub fn delete(dir: &Path) -> Result<(), IndexError> {
        // One that cannot be opened for another reason is of no use.
        match Index::open_present(dir) {
            Err(error @ IndexError::InUse { .. }) => return Err(error),
            opened => drop(opened),
        }
        Index::discard(dir)
    }

    /// Deletes an index that nobody has open.
    ///
    /// # Errors
    /// Of the disk.
    pub fn discard(dir: &Path) -> Result<(), IndexError> {
        match std::fs::remove_dir_all(dir) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(IndexError::Folder { dir: dir.to_owned(), source })
            }
            _ => Ok(()),
        }
    }

    fn open_present(dir: &Path) -> Result<Index, IndexError> {
        let failed = |source| match source {
            fjall::Error::Locked => IndexError::InUse { dir: dir.to_owned() },
            source => IndexError::Store { dir: dir.to_owned(), source },
        };
        let database = Database::builder(dir)
            .cache_size(CACHE_BYTES)
            .max_journaling_size(JOURNAL_BYTES)
            .worker_threads(THREADS)
            .open()
            .map_err(failed)?;
        let options = || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES);
        let rows = database.keyspace(ROWS, options).map_err(failed)?;
        let meta = database.keyspace(META, options).map_err(failed)?;
        Ok(Index { dir: dir.to_owned(), database, rows, meta })
    }

    fn belongs_to(&self, table_uuid: &str) -> Result<bool, IndexError> {
        let is = |key: &[u8], value: &[u8]| -> Result<bool, IndexError> {
            Ok(self.meta.get(key).map_err(|error| self.store(error))?.is_some_and(|found| *found == *value))
        };
        Ok(is(KEY_TABLE, table_uuid.as_bytes())? && is(KEY_LAYOUT, LAYOUT)? && self.stamp().is_ok())
    }

    fn is_new(&self) -> Result<bool, IndexError> {
        Ok(self.meta.is_empty().map_err(|error| self.store(error))?
            && self.rows.is_empty().map_err(|error| self.store(error))?)
    }

    fn begin(self, table_uuid: &str) -> Result<Index, IndexError> {
        let mut batch = self.database.batch();
        batch.insert(&self.meta, KEY_TABLE, table_uuid.as_bytes());
        batch.insert(&self.meta, KEY_LAYOUT, LAYOUT);
        batch.commit().map_err(|error| self.store(error))?;
        Ok(self)
    }

    /// The next offset of each partition; empty for an empty index.
    ///
    /// # Errors
    /// Of the disk, or a damaged stamp.
    pub fn stamp(&self) -> Result<BTreeMap<i32, i64>, IndexError> {
        match self.meta.get(KEY_STAMP).map_err(|error| self.store(error))? {
            None => Ok(BTreeMap::new()),
            Some(bytes) => postcard::from_bytes(&bytes).map_err(|_| self.damaged()),
        }
    }

    /// Takes statements, each with its prediction id, and moves the partitions of `stamp` there, both or neither.
    /// Partitions that `stamp` does not name stay. A statement that is there already is written over by itself; one
    /// that has expired is left out.
    ///
    /// # Errors
    /// Of the disk.
    pub fn apply(&self, rows: Vec<(String, Statement)>, stamp: &BTreeMap<i32, i64>) -> Result<(), IndexError> {
        let mut batch = self.database.batch();
        let oldest = match self.expired_before_ms()? {
            0 => Vec::new(),
            before_ms => start_of(before_ms),
        };
        for (prediction_id, statement) in rows.into_iter().filter(|(id, _)| id.as_bytes() >= oldest.as_slice()) {
            let refused = |reason| IndexError::Statement { prediction_id: prediction_id.clone(), reason };
            let key = key(&prediction_id, &statement).ok_or_else(|| refused("its coordinates are negative"))?;
            let value = postcard::to_stdvec(&statement).map_err(|_| refused("it cannot be encoded"))?;
            batch.insert(&self.rows, key, value);
        }
        let mut merged = self.stamp()?;
        merged.extend(stamp);
        let value = postcard::to_stdvec(&merged).map_err(|_| self.damaged())?;
        batch.insert(&self.meta, KEY_STAMP, value);
        batch.durability(Some(PersistMode::Buffer)).commit().map_err(|error| self.store(error))
    }

    /// The statements about a prediction with an ingest time before `before_ms`, in the order of ingest, the first `max`.
    ///
    /// # Errors
    /// Of the disk, or a damaged entry.
    pub fn statements(&self, prediction_id: &str, before_ms: i64, max: usize) -> Result<Vec<Statement>, IndexError> {
        let from = start(prediction_id);
        let mut to = from.clone();
        to.extend_from_slice(&before_ms.max(0).to_be_bytes());
        self.rows
            .range(from..to)
            .take(max)
            .map(|entry| {
                let value = entry.value().map_err(|error| self.store(error))?;
                postcard::from_bytes(&value).map_err(|_| self.damaged())
            })
            .collect()
    }

    /// The statements about each of these predictions with an ingest time before that given for it (of several the last),
    /// the first `max` in the order of ingest; nothing of a prediction about which there are none. Ids that lie close together are found in one walk,
    /// which costs a tenth of as many look-ups.
    ///
    /// # Errors
    /// Of the disk, or a damaged entry.
    pub fn statements_of<'a>(
        &self,
        mut wanted: Vec<(&'a str, i64)>,
        max: usize,
    ) -> Result<HashMap<&'a str, Vec<Statement>>, IndexError> {
        let mut found: HashMap<&str, Vec<Statement>> = HashMap::default();
        wanted.sort_unstable_by_key(|(id, before_ms)| (*id, std::cmp::Reverse(*before_ms)));
        wanted.dedup_by_key(|(id, _)| *id);
        let mut left = wanted.as_slice();
        'walk: while let Some((first, _)) = left.first() {
            let mut skipped = 0;
            for entry in self.rows.range(start(first)..) {
                let (key, value) = entry.into_inner().map_err(|error| self.store(error))?;
                let (id, ingest_ms) = place_of(&key).ok_or_else(|| self.damaged())?;
                while left.first().is_some_and(|(wanted, _)| wanted.as_bytes() < &*id) {
                    left = &left[1..];
                }
                match left.first() {
                    None => break 'walk,
                    Some((wanted, before_ms)) if wanted.as_bytes() == &*id => {
                        let is_full = || found.get(wanted).is_some_and(|about| about.len() >= max);
                        // There may be a million more.
                        if ingest_ms >= *before_ms || is_full() {
                            left = &left[1..];
                            continue 'walk;
                        }
                        let statement = postcard::from_bytes(&value).map_err(|_| self.damaged())?;
                        found.entry(wanted).or_default().push(statement);
                        skipped = 0;
                    }
                    Some(_) if skipped == SKIPPED_MAX => continue 'walk,
                    Some(_) => skipped += 1,
                }
            }
            break;
        }
        Ok(found)
    }

    /// The minted ids of an event time from the first to before the second of which there are statements with an ingest time
    /// before `before_ms`, in their order.
    ///
    /// # Errors
    /// Of the disk, or a damaged entry.
    pub fn ids(&self, from_ms: i64, to_ms: i64, before_ms: i64) -> Result<Vec<String>, IndexError> {
        let bound = |ms: i64| start_of(ms.clamp(0, id::TIME_MS_MAX));
        let mut ids: Vec<String> = Vec::new();
        for entry in self.rows.range(bound(from_ms)..bound(to_ms)) {
            let key = entry.key().map_err(|error| self.store(error))?;
            let (id, ingest_ms) = id_of(&key).ok_or_else(|| self.damaged())?;
            if ingest_ms < before_ms && ids.last().is_none_or(|last| last != id) {
                ids.push(id.to_owned());
            }
        }
        Ok(ids)
    }

    /// Of predictions of an event time before this the index may lack statements; zero where it lacks none.
    ///
    /// # Errors
    /// Of the disk, or a damaged mark.
    pub fn expired_before_ms(&self) -> Result<i64, IndexError> {
        match self.meta.get(KEY_EXPIRED).map_err(|error| self.store(error))? {
            None => Ok(0),
            Some(bytes) => Ok(i64::from_be_bytes((*bytes).try_into().map_err(|_| self.damaged())?)),
        }
    }

    /// Removes the statements about predictions with minted ids of an event time before `before_ms`, oldest first, up
    /// to a number; answers whether none are left. From the first call on [`Index::expired_before_ms`] says so.
    ///
    /// # Errors
    /// Of the disk.
    pub fn expire(&self, before_ms: i64) -> Result<bool, IndexError> {
        let mut batch = self.database.batch();
        let mark = self.expired_before_ms()?.max(before_ms.clamp(0, id::TIME_MS_MAX));
        batch.insert(&self.meta, KEY_EXPIRED, mark.to_be_bytes());
        let mut removed = 0;
        for entry in self.rows.range(..start_of(mark)).take(EXPIRE_MAX) {
            let key = entry.key().map_err(|error| self.store(error))?;
            batch.remove(&self.rows, key);
            removed += 1;
        }
        batch.durability(Some(PersistMode::Buffer)).commit().map_err(|error| self.store(error))?;
        Ok(removed < EXPIRE_MAX)
    }

    /// Removes everything, stamp included.
    ///
    /// # Errors
    /// Of the disk.
    pub fn clear(&self) -> Result<(), IndexError> {
        // The stamp goes first: rows without a stamp are written over, a stamp without rows would be believed.
        self.meta.remove(KEY_STAMP).map_err(|error| self.store(error))?;
        self.rows.clear().map_err(|error| self.store(error))
    }

    /// On disk, the journal included.
    ///
    /// # Errors
    /// Of the disk.
    pub fn bytes(&self) -> Result<u64, IndexError> {
        self.database.disk_space().map_err(|error| self.store(error))
    }

    fn store(&self, source: fjall::Error) -> IndexError {
        IndexError::Store { dir: self.dir.clone(), source }
    }

    fn damaged(&self) -> IndexError {
        IndexError::Damaged { dir: self.dir.clone() }
    }
}

/// Where the keys of a prediction begin.
fn start(prediction_id: &str) -> Vec<u8> {
    let mut key = Vec::with_capacity(prediction_id.len() + 21);
    for &byte in prediction_id.as_bytes() {
        key.push(byte);
        if byte == 0 {
            key.push(0xff);
        }
    }
    key.push(0);
    key
}

/// As [`start_of`], as text.
pub(crate) fn least_id(event_ms: i64) -> String {
    let digits = format!("{:012x}", event_ms.clamp(0, id::TIME_MS_MAX));
    format!("{}-{}", &digits[..8], &digits[8..])
}

/// What every minted id of that event time or a later one is not less than: the first 12 hexadecimal digits of a UUIDv7
/// are its time (RFC 9562, section 5.7).
fn start_of(event_ms: i64) -> Vec<u8> {
    least_id(event_ms).into_bytes()
}

/// The prediction id of a key, where it has no escapes, as minted ids have none, and its ingest time.
fn id_of(key: &[u8]) -> Option<(&str, i64)> {
    let (id, ingest_ms) = split(key)?;
    Some((std::str::from_utf8(id).ok()?, ingest_ms))
}

/// The bytes of the prediction id of any key, and its ingest time. Ids are ordered as their keys are.
fn place_of(key: &[u8]) -> Option<(Cow<'_, [u8]>, i64)> {
    let (id, ingest_ms) = split(key)?;
    if !id.contains(&0) {
        return Some((Cow::Borrowed(id), ingest_ms));
    }
    let mut plain = Vec::with_capacity(id.len());
    for &byte in id {
        // What follows a zero is its escape.
        if byte != 0xff || plain.last() != Some(&0) {
            plain.push(byte);
        }
    }
    Some((Cow::Owned(plain), ingest_ms))
}

/// The part of a key that stands for the prediction id, and the ingest time.
fn split(key: &[u8]) -> Option<(&[u8], i64)> {
    let (head, _) = key.split_at_checked(key.len().checked_sub(4 + 8)?)?;
    let (id, ingest) = head.split_at_checked(head.len().checked_sub(8)?)?;
    Some((id.strip_suffix(&[0])?, i64::from_be_bytes(ingest.try_into().ok()?)))
}

/// None where a coordinate is negative, which no landed record has.
fn key(prediction_id: &str, statement: &Statement) -> Option<Vec<u8>> {
    let mut key = start(prediction_id);
    key.extend_from_slice(&u64::try_from(statement.ingest_time_ms).ok()?.to_be_bytes());
    key.extend_from_slice(&u32::try_from(statement.partition).ok()?.to_be_bytes());
    key.extend_from_slice(&u64::try_from(statement.offset).ok()?.to_be_bytes());
    Some(key)
}

#[cfg(test)]
mod tests;
