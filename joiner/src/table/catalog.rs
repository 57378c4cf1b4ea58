//! Opening a catalog, and getting tables from it.
//!
//! | `url` | catalog | tables under |
//! |---|---|---|
//! | `sqlite:FILE` | a SQLite file, made where it is missing | `warehouse`: a folder, or `s3://bucket/path` |
//! | `http(s)://…` | an Iceberg REST catalog | what the server says; `warehouse` is handed to it |
//!
//! Properties go to the catalog and the store as they are: `s3.endpoint`, `s3.access-key-id`, `s3.secret-access-key`,
//! `s3.region`, `s3.path-style-access`, and of a REST catalog `token`, `credential`, `scope`, `prefix`, `header.X`.
//! A property `X-file` is the path of a file with the value of `X`, for secrets; a line end after it is left out.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use flywheel_schemas::table as plain;
use iceberg::io::{LocalFsStorageFactory, StorageFactory};
use iceberg::spec::FormatVersion;
use iceberg::transaction::{ApplyTransactionAction, Transaction};
use iceberg::{Catalog, CatalogBuilder, ErrorKind, NamespaceIdent, TableCreation, TableIdent};
use iceberg_catalog_rest::RestCatalogBuilder;
use iceberg_storage_opendal::OpenDalStorageFactory;

use super::fence::Fence;
use super::sqlite::Sqlite;
use super::{Table, TableError, schema};

/// A server that takes longer to be reached is away.
const CONNECT: Duration = Duration::from_secs(10);
/// The longest a call to a REST catalog may take: servers themselves give up at 30 to 60 s.
const CALL: Duration = Duration::from_secs(60);
/// Attempts at creating or widening a table: each that fails was beaten by another joiner doing the same, or meets
/// an outage, which the caller waits for better.
const ATTEMPTS: u32 = 8;

/// Where the tables are.
#[derive(Debug, Clone)]
pub struct CatalogConfig {
    /// `sqlite:FILE` or `http(s)://…`.
    pub url: String,
    /// The catalog's name; the SQLite catalog keeps its tables under it.
    pub name: String,
    /// One name, or several with dots between.
    pub namespace: String,
    /// A folder, `s3://…`, or what a REST catalog calls it.
    pub warehouse: String,
    pub properties: BTreeMap<String, String>,
}

/// An open catalog with the namespace that the tables are in.
#[derive(Debug, Clone)]
pub struct Warehouse {
    catalog: Arc<dyn Catalog>,
    namespace: NamespaceIdent,
    /// Whether nobody but the writers deletes old metadata files.
    sweeps: bool,
}

impl Warehouse {
    /// Opens the catalog. A REST catalog is first called when a table is asked for.
    ///
    /// # Errors
    /// [`TableError::Setting`] says which setting is wrong; the database may not open.
    pub async fn open(config: &CatalogConfig) -> Result<Warehouse, TableError> {
        let setting = |setting: &str, reason: String| TableError::Setting { setting: setting.to_owned(), reason };
        let namespace = NamespaceIdent::from_strs(config.namespace.split('.').filter(|part| !part.is_empty()))
            .map_err(|_| setting("namespace", "must not be empty".to_owned()))?;
        let properties = resolve(&config.properties)?;
        let warehouse = folder(&config.warehouse)
            .map_err(|error| setting("warehouse", format!("{}: {error}", config.warehouse)))?;
        let storage: Arc<dyn StorageFactory> = if warehouse.starts_with('/') {
            Arc::new(LocalFsStorageFactory)
        } else {
            Arc::new(OpenDalStorageFactory::S3 { customized_credential_load: None })
        };
        if let Some(file) = config.url.strip_prefix("sqlite:") {
            let file = file.strip_prefix("//").unwrap_or(file);
            if file.is_empty() {
                return Err(setting("url", "`sqlite:` must be followed by the path of a file".to_owned()));
            }
            if !warehouse.starts_with('/') && !warehouse.starts_with("s3") {
                return Err(setting("warehouse", format!("`{warehouse}` is neither a folder nor an s3:// location")));
            }
            let file = std::path::absolute(file).map_err(|error| setting("url", format!("{file}: {error}")))?;
            let catalog = Sqlite::open(&config.name, &file, &warehouse, properties, storage).await?;
            return Ok(Warehouse { catalog: Arc::new(catalog), namespace, sweeps: true });
        }
        if !config.url.starts_with("http://") && !config.url.starts_with("https://") {
            return Err(setting("url", format!("`{}` is neither sqlite:FILE nor http(s)://…", config.url)));
        }
        let client = reqwest::Client::builder()
            .connect_timeout(CONNECT)
            .timeout(CALL)
            .build()
            .map_err(|error| setting("url", error.to_string()))?;
        let mut properties = properties;
        properties.insert("uri".to_owned(), config.url.trim_end_matches('/').to_owned());
        if !warehouse.is_empty() {
            properties.insert("warehouse".to_owned(), warehouse);
        }
        let catalog = RestCatalogBuilder::default()
            .with_client(client)
            .with_storage_factory(storage)
            .load(&config.name, properties)
            .await
            .map_err(|error| TableError::iceberg("-", "opening the catalog", error))?;
        Ok(Warehouse { catalog: Arc::new(catalog), namespace, sweeps: false })
    }

