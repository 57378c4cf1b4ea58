//! Which id the registry knows a schema text by. Asked for here, on the way to the log and never at intake, so that a
//! registry that is away refuses no record.

use std::collections::HashMap;
use std::time::Duration;

use flywheel_schemas::registry::{Registry, RegistryError, RegistryErrorKind};
use flywheel_spool::SchemaKey;

use crate::record::RecordKind;

/// Why there is no id yet. All of these are tried again: what the registry refuses today a person can put right.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SchemaIdError {
    #[error("{subject} has no such schema: register the contract, or have the sidecar do it (registry.auto_register)")]
    Unregistered { subject: String },
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

impl SchemaIdError {
    /// The stable word for it, and whether nothing goes on without a person.
    pub fn cause(&self) -> (&'static str, bool) {
        match self {
            SchemaIdError::Unregistered { .. } => ("schema", true),
            SchemaIdError::Registry(error) => {
                // 401 passes when a file of credentials is renewed, which somebody has to see to.
                let refused = matches!(error.kind(), RegistryErrorKind::Unauthorized | RegistryErrorKind::Forbidden);
                (if refused { "denied" } else { "registry" }, refused || !error.is_passing())
            }
        }
    }

    /// How long the registry asks to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            SchemaIdError::Unregistered { .. } => None,
            SchemaIdError::Registry(error) => error.retry_after(),
        }
    }
}

/// The ids of the schemas of one spool. An id once found stays: a registry never gives it to another text.
pub struct SchemaIds {
    registry: Registry,
    auto_register: bool,
    /// At most one entry per schema of the spool and kind.
    known: HashMap<(RecordKind, SchemaKey), u32>,
}

impl SchemaIds {
    pub fn new(registry: Registry, auto_register: bool) -> SchemaIds {
        SchemaIds { registry, auto_register, known: HashMap::new() }
    }

    /// The id, where it was found before.
    pub fn known(&self, kind: RecordKind, schema: SchemaKey) -> Option<u32> {
        self.known.get(&(kind, schema)).copied()
    }

    /// Asks the registry for the id of `text` under `subject`, once.
    pub async fn find(
        &mut self,
        kind: RecordKind,
        schema: SchemaKey,
        subject: &str,
        text: &str,
    ) -> Result<u32, SchemaIdError> {
        let id = if self.auto_register {
            self.registry.register(subject, text).await?
        } else {
            let found = self.registry.look_up(subject, text).await?;
            found.ok_or_else(|| SchemaIdError::Unregistered { subject: subject.to_string() })?
        };
        self.known.insert((kind, schema), id);
        Ok(id)
    }
}
