//! Which id the registry knows a schema text by. Asked for here, on the way to the log and never at intake, so that a
//! registry that is away refuses no record.

use std::collections::HashMap;

use flywheel_schemas::registry::Registry;
use flywheel_spool::SchemaKey;

use crate::record::RecordKind;

/// Why there is no id yet. All of these are tried again: what the registry refuses today a person can put right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SchemaIdError {
    #[error("{subject} has no such schema: register the contract, or have the sidecar do it (registry.auto_register)")]
    Unregistered { subject: String },
    #[error("schema registry: {cause}")]
    Registry { cause: String, passing: bool },
}

impl SchemaIdError {
    /// Whether it may succeed without a person.
    pub fn is_passing(&self) -> bool {
        matches!(self, SchemaIdError::Registry { passing: true, .. })
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
        let failed = |error: flywheel_schemas::registry::RegistryError| SchemaIdError::Registry {
            passing: error.is_passing(),
            cause: error.to_string(),
        };
        let id = if self.auto_register {
            self.registry.register(subject, text).await.map_err(failed)?
        } else {
            let found = self.registry.look_up(subject, text).await.map_err(failed)?;
            found.ok_or_else(|| SchemaIdError::Unregistered { subject: subject.to_string() })?
        };
        self.known.insert((kind, schema), id);
        Ok(id)
    }
}