    /// The names of all tables in the namespace, sorted.
    ///
    /// # Errors
    /// Of the catalog.
    pub async fn tables(&self) -> Result<Vec<String>, TableError> {
        let found = match self.catalog.list_tables(&self.namespace).await {
            Ok(found) => found,
            Err(error) if error.kind() == ErrorKind::NamespaceNotFound => Vec::new(),
            Err(error) => return Err(TableError::iceberg("-", "listing tables", error)),
        };
        let mut names: Vec<String> = found.into_iter().map(|ident| ident.name).collect();
        names.sort_unstable();
        Ok(names)
    }

    /// The table of that name, none where there is none.
    ///
    /// # Errors
    /// Of the catalog.
    pub async fn load(&self, name: &str) -> Result<Option<Table>, TableError> {
        match self.catalog.load_table(&self.ident(name)).await {
            Ok(state) => Table::new(self.catalog.clone(), state, self.sweeps).map(Some),
            Err(error) if matches!(error.kind(), ErrorKind::TableNotFound | ErrorKind::NamespaceNotFound) => Ok(None),
            Err(error) => Err(TableError::iceberg(name, "loading", error)),
        }
    }

    /// The table, made where it is missing, with every column of `spec` and every property of `properties`. Columns
    /// that it has beyond are left; so is the value of a property that it has already. Any number of joiners may
    /// call it at once.
    ///
    /// # Errors
    /// [`TableError::Schema`] names each column that has another type in the table; else of the catalog.
    pub async fn table(&self, spec: &plain::Table, properties: &[(&str, String)]) -> Result<Table, TableError> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let tried = match self.load(&spec.name).await? {
                None => self.create(spec, properties).await,
                Some(table) => match self.widen(table, spec, properties).await {
                    Ok(Widened::Already(table)) => return Ok(*table),
                    Ok(Widened::Now) => Ok(()),
                    Err(error) => Err(error),
                },
            };
            // Whatever was done or failed, only what a new load shows is true: another may have been first, and an
            // error may hide that it was done.
            match tried {
                Err(error) if attempt >= ATTEMPTS || !error.is_passing() => return Err(error),
                _ if attempt >= 2 * ATTEMPTS => {
                    return Err(TableError::Late { table: spec.name.clone(), action: "creating", seconds: 0 });
                }
                Err(error) => {
                    tracing::debug!(table = spec.name, %error, "creating or widening a table failed, looking again");
                    tokio::time::sleep(super::commit::pause(attempt)).await;
                }
                Ok(()) => {}
            }
        }
    }

    async fn create(&self, spec: &plain::Table, properties: &[(&str, String)]) -> Result<(), TableError> {
        let failed = |error| TableError::iceberg(&spec.name, "creating", error);
        let exists = self.catalog.namespace_exists(&self.namespace).await.map_err(failed)?;
        if !exists
            && let Err(error) = self.catalog.create_namespace(&self.namespace, HashMap::new()).await
            && !self.catalog.namespace_exists(&self.namespace).await.map_err(failed)?
        {
            return Err(failed(error));
        }
        let schema = schema::schema(spec).map_err(failed).map_err(TableError::parked)?;
        let partition = schema::partition(spec, &schema).map_err(failed).map_err(TableError::parked)?;
        let creation = TableCreation::builder()
            .name(spec.name.clone())
            .schema(schema)
            .partition_spec(partition)
            .properties(schema::properties(spec, properties))
            .format_version(FormatVersion::V2)
            .build();
        match self.catalog.create_table(&self.namespace, creation).await {
            Ok(_) => {
                tracing::info!(table = spec.name, "created a table");
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::TableAlreadyExists => Ok(()),
            Err(error) => Err(failed(error)),
        }
    }

    async fn widen(
        &self,
        table: Table,
        spec: &plain::Table,
        properties: &[(&str, String)],
    ) -> Result<Widened, TableError> {
        let failed = |error| TableError::iceberg(&spec.name, "adding columns", error);
        let metadata = table.state.metadata();
        let columns = schema::missing(spec, metadata)
            .map_err(|faults| TableError::Schema { table: spec.name.clone(), faults })?;
        let unset: Vec<_> = properties.iter().filter(|(key, _)| !metadata.properties().contains_key(*key)).collect();
        if columns.is_empty() && unset.is_empty() {
            return Ok(Widened::Already(Box::new(table)));
        }
        let added = columns.len();
        let mut transaction = Transaction::new(&table.state);
        if !columns.is_empty() {
            let action =
                columns.into_iter().fold(transaction.update_schema(), |action, column| action.add_column(column));
            transaction = action.apply(transaction).map_err(failed)?;
        }
        if !unset.is_empty() {
            let action = unset.into_iter().fold(transaction.update_table_properties(), |action, (key, value)| {
                action.set((*key).to_owned(), value.clone())
            });
            transaction = action.apply(transaction).map_err(failed)?;
        }
        let fence = Fence::new(self.catalog.clone(), table.state.clone());
        transaction.commit(&fence).await.map_err(failed)?;
        tracing::info!(table = spec.name, columns = added, "added columns to a table");
        Ok(Widened::Now)
    }

    fn ident(&self, name: &str) -> TableIdent {
        TableIdent::new(self.namespace.clone(), name.to_owned())
    }

    /// The same tables through another catalog.
    #[cfg(test)]
    pub(super) fn through(&self, wrap: impl FnOnce(Arc<dyn Catalog>) -> Arc<dyn Catalog>) -> Warehouse {
        Warehouse { catalog: wrap(self.catalog.clone()), ..self.clone() }
    }
}

