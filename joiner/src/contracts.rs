//! The schemas that records were written with, and the contracts that these carry. No contract file is read here.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use flywheel_schemas::avro::{self, Layout};
use flywheel_schemas::contract::Contract;
use flywheel_schemas::registry::{Registry, RegistryError};
use flywheel_schemas::wire::{self, Kind};

use crate::decode::Decoder;

/// A look-up that takes longer counts as failed and is tried again; other partitions go on in between.
const LOOK_UP_TIMEOUT: Duration = Duration::from_secs(3);

/// What a record's schema says: how to read it, and under which contract it was written.
pub(crate) struct WriterSchema {
    pub contract: Arc<Contract>,
    pub decoder: Decoder,
}

/// Why a record cannot be read yet, or not at all.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SchemaFault {
    /// The registry does not know the id, or does not answer: wait.
    #[error("{0}")]
    Wait(String),
    /// The schema is of no use to this model: the record is a dead letter.
    #[error("{0}")]
    Unusable(String),
}

pub(crate) struct Contracts {
    model: String,
    registry: Registry,
    /// By schema id and topic. Bounded by the number of schemas that were ever registered for the model.
    schemas: HashMap<(Kind, u32), Result<Arc<WriterSchema>, String>>,
    versions: BTreeMap<i32, Arc<Contract>>,
}

impl Contracts {
    /// Reads every registered version of the model's prediction schema.
    ///
    /// # Errors
    /// What the registry says; nothing is kept then.
    pub async fn load(model: &str, prefix: &str, registry: Registry) -> Result<Contracts, RegistryError> {
        let mut contracts =
            Contracts { model: model.to_owned(), registry, schemas: HashMap::new(), versions: BTreeMap::new() };
        for kind in [Kind::Predictions, Kind::Outcomes] {
            let subject = wire::subject(&wire::topic(prefix, model, kind));
            for registered in contracts.registry.versions(&subject).await? {
                let schema = contracts.compile(kind, &registered.text);
                contracts.keep(kind, registered.id, schema);
            }
        }
        Ok(contracts)
    }

    /// The schema of `id`, from the registry where it is met for the first time.
    pub async fn schema(&mut self, kind: Kind, id: u32) -> Result<Arc<WriterSchema>, SchemaFault> {
        if !self.schemas.contains_key(&(kind, id)) {
            let text = match tokio::time::timeout(LOOK_UP_TIMEOUT, self.registry.schema(id)).await {
                Ok(Ok(text)) => text,
                Ok(Err(error)) => return Err(SchemaFault::Wait(error.to_string())),
                Err(_) => return Err(SchemaFault::Wait("the registry did not answer in time".to_owned())),
            };
            let schema = self.compile(kind, &text);
            self.keep(kind, id, schema);
        }
        match self.schemas.get(&(kind, id)) {
            Some(Ok(schema)) => Ok(Arc::clone(schema)),
            Some(Err(fault)) => Err(SchemaFault::Unusable(fault.clone())),
            None => Err(SchemaFault::Wait("not kept".to_owned())),
        }
    }

    /// Whether `schema` would meet this id without asking the registry.
    pub fn knows(&self, kind: Kind, id: u32) -> bool {
        self.schemas.contains_key(&(kind, id))
    }

    /// The contract of a version that was met or registered.
    pub fn version(&self, version: i32) -> Option<&Arc<Contract>> {
        self.versions.get(&version)
    }

    pub fn versions(&self) -> impl Iterator<Item = &Arc<Contract>> {
        self.versions.values()
    }

    /// The newest contract.
    pub fn newest(&self) -> Option<&Arc<Contract>> {
        self.versions.last_key_value().map(|(_, contract)| contract)
    }

    fn keep(&mut self, kind: Kind, id: u32, schema: Result<Arc<WriterSchema>, String>) {
        if let Ok(schema) = &schema {
            let ignored = schema.decoder.ignored();
            if !ignored.is_empty() {
                let (model, kind) = (&self.model, kind.name());
                tracing::info!(model, kind, schema_id = id, fields = ?ignored, "fields of a schema that no table takes");
            }
            self.versions.entry(schema.contract.version).or_insert_with(|| Arc::clone(&schema.contract));
        }
        self.schemas.insert((kind, id), schema);
    }

    fn compile(&self, kind: Kind, text: &str) -> Result<Arc<WriterSchema>, String> {
        let contract = avro::contract_of(text).map_err(|error| error.to_string())?;
        if contract.model != self.model {
            return Err(format!("the schema is of the model `{}`", contract.model));
        }
        let layout = Layout::parse(text).map_err(|error| error.to_string())?;
        let decoder = Decoder::compile(&layout, kind).map_err(|error| error.to_string())?;
        Ok(Arc::new(WriterSchema { contract: Arc::new(contract), decoder }))
    }
}
