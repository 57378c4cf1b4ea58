//! A catalog for one commit, which lets it land on the base that was judged, and on no other.
//!
//! A stock commit loads the table anew and applies itself to whatever is current then: a batch that another joiner
//! has landed in the meantime would land again. Through this catalog the commit is given the judged base as the
//! current table, so that it demands that `main` be at the base's snapshot, and the catalog behind refuses it in one
//! compare-and-set where it is not. The stock loop repeats what is marked as repeatable; nothing is, here: whoever
//! wants to repeat must judge a new base first.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use iceberg::table::Table;
use iceberg::{Catalog, Error, ErrorKind, Namespace, NamespaceIdent, Result, TableCommit, TableCreation, TableIdent};

#[derive(Debug)]
pub(super) struct Fence {
    catalog: Arc<dyn Catalog>,
    base: Table,
}

impl Fence {
    pub(super) fn new(catalog: Arc<dyn Catalog>, base: Table) -> Fence {
        Fence { catalog, base }
    }
}

/// What a fenced commit has no business with.
fn refused<T>(what: &str) -> Result<T> {
    Err(Error::new(ErrorKind::FeatureUnsupported, format!("a fenced commit does not {what}")))
}

#[async_trait]
impl Catalog for Fence {
    async fn load_table(&self, table: &TableIdent) -> Result<Table> {
        if table == self.base.identifier() { Ok(self.base.clone()) } else { refused("load another table") }
    }

    async fn update_table(&self, commit: TableCommit) -> Result<Table> {
        if commit.identifier() != self.base.identifier() {
            return refused("update another table");
        }
        self.catalog.update_table(commit).await.map_err(|error| error.with_retryable(false))
    }

    async fn list_namespaces(&self, _: Option<&NamespaceIdent>) -> Result<Vec<NamespaceIdent>> {
        refused("list namespaces")
    }

    async fn create_namespace(&self, _: &NamespaceIdent, _: HashMap<String, String>) -> Result<Namespace> {
        refused("create namespaces")
    }

    async fn get_namespace(&self, _: &NamespaceIdent) -> Result<Namespace> {
        refused("read namespaces")
    }

    async fn namespace_exists(&self, _: &NamespaceIdent) -> Result<bool> {
        refused("read namespaces")
    }

    async fn update_namespace(&self, _: &NamespaceIdent, _: HashMap<String, String>) -> Result<()> {
        refused("update namespaces")
    }

    async fn drop_namespace(&self, _: &NamespaceIdent) -> Result<()> {
        refused("drop namespaces")
    }

    async fn list_tables(&self, _: &NamespaceIdent) -> Result<Vec<TableIdent>> {
        refused("list tables")
    }

    async fn create_table(&self, _: &NamespaceIdent, _: TableCreation) -> Result<Table> {
        refused("create tables")
    }

    async fn drop_table(&self, _: &TableIdent) -> Result<()> {
        refused("drop tables")
    }

    async fn purge_table(&self, _: &TableIdent) -> Result<()> {
        refused("purge tables")
    }

    async fn table_exists(&self, _: &TableIdent) -> Result<bool> {
        refused("look for tables")
    }

    async fn rename_table(&self, _: &TableIdent, _: &TableIdent) -> Result<()> {
        refused("rename tables")
    }

    async fn register_table(&self, _: &TableIdent, _: String) -> Result<Table> {
        refused("register tables")
    }
}
