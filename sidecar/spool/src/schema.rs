//! The texts that records were written with, one file each, so that a record outlives the program that wrote it.
//!
//! `schemas/KEY-SHA256.txt`: the text alone; KEY in ten decimal digits from 1, SHA256 of the text in hexadecimal. The name
//! checks the content: a file that does not match is kept aside, and its key is taken up again when its text is added anew.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::SpoolError;
use crate::inspect::StoredSchema;
use crate::storage::{self, Storage};

pub(crate) const DIR: &str = "schemas";
/// Registries take far less; more is a mistake.
pub(crate) const TEXT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// A schema per contract version and kind: this many are a loop that makes versions.
pub(crate) const SCHEMAS_MAX: usize = 10_000;

/// Names a schema text within one spool.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SchemaKey(pub u32);

impl SchemaKey {
    /// A record without a schema.
    pub const NONE: SchemaKey = SchemaKey(0);
}

/// The schemas of one directory.
#[derive(Debug, Default)]
pub(crate) struct Schemas {
    texts: HashMap<u32, Arc<str>>,
    keys: HashMap<String, u32>,
    last: u32,
}

impl Schemas {
    pub(crate) fn get(&self, key: SchemaKey) -> Option<Arc<str>> {
        self.texts.get(&key.0).cloned()
    }

    /// Reads every schema; returns the names of the files whose content is not what their name says.
    pub(crate) fn load(storage: &dyn Storage, dir: &Path) -> Result<(Schemas, Vec<String>), SpoolError> {
        let mut schemas = Schemas::default();
        let mut damaged = Vec::new();
        let folder = dir.join(DIR);
        let files = match storage.list(&folder) {
            Ok(files) => files,
            // A spool that was never opened for writing has none.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(SpoolError::io("list the schemas", &folder)(error)),
        };
        for (name, _) in files {
            let Some((key, digest)) = parse_name(&name) else { continue };
            schemas.last = schemas.last.max(key);
            schemas.keys.insert(digest.to_owned(), key);
            match read(storage, &folder.join(&name), digest)? {
                Some(text) => {
                    schemas.texts.insert(key, text);
                }
                None => damaged.push(name),
            }
        }
        Ok((schemas, damaged))
    }

    /// All of them, by key; with the damaged ones, which have no text.
    pub(crate) fn stored(&self) -> Vec<StoredSchema> {
        let stored = |(sha256, &key): (&String, &u32)| StoredSchema {
            key: SchemaKey(key),
            sha256: sha256.clone(),
            text: self.texts.get(&key).cloned(),
        };
        let mut all: Vec<_> = self.keys.iter().map(stored).collect();
        all.sort_by_key(|schema| schema.key);
        all
    }

    /// Gives the key of a text; one that is new is on the disk when this returns.
    pub(crate) fn add(&mut self, storage: &dyn Storage, dir: &Path, text: &str) -> Result<SchemaKey, SpoolError> {
        let digest = digest(text);
        let known = self.keys.get(&digest).copied();
        if let Some(key) = known.filter(|key| self.texts.contains_key(key)) {
            return Ok(SchemaKey(key));
        }
        if text.len() > TEXT_BYTES_MAX {
            return Err(SpoolError::SchemaTooLong(text.len()));
        }
        if self.keys.len() >= SCHEMAS_MAX {
            return Err(SpoolError::TooManySchemas);
        }
        let key = known.unwrap_or(self.last + 1);
        let folder = dir.join(DIR);
        let name = format!("{key:010}-{digest}.txt");
        storage::replace(storage, &folder, &name, text.as_bytes())
            .map_err(SpoolError::io("write a schema", &folder.join(&name)))?;
        self.last = self.last.max(key);
        self.keys.insert(digest, key);
        self.texts.insert(key, text.into());
        Ok(SchemaKey(key))
    }
}

fn digest(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn parse_name(name: &str) -> Option<(u32, &str)> {
    let (key, digest) = name.strip_suffix(".txt")?.split_once('-')?;
    let right = key.len() == 10 && digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
    Some((key.parse().ok().filter(|_| right)?, digest))
}

/// The text of a file, or none where it is not what its name says.
fn read(storage: &dyn Storage, path: &Path, expected: &str) -> Result<Option<Arc<str>>, SpoolError> {
    let bytes = match storage::read_file(storage, path, TEXT_BYTES_MAX as u64) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::InvalidData => return Ok(None),
        Err(error) => return Err(SpoolError::io("read a schema", path)(error)),
    };
    let text = String::from_utf8(bytes).ok().filter(|text| digest(text) == expected);
    Ok(text.map(Arc::from))
}
