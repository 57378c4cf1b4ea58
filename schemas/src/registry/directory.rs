//! A directory as registry, for one machine.
//!
//! ```text
//! DIR/lock                              held while registering
//! DIR/schemas/<id>.avsc                 the text, as it was registered
//! DIR/subjects/<subject>/<version>      the id, as decimal text
//! ```
//! Files are written under another name, synced and renamed, the schema before the version that names it, so a reader
//! sees whole files only and needs no lock. A process that dies in between leaves at most a schema that no subject
//! has yet; the next registration of the same text takes it up. One text has one id in all subjects.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use apache_avro::Schema;
use apache_avro::schema_compatibility::{Compatibility, SchemaCompatibility};
use serde_json::Value;

use super::{Registered, RegistryError, RegistryErrorKind};

/// A registration takes milliseconds; who waits longer than this waits for a process that hangs.
const LOCK_WAIT: Duration = Duration::from_secs(10);
const LOCK_POLL: Duration = Duration::from_millis(10);

pub(super) struct Directory {
    root: PathBuf,
}

impl Directory {
    pub fn open(root: PathBuf) -> Result<Directory, RegistryError> {
        if root.as_os_str().is_empty() {
            return Err(RegistryError::new(RegistryErrorKind::Setup, "`file:` lacks a directory; write file:DIR"));
        }
        for part in ["schemas", "subjects"] {
            let path = root.join(part);
            fs::create_dir_all(&path).map_err(|error| {
                RegistryError::new(RegistryErrorKind::Setup, format!("{}: {error}", path.display()))
            })?;
        }
        Ok(Directory { root })
    }

    /// Runs file work off the async threads.
    pub async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Directory) -> Result<T, RegistryError> + Send + 'static,
    ) -> Result<T, RegistryError> {
        let directory = Arc::clone(self);
        tokio::task::spawn_blocking(move || work(&directory)).await.unwrap_or_else(|error| {
            Err(RegistryError::new(RegistryErrorKind::Unreachable, format!("the file work was given up: {error}")))
        })
    }

    pub fn schema(&self, id: u32) -> Result<String, RegistryError> {
        match fs::read_to_string(self.schema_path(id)) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Err(RegistryError::new(RegistryErrorKind::NotFound, format!("there is no schema {id}")))
            }
            read => read.map_err(|error| failed(&self.schema_path(id), &error)),
        }
    }

    pub fn versions(&self, subject: &str) -> Result<Vec<Registered>, RegistryError> {
        let path = self.subject_path(subject)?;
        let mut versions: Vec<i32> = numbers(&path)?;
        versions.sort_unstable();
        versions
            .into_iter()
            .map(|version| {
                let path = path.join(version.to_string());
                let id = fs::read_to_string(&path).map_err(|error| failed(&path, &error))?;
                let id = id.trim().parse().map_err(|_| damaged(&path, "it holds no schema id"))?;
                Ok(Registered { id, version, text: self.schema(id)? })
            })
            .collect()
    }

    pub fn look_up(&self, subject: &str, text: &str) -> Result<Option<u32>, RegistryError> {
        let wanted = parsed(text)?;
        for registered in self.versions(subject)?.into_iter().rev() {
            if parsed(&registered.text)? == wanted {
                return Ok(Some(registered.id));
            }
        }
        Ok(None)
    }

    pub fn register(&self, subject: &str, text: &str) -> Result<u32, RegistryError> {
        let schema = avro(text)?;
        let _lock = self.lock()?;
        if let Some(id) = self.look_up(subject, text)? {
            return Ok(id);
        }
        let versions = self.versions(subject)?;
        for registered in &versions {
            let error = match SchemaCompatibility::mutual_read(&schema, &avro(&registered.text)?) {
                Ok(Compatibility::Full) => continue,
                Ok(Compatibility::Partial) => "some values could not be read".to_owned(),
                Err(error) => error.to_string(),
            };
            return Err(RegistryError::new(
                RegistryErrorKind::Incompatible,
                format!("{subject}: the schema is incompatible with version {}: {error}", registered.version),
            ));
        }
        let id = self.add(text)?;
        let path = self.subject_path(subject)?;
        fs::create_dir_all(&path).map_err(|error| failed(&path, &error))?;
        sync_directory(&self.root.join("subjects"))?;
        let version = versions.last().map_or(1, |registered| registered.version + 1);
        write(&path, &version.to_string(), &id.to_string())?;
        Ok(id)
    }

    /// The id of `text`, new or already given.
    fn add(&self, text: &str) -> Result<u32, RegistryError> {
        let wanted = parsed(text)?;
        let path = self.root.join("schemas");
        let ids: Vec<u32> = numbers(&path)?;
        for id in &ids {
            if parsed(&self.schema(*id)?)? == wanted {
                return Ok(*id);
            }
        }
        let id = ids.into_iter().max().unwrap_or(0) + 1;
        write(&path, &format!("{id}.avsc"), text)?;
        Ok(id)
    }

    fn lock(&self) -> Result<File, RegistryError> {
        let path = self.root.join("lock");
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(|error| failed(&path, &error))?;
        let start = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) if start.elapsed() < LOCK_WAIT => std::thread::sleep(LOCK_POLL),
                Err(TryLockError::WouldBlock) => {
                    return Err(RegistryError::new(
                        RegistryErrorKind::Unreachable,
                        format!("{} is held by another process for over {LOCK_WAIT:?}", path.display()),
                    ));
                }
                Err(TryLockError::Error(error)) => return Err(failed(&path, &error)),
            }
        }
    }

    fn schema_path(&self, id: u32) -> PathBuf {
        self.root.join("schemas").join(format!("{id}.avsc"))
    }

    fn subject_path(&self, subject: &str) -> Result<PathBuf, RegistryError> {
        let plain = subject.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        if !plain || subject.is_empty() || subject.starts_with('.') {
            return Err(RegistryError::new(
                RegistryErrorKind::Refused,
                format!("`{subject}` is no subject; letters, digits, `.`, `_` and `-` make one"),
            ));
        }
        Ok(self.root.join("subjects").join(subject))
    }
}

