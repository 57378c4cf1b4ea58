//! Registration of a contract: its two subjects, and the two of the service topics.
//!
//! Refused before anything is written: a known version with another content, and whatever [`evolution`] forbids
//! against any registered version. A registration that was cut short is finished by running it again. Two people who
//! register the same version at the same instant are not kept apart: no registry offers that; the second one's
//! next run shows it.

use crate::avro::{self, SchemaError};
use crate::contract::Contract;
use crate::evolution::{self, Change};
use crate::registry::{Registry, RegistryError};
use crate::wire::{self, Kind};

/// A subject and the id under which its schema now is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    pub name: String,
    pub id: u32,
}

/// What a registration did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// Predictions, outcomes, ledger, dead letters.
    pub subjects: Vec<Subject>,
    /// Against the newest registered version; all of them compatible.
    pub changes: Vec<Change>,
}

#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error("the contract may not replace what is registered: {}", sentences(.0))]
    Refused(Vec<Change>),
    /// Somebody else's schema stands under the subject.
    #[error("version {version} of {subject} is not Flywheel's: {error}; choose another model or prefix")]
    Foreign { subject: String, version: i32, error: SchemaError },
}

fn sentences(changes: &[Change]) -> String {
    let refused = changes.iter().filter(|change| !change.is_compatible());
    refused.map(|change| format!("{}: {}", change.path, change.message)).collect::<Vec<_>>().join("; ")
}

/// Registers a contract's schemas under the topics' prefix, and those of the service topics.
///
/// # Errors
/// `Refused` with every change where it contradicts a registered version; nothing was written then.
pub async fn register(contract: &Contract, registry: &Registry, prefix: &str) -> Result<Registration, RegisterError> {
    let subject = |kind| wire::subject(&wire::topic(prefix, &contract.model, kind));
    let model = [
        (subject(Kind::Predictions), avro::prediction_schema(contract)),
        (subject(Kind::Outcomes), avro::outcome_schema(contract)),
    ];
    let mut changes: Vec<Change> = Vec::new();
    for (subject, _) in &model {
        let registered = contracts(registry, subject).await?;
        // Both subjects carry the same contracts, unless one registration was cut short.
        for change in evolution::admit(&registered, contract) {
            if !changes.contains(&change) {
                changes.push(change);
            }
        }
    }
    if changes.iter().any(|change| !change.is_compatible()) {
        return Err(RegisterError::Refused(changes));
    }
    let service = [
        (wire::subject(&wire::ledger_topic(prefix)), avro::ledger_schema()),
        (wire::subject(&wire::dead_letter_topic(prefix)), avro::dead_letter_schema()),
    ];
    let mut subjects = Vec::new();
    for (name, text) in model.into_iter().chain(service) {
        let id = registry.register(&name, &text).await?;
        subjects.push(Subject { name, id });
    }
    Ok(Registration { subjects, changes })
}

/// The contracts that the versions of a subject carry.
async fn contracts(registry: &Registry, subject: &str) -> Result<Vec<Contract>, RegisterError> {
    let versions = registry.versions(subject).await?;
    versions
        .into_iter()
        .map(|registered| {
            avro::contract_of(&registered.text).map_err(|error| RegisterError::Foreign {
                subject: subject.to_owned(),
                version: registered.version,
                error,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests;
