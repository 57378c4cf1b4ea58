//! Iceberg tables that arbitrate: rows and the progress they stand for land in one commit, or not at all.
//!
//! A [`Warehouse`] opens the catalog and gives [`Table`]s. A batch goes `Table::writer` → [`Writer::write`]… →
//! [`Writer::close`] → [`Table::commit`] with the marks between which it lies; the commit lands only where the table
//! stands exactly at the batch's lower bounds ([`commit`](Table::commit) says how). There is no lock, leader or
//! lease: of any number of joiners that carry the same batch, however late, one lands it.
//!
//! | module | holds |
//! |---|---|
//! | `catalog` | opening SQLite and REST catalogs, creating tables and adding columns |
//! | `schema` | the Iceberg form of the contract's tables |
//! | `writer`, `location` | rows into Parquet files by day |
//! | `progress` | reading how far a table is |
//! | `fence`, `commit` | landing a batch once |
//! | `expire`, `manifests` | keeping small what describes a table, as part of its commits |
//! | `scan` | reading back |
//!
//! [`TableError::kind`] says what to do about an error: [`Kind::Passing`] is worth another try with the same batch,
//! [`Kind::Parked`] needs a person.

mod catalog;
mod commit;
mod error;
mod expire;
mod fence;
mod location;
mod manifests;
mod parquet_file;
mod progress;
mod scan;
mod schema;
mod sqlite;
#[cfg(test)]
mod tests;
mod writer;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use iceberg::arrow::schema_to_arrow_schema;
use iceberg::{Catalog, Runtime};

pub use catalog::{CatalogConfig, Warehouse};
pub use commit::Properties;
pub use error::{Kind, TableError};
use expire::Expired;
pub use iceberg::spec::DataFile;
pub use parquet_file::read as parquet;
pub use progress::{KEY as PROGRESS_KEY, Mark, Progress};
pub use scan::Predicate;
pub use writer::Writer;

/// What became of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Its rows are in the table, once.
    Committed,
    /// The table stands elsewhere than at its lower bounds: the batch is to be dropped and the source sought to these
    /// marks. They are those of all recorded partitions, and [`Mark::NONE`] for one of the batch that has none.
    Fenced(BTreeMap<i32, Mark>),
}

/// A handle to one table, as of the last load or commit. Cheap to clone; clones do not follow each other.
#[derive(Debug, Clone)]
pub struct Table {
    catalog: Arc<dyn Catalog>,
    state: iceberg::table::Table,
    arrow: SchemaRef,
    /// Whether nobody but the writers deletes old metadata files (a REST server does it itself).
    sweeps: bool,
    expired: Expired,
}

impl Table {
    fn new(catalog: Arc<dyn Catalog>, state: iceberg::table::Table, sweeps: bool) -> Result<Table, TableError> {
        let arrow = arrow_schema(&state)?;
        Ok(Table { catalog, state, arrow, sweeps, expired: Expired::default() })
    }

    /// Without the namespace.
    pub fn name(&self) -> &str {
        self.state.identifier().name()
    }

    /// The identity that survives renames, and that another table of the same name does not have.
    pub fn uuid(&self) -> String {
        self.state.metadata().uuid().to_string()
    }

    /// The columns in table order, as rows are read and should be written.
    pub fn arrow_schema(&self) -> SchemaRef {
        self.arrow.clone()
    }

    /// A table property, as of the last load or commit.
    pub fn property(&self, key: &str) -> Option<String> {
        self.state.metadata().properties().get(key).cloned()
    }

    /// The root of the table's files.
    pub fn location(&self) -> &str {
        self.state.metadata().location()
    }

    /// The snapshot that is read, none for a table without one.
    pub fn snapshot_id(&self) -> Option<i64> {
        self.state.metadata().current_snapshot_id()
    }

    /// How many snapshots there are to read.
    pub fn snapshot_count(&self) -> usize {
        self.state.metadata().snapshots().len()
    }

    /// Loads the table's present state from the catalog.
    ///
    /// # Errors
    /// Of the catalog; a table that is gone is [`Kind::Parked`].
    pub async fn refresh(&mut self) -> Result<(), TableError> {
        let state = self
            .catalog
            .load_table(self.state.identifier())
            .await
            .map_err(|error| TableError::iceberg(self.name(), "loading", error))?;
        self.settle(state)
    }

    /// How far the table is, freshly loaded; none where nothing was ever committed.
    ///
    /// # Errors
    /// Of the catalog, and [`Kind::Parked`] where the recorded text is not progress.
    pub async fn progress(&mut self) -> Result<Option<Progress>, TableError> {
        self.refresh().await?;
        self.recorded()
    }

    /// How far the table is, as of the last load or commit.
    ///
    /// # Errors
    /// [`Kind::Parked`] where the recorded text is not progress.
    pub fn recorded(&self) -> Result<Option<Progress>, TableError> {
        progress::read(self.state.metadata())
            .map_err(|text| TableError::Progress { table: self.name().to_owned(), text })
    }

    fn settle(&mut self, state: iceberg::table::Table) -> Result<(), TableError> {
        let (old, new) = (self.state.metadata().current_schema(), state.metadata().current_schema());
        if old != new {
            // What was written by the old columns would be in the files and in no row.
            schema::outlive(old, new).map_err(|faults| TableError::Schema { table: self.name().to_owned(), faults })?;
            self.arrow = arrow_schema(&state)?;
        }
        self.state = state;
        Ok(())
    }

    /// Takes over what a commit answered. The answer of a REST catalog lacks the table's own storage settings, so
    /// that the present ones are kept.
    fn adopt(&mut self, answer: &iceberg::table::Table) -> Result<(), TableError> {
        let failed = |error| TableError::iceberg(self.name(), "reading what the commit answered", error);
        let mut builder = iceberg::table::Table::builder()
            .identifier(self.state.identifier().clone())
            .file_io(self.state.file_io().clone())
            .metadata(answer.metadata_ref())
            .runtime(Runtime::try_current().map_err(failed)?);
        if let Some(location) = answer.metadata_location() {
            builder = builder.metadata_location(location);
        }
        let state = builder.build().map_err(failed)?;
        self.settle(state)
    }
}

fn arrow_schema(state: &iceberg::table::Table) -> Result<SchemaRef, TableError> {
    schema_to_arrow_schema(state.metadata().current_schema())
        .map(Arc::new)
        .map_err(|error| TableError::iceberg(state.identifier().name(), "reading the schema", error))
}
