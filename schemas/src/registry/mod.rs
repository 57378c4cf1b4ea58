//! The schema registry: a Confluent-compatible one over HTTP, or a directory.
//!
//! Nothing is cached but schema texts by id, which never change. Nothing is retried: every call has a time-out and an
//! error that says whether trying again later makes sense ([`RegistryError::is_passing`]); callers own the waiting.
//!
//! | answer | kind | passing |
//! |---|---|---|
//! | no connection, time-out, 408, 429, 5xx (with the wait that a `Retry-After` in seconds asks for) | `Unreachable` | yes |
//! | 401 (credential files are read anew for each call) | `Unauthorized` | yes |
//! | 403 | `Forbidden` | no |
//! | 404 | `NotFound`, or none where absence is an answer | no |
//! | 409 | `Incompatible` | no |
//! | other 4xx, 422 among them | `Refused` | no |
//! | an answer or a file that is not what it should be; a redirection, which is not followed | `Damaged` | no |
//! | the configuration itself | `Setup` | no |

mod confluent;
mod directory;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use confluent::Confluent;
use directory::Directory;

/// Texts kept by id; a process sees one per contract version and topic, so this is never reached in earnest.
const TEXTS_MAX: usize = 10_000;

/// Where the registry is and how to be let in. Secrets stand in files, never here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RegistryConfig {
    /// `http://…`, `https://…`, with the path below which `/subjects` is; or `file:DIR`.
    pub url: String,
    /// Basic authentication, with `password_file`.
    pub username: Option<String>,
    pub password_file: Option<PathBuf>,
    /// Bearer authentication.
    pub token_file: Option<PathBuf>,
    /// PEM certificates that are trusted beside the usual ones.
    pub ca_file: Option<PathBuf>,
}

/// One version of a subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    pub id: u32,
    /// From 1.
    pub version: i32,
    /// As the registry gives it: attributes may stand in another order than they were written.
    pub text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RegistryErrorKind {
    Unreachable,
    Unauthorized,
    Forbidden,
    NotFound,
    Incompatible,
    Refused,
    Damaged,
    Setup,
}

/// What went wrong, with the call in the message.
#[derive(Debug, Clone, thiserror::Error)]
#[error("schema registry: {message}")]
pub struct RegistryError {
    kind: RegistryErrorKind,
    message: String,
    retry_after: Option<Duration>,
}

impl RegistryError {
    fn new(kind: RegistryErrorKind, message: impl Into<String>) -> RegistryError {
        RegistryError { kind, message: message.into(), retry_after: None }
    }

    /// How long the registry asks to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    pub fn kind(&self) -> RegistryErrorKind {
        self.kind
    }

    /// Whether the same call may succeed later without anyone changing schemas or configuration.
    pub fn is_passing(&self) -> bool {
        matches!(self.kind, RegistryErrorKind::Unreachable | RegistryErrorKind::Unauthorized)
    }
}

/// A registry; clones share the cache and the connections.
#[derive(Clone)]
pub struct Registry {
    backend: Backend,
    texts: Arc<Mutex<HashMap<u32, Arc<str>>>>,
}

#[derive(Clone)]
enum Backend {
    Confluent(Arc<Confluent>),
    Directory(Arc<Directory>),
}

impl Registry {
    /// Opens a registry; a directory is made where there is none, a server is not called yet.
    ///
    /// # Errors
    /// `Setup` where the configuration cannot work.
    pub fn open(config: &RegistryConfig) -> Result<Registry, RegistryError> {
        let backend = match config.url.strip_prefix("file:") {
            Some(path) => {
                let path = path.strip_prefix("//").unwrap_or(path);
                Backend::Directory(Arc::new(Directory::open(PathBuf::from(path))?))
            }
            None => Backend::Confluent(Arc::new(Confluent::open(config)?)),
        };
        Ok(Registry { backend, texts: Arc::default() })
    }

    /// The text of the schema with this id.
    ///
    /// # Errors
    /// `NotFound` where there is no such id.
    pub async fn schema(&self, id: u32) -> Result<String, RegistryError> {
        if let Some(text) = self.texts.lock().unwrap_or_else(PoisonError::into_inner).get(&id) {
            return Ok(text.to_string());
        }
        let text = match &self.backend {
            Backend::Confluent(confluent) => confluent.schema(id).await?,
            Backend::Directory(directory) => directory.run(move |directory| directory.schema(id)).await?,
        };
        let mut texts = self.texts.lock().unwrap_or_else(PoisonError::into_inner);
        if texts.len() >= TEXTS_MAX {
            texts.clear();
        }
        texts.insert(id, Arc::from(text.as_str()));
        Ok(text)
    }

    /// The newest version of a subject; none where there is no such subject.
    pub async fn latest(&self, subject: &str) -> Result<Option<Registered>, RegistryError> {
        match &self.backend {
            Backend::Confluent(confluent) => confluent.latest(subject).await,
            Backend::Directory(directory) => {
                let subject = subject.to_owned();
                directory.run(move |directory| Ok(directory.versions(&subject)?.pop())).await
            }
        }
    }

    /// All versions of a subject, oldest first; empty where there is no such subject.
    pub async fn versions(&self, subject: &str) -> Result<Vec<Registered>, RegistryError> {
        match &self.backend {
            Backend::Confluent(confluent) => confluent.versions(subject).await,
            Backend::Directory(directory) => {
                let subject = subject.to_owned();
                directory.run(move |directory| directory.versions(&subject)).await
            }
        }
    }

    /// The id that `text` has under the subject; none where it is not registered there. Never registers.
    pub async fn look_up(&self, subject: &str, text: &str) -> Result<Option<u32>, RegistryError> {
        match &self.backend {
            Backend::Confluent(confluent) => confluent.look_up(subject, text).await,
            Backend::Directory(directory) => {
                let (subject, text) = (subject.to_owned(), text.to_owned());
                directory.run(move |directory| directory.look_up(&subject, &text)).await
            }
        }
    }

    /// Registers `text` under the subject, whose compatibility is set to `FULL_TRANSITIVE` first; a text that is
    /// registered there already keeps its id.
    ///
    /// # Errors
    /// `Incompatible` where a version exists that cannot be read with `text` or the other way round.
    pub async fn register(&self, subject: &str, text: &str) -> Result<u32, RegistryError> {
        match &self.backend {
            Backend::Confluent(confluent) => confluent.register(subject, text).await,
            Backend::Directory(directory) => {
                let (subject, text) = (subject.to_owned(), text.to_owned());
                directory.run(move |directory| directory.register(&subject, &text)).await
            }
        }
    }
}

#[cfg(test)]
mod tests;