enum Widened {
    Already(Box<Table>),
    Now,
}

/// Replaces each `X-file` by `X`.
fn resolve(properties: &BTreeMap<String, String>) -> Result<HashMap<String, String>, TableError> {
    properties
        .iter()
        .map(|(key, value)| match key.strip_suffix("-file") {
            Some(name) => match std::fs::read_to_string(value) {
                Ok(text) => Ok((name.to_owned(), text.trim_end_matches(['\r', '\n']).to_owned())),
                Err(error) => Err(TableError::Setting {
                    setting: format!("properties.{key}"),
                    reason: format!("{value}: {error}"),
                }),
            },
            None => Ok((key.clone(), value.clone())),
        })
        .collect()
}

/// A folder as an absolute path without a slash at its end; anything with a scheme but `file:` as it is. A plain name
/// is a folder only where it is written as a path, since REST catalogs have warehouses with plain names.
fn folder(warehouse: &str) -> std::io::Result<String> {
    let path = warehouse.strip_prefix("file://").or_else(|| warehouse.strip_prefix("file:"));
    if path.is_none() && !warehouse.starts_with(['/', '.']) {
        return Ok(warehouse.trim_end_matches('/').to_owned());
    }
    let path: PathBuf = std::path::absolute(Path::new(path.unwrap_or(warehouse)))?;
    let text = path.to_str().ok_or_else(|| std::io::Error::other("the path is not UTF-8"))?;
    Ok(text.trim_end_matches('/').to_owned())
}
