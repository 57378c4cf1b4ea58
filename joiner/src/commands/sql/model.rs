//! What a text is made from: the registered contracts of a model, the columns of its tables and how far these have come.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::DataType;
use flywheel_schemas::contract::{Contract, Ids, Label};
use flywheel_schemas::registry::Registry;

use crate::commands::status::completeness;
use crate::config::Config;
use crate::contracts::Contracts;
use crate::pipeline::{DRAIN, GRID, OUTCOMES_MAX, PARTITIONS};
use crate::table::{Table, Warehouse};

/// Name and type of each column, in table order.
pub(super) type Columns = Vec<(String, DataType)>;

/// An instant before all others, in microseconds: no tick, and no time of a record. It is in the year -1199.
pub(super) const BEFORE_ALL_US: i64 = -100_000_000_000_000_000;

/// A model as its registry and its catalog know it now.
#[derive(Clone)]
pub struct Model {
    /// By version, at least one.
    pub(super) contracts: Vec<Arc<Contract>>,
    pub(super) training: Columns,
    pub(super) revisions: Columns,
    pub(super) unmatched: Columns,
    pub(super) grid_us: i64,
    pub(super) drain_us: i64,
    /// How many outcome records about a prediction count.
    pub(super) outcomes_max: i64,
    /// The last tick that the training table, the revisions and the unmatched have all recorded, in every partition.
    pub(crate) through_us: Option<i64>,
    /// By partition: up to when outcomes are landed.
    pub(super) landed_us: BTreeMap<i32, i64>,
}

impl Model {
    /// Reads registry and catalog.
    ///
    /// # Errors
    /// What these say, and a model that has no contract or no tables.
    pub async fn read(config: &Config, name: &str) -> Result<Model, Box<dyn std::error::Error>> {
        let registry = Registry::open(&config.registry())?;
        let contracts = Contracts::load(name, &config.log.prefix, registry).await?;
        let contracts: Vec<Arc<Contract>> = contracts.versions().cloned().collect();
        let Some(newest) = contracts.last() else {
            let (prefix, url) = (&config.log.prefix, &config.registry.url);
            return Err(format!(
                "no contract of a model `{name}` is registered under the prefix `{prefix}` at {url}; register it, or correct the name"
            )
            .into());
        };
        let warehouse = Warehouse::open(&config.catalog()).await?;
        let training = load(&warehouse, &format!("{name}_training")).await?;
        let mut outcomes = load(&warehouse, &format!("{name}_outcomes")).await?;
        let revisions = load(&warehouse, &format!("{name}_label_revisions")).await?;
        let unmatched = load(&warehouse, &format!("{name}_unmatched")).await?;
        let number = |key: &str| training.property(key).and_then(|text| text.parse::<i64>().ok());
        let grid_ms = number(GRID).unwrap_or(newest.seal.grid_ms);
        let drain_ms = number(DRAIN).unwrap_or(newest.seal.drain_ms);
        let marks = outcomes.progress().await?.map(|progress| progress.marks).unwrap_or_default();
        let count = number(PARTITIONS).and_then(|count| i32::try_from(count).ok()).unwrap_or(0);
        // A partition of which nothing is landed holds all instants back.
        let mut landed_us: BTreeMap<i32, i64> = (0..count).map(|number| (number, BEFORE_ALL_US)).collect();
        landed_us.extend(marks.into_iter().filter_map(|(number, mark)| Some((number, mark.known()?.time_ms * 1000))));
        let through_us = completeness(&warehouse, name).await?.through_ms.map(|ms| ms * 1000);
        Ok(Model {
            training: columns(&training),
            revisions: columns(&revisions),
            unmatched: columns(&unmatched),
            contracts,
            grid_us: grid_ms * 1000,
            drain_us: drain_ms * 1000,
            outcomes_max: number(OUTCOMES_MAX).unwrap_or(i64::MAX),
            through_us,
            landed_us,
        })
    }

    /// The labels of all contracts by name, each as the newest contract that has it says. A label keeps its type and its
    /// aggregate for ever; what else a version says of it is asked of that version.
    pub(super) fn labels(&self) -> BTreeMap<&str, &Label> {
        self.contracts.iter().flat_map(|contract| &contract.labels).map(|label| (label.name.as_str(), label)).collect()
    }

    pub(super) fn streaming(&self) -> impl Iterator<Item = &Label> {
        self.labels().into_values().filter(|label| label.is_streaming())
    }

    /// Whether all ids of the model hold their times.
    pub(super) fn has_minted_ids(&self) -> bool {
        self.contracts.iter().all(|contract| contract.ids == Ids::Minted)
    }

    /// What each contract says, chosen by `version`, an expression: null where it says nothing.
    pub(super) fn by_version(&self, version: &str, says: impl Fn(&Contract) -> Option<String>) -> String {
        let said: Vec<(i32, Option<String>)> =
            self.contracts.iter().map(|contract| (contract.version, says(contract))).collect();
        match said.first() {
            Some((_, Some(text))) if said.iter().all(|(_, other)| other.as_ref() == Some(text)) => text.clone(),
            _ => {
                let cases =
                    said.iter().filter_map(|(version, text)| Some(format!(" WHEN {version} THEN {}", text.as_ref()?)));
                let cases: String = cases.collect();
                if cases.is_empty() { "NULL".to_owned() } else { format!("CASE {version}{cases} END") }
            }
        }
    }
}

async fn load(warehouse: &Warehouse, name: &str) -> Result<Table, Box<dyn std::error::Error>> {
    let table = warehouse.load(name).await?;
    table.ok_or_else(|| {
        format!("the catalog has no table `{name}`; a joiner makes it when it first reads the model").into()
    })
}

fn columns(table: &Table) -> Columns {
    let schema = table.arrow_schema();
    schema.fields().iter().map(|field| (field.name().clone(), field.data_type().clone())).collect()
}