/// The files of a directory whose names, up to the first dot, are numbers; none where there is no directory.
fn numbers<T: std::str::FromStr>(path: &Path) -> Result<Vec<T>, RegistryError> {
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|error| failed(path, &error))?,
    };
    let mut numbers = Vec::new();
    for entry in entries {
        let name = entry.map_err(|error| failed(path, &error))?.file_name();
        // A file that is still being written has a name that begins with a dot.
        let number = name.to_str().and_then(|name| name.split('.').next()).and_then(|name| name.parse().ok());
        numbers.extend(number);
    }
    Ok(numbers)
}

/// Writes `directory/name` so that it is there whole or not at all. The caller holds the lock.
fn write(directory: &Path, name: &str, text: &str) -> Result<(), RegistryError> {
    let (temporary, path) = (directory.join(".new"), directory.join(name));
    let written = File::create(&temporary).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, &path)
    });
    written.map_err(|error| failed(&path, &error))?;
    sync_directory(directory)
}

fn sync_directory(path: &Path) -> Result<(), RegistryError> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(|error| failed(path, &error))
}

fn parsed(text: &str) -> Result<Value, RegistryError> {
    serde_json::from_str(text)
        .map_err(|error| RegistryError::new(RegistryErrorKind::Refused, format!("the schema is no JSON: {error}")))
}

fn avro(text: &str) -> Result<Schema, RegistryError> {
    Schema::parse_str(text)
        .map_err(|error| RegistryError::new(RegistryErrorKind::Refused, format!("not an Avro schema: {error}")))
}

/// Disk full, permissions: a person may mend it, and the same call then succeeds.
fn failed(path: &Path, error: &std::io::Error) -> RegistryError {
    RegistryError::new(RegistryErrorKind::Unreachable, format!("{}: {error}", path.display()))
}

fn damaged(path: &Path, what: &str) -> RegistryError {
    RegistryError::new(RegistryErrorKind::Damaged, format!("{}: {what}", path.display()))
}
