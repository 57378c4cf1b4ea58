//! The SQLite catalog: one file, shared by several processes and by PyIceberg's `SqlCatalog`.
//!
//! The tables are those of the JDBC catalogs of other Iceberg libraries, so that
//! `SqlCatalog("flywheel", uri="sqlite:///FILE")` reads it. Write-ahead logging lets readers and a writer be at it
//! together, and a busy database is waited for.
//!
//! The crate's catalog does not look at the result of its own `COMMIT`: an update that a full disk undid would be
//! reported as done. An update counts here only once the row of the table shows it.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use iceberg::io::StorageFactory;
use iceberg::table::Table;
use iceberg::{
    Catalog, CatalogBuilder, Error, ErrorKind, Namespace, NamespaceIdent, Result, TableCommit, TableCreation,
    TableIdent,
};
use iceberg_catalog_sql::{SqlBindStyle, SqlCatalog, SqlCatalogBuilder};
use sqlx::SqlitePool;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions};

use super::error::TableError;

/// How long a database that another process writes to is waited for. Its own transactions take milliseconds.
const BUSY: Duration = Duration::from_secs(10);

/// Between two attempts to open one that is busy.
const PAUSE: Duration = Duration::from_millis(20);

/// The catalog, with every update confirmed.
#[derive(Debug)]
pub(super) struct Sqlite {
    catalog: SqlCatalog,
    name: String,
    pool: SqlitePool,
}

impl Sqlite {
    pub(super) async fn open(
        name: &str,
        file: &Path,
        warehouse: &str,
        properties: HashMap<String, String>,
        storage: Arc<dyn StorageFactory>,
    ) -> std::result::Result<Sqlite, TableError> {
        let shown = file.display().to_string();
        let text = file.to_str().ok_or_else(|| TableError::Setting {
            setting: "url".to_owned(),
            reason: format!("the path {shown} is not UTF-8"),
        })?;
        if let Some(parent) = file.parent() {
            std::fs::create_dir_all(parent)
                .map_err(|error| TableError::Database { file: shown.clone(), source: sqlx::Error::Io(error) })?;
        }
        let options = SqliteConnectOptions::new()
            .filename(file)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .busy_timeout(BUSY);
        let pool = connect(options).await.map_err(|source| TableError::Database { file: shown.clone(), source })?;
        let catalog = SqlCatalogBuilder::default()
            .uri(format!("sqlite:{}", escape(text)))
            .warehouse_location(warehouse)
            .sql_bind_style(SqlBindStyle::QMark)
            .with_storage_factory(storage)
            .load(name, properties)
            .await
            .map_err(|error| TableError::iceberg("-", "opening the catalog", error))?;
        Ok(Sqlite { catalog, name: name.to_owned(), pool })
    }

    /// Whether the catalog shows what was reported as done.
    async fn confirm(&self, table: &Table) -> Result<()> {
        let unclear = |what: String| Error::new(ErrorKind::Unexpected, what);
        let ident = table.identifier();
        let shown: Option<String> = sqlx::query_scalar(
            "SELECT metadata_location FROM iceberg_tables \
             WHERE catalog_name = ? AND table_namespace = ? AND table_name = ?",
        )
        .bind(&self.name)
        .bind(ident.namespace().join("."))
        .bind(ident.name())
        .fetch_optional(&self.pool)
        .await
        .map_err(|error| unclear("the commit could not be confirmed".to_owned()).with_source(error))?
        .flatten();
        if shown.as_deref() == table.metadata_location() {
            Ok(())
        } else {
            Err(unclear("the catalog does not show the commit: it was undone, or has been built upon".to_owned()))
        }
    }
}

/// Connects. The change to write-ahead logging does not wait for another process that makes it: it is tried again.
async fn connect(options: SqliteConnectOptions) -> std::result::Result<SqlitePool, sqlx::Error> {
    let end = Instant::now() + BUSY;
    loop {
        match SqlitePoolOptions::new().max_connections(2).connect_with(options.clone()).await {
            Err(error) if is_busy(&error) && Instant::now() < end => tokio::time::sleep(PAUSE).await,
            connected => return connected,
        }
    }
}

/// `SQLITE_BUSY`, in the low byte of the extended codes too.
fn is_busy(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code()?.parse::<i32>().ok());
    code.is_some_and(|code| code & 0xff == 5)
}

/// The path within a `sqlite:` URL, which is percent-decoded and ends at a `?` or `#`.
fn escape(path: &str) -> String {
    path.replace('%', "%25").replace('?', "%3F").replace('#', "%23")
}

#[async_trait]
impl Catalog for Sqlite {
    async fn update_table(&self, commit: TableCommit) -> Result<Table> {
        let table = self.catalog.update_table(commit).await?;
        self.confirm(&table).await?;
        Ok(table)
    }

    async fn load_table(&self, table: &TableIdent) -> Result<Table> {
        self.catalog.load_table(table).await
    }

    async fn create_table(&self, namespace: &NamespaceIdent, creation: TableCreation) -> Result<Table> {
        let table = self.catalog.create_table(namespace, creation).await?;
        self.confirm(&table).await?;
        Ok(table)
    }

    async fn list_namespaces(&self, parent: Option<&NamespaceIdent>) -> Result<Vec<NamespaceIdent>> {
        self.catalog.list_namespaces(parent).await
    }

    async fn create_namespace(
        &self,
        namespace: &NamespaceIdent,
        properties: HashMap<String, String>,
    ) -> Result<Namespace> {
        self.catalog.create_namespace(namespace, properties).await
    }

    async fn get_namespace(&self, namespace: &NamespaceIdent) -> Result<Namespace> {
        self.catalog.get_namespace(namespace).await
    }

    async fn namespace_exists(&self, namespace: &NamespaceIdent) -> Result<bool> {
        self.catalog.namespace_exists(namespace).await
    }

    async fn update_namespace(&self, namespace: &NamespaceIdent, properties: HashMap<String, String>) -> Result<()> {
        self.catalog.update_namespace(namespace, properties).await
    }

    async fn drop_namespace(&self, namespace: &NamespaceIdent) -> Result<()> {
        self.catalog.drop_namespace(namespace).await
    }

    async fn list_tables(&self, namespace: &NamespaceIdent) -> Result<Vec<TableIdent>> {
        self.catalog.list_tables(namespace).await
    }

    async fn drop_table(&self, table: &TableIdent) -> Result<()> {
        self.catalog.drop_table(table).await
    }

    async fn purge_table(&self, table: &TableIdent) -> Result<()> {
        self.catalog.purge_table(table).await
    }

    async fn table_exists(&self, table: &TableIdent) -> Result<bool> {
        self.catalog.table_exists(table).await
    }

    async fn rename_table(&self, from: &TableIdent, to: &TableIdent) -> Result<()> {
        self.catalog.rename_table(from, to).await
    }

    async fn register_table(&self, table: &TableIdent, metadata_location: String) -> Result<Table> {
        self.catalog.register_table(table, metadata_location).await
    }
}
