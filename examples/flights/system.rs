//! Sidecar and joiner, in this process over a log on local disk, or as child processes over real servers.
//!
//! Both ways they are configured by `sidecar.toml` and `joiner.toml` in the data directory, as an operator would.

use std::fs;
use std::path::{Path, PathBuf};

use flywheel_joiner::table::CatalogConfig;
use toml::{Table, Value};

use crate::args::Args;
use crate::services::Services;
use crate::{CONTRACT, Error, MODEL, children, embedded};

/// The name under which the SQLite catalog keeps its tables, and the namespace in it.
const NAME: &str = "flywheel";
/// How often the joiner commits: the demonstration's minute passes in a few milliseconds.
const COMMIT_INTERVAL_MS: i64 = 1000;
/// How long a stop may take to bring what was accepted to the log.
const DRAIN_MS: i64 = 60_000;

/// Writes the settings and starts both.
pub async fn start(args: &Args) -> Result<Services, Error> {
    let places = Places::make(&args.data_dir)?;
    match &args.kafka {
        None => {
            let (sidecar, joiner) = settings(args, &places, 0)?;
            embedded::start(&sidecar, &joiner).await
        }
        Some(_) => {
            let port = children::free_port()?;
            let (sidecar, joiner) = settings(args, &places, port)?;
            children::start(args, port, &sidecar, &joiner).await
        }
    }
}

/// Where the tables are.
pub fn catalog(args: &Args) -> CatalogConfig {
    let path = |name: &str| std::path::absolute(args.data_dir.join(name)).unwrap_or_else(|_| args.data_dir.join(name));
    match (&args.catalog, &args.warehouse) {
        (Some(url), Some(warehouse)) => CatalogConfig {
            url: url.clone(),
            name: NAME.to_owned(),
            namespace: args.prefix.clone(),
            warehouse: warehouse.clone(),
            properties: args.catalog_property.iter().cloned().collect(),
        },
        _ => CatalogConfig {
            url: format!("sqlite:{}", path("catalog.db").display()),
            name: NAME.to_owned(),
            namespace: NAME.to_owned(),
            warehouse: path("warehouse").display().to_string(),
            properties: Default::default(),
        },
    }
}

/// The folders in the data directory, absolute: a child works where it wants.
struct Places {
    dir: PathBuf,
}

impl Places {
    fn make(dir: &Path) -> Result<Places, Error> {
        let dir = std::path::absolute(dir)?;
        let contracts = dir.join("contracts");
        fs::create_dir_all(&contracts)?;
        fs::write(contracts.join(format!("{MODEL}.yaml")), CONTRACT)?;
        Ok(Places { dir })
    }

    fn path(&self, name: &str) -> Value {
        Value::String(self.dir.join(name).display().to_string())
    }

    /// A `file:` URL.
    fn url(&self, name: &str) -> Value {
        Value::String(format!("file:{}", self.dir.join(name).display()))
    }

    fn write(&self, name: &str, settings: Table) -> Result<PathBuf, Error> {
        let path = self.dir.join(name);
        fs::write(&path, toml::to_string_pretty(&settings)?)?;
        Ok(path)
    }
}

/// Writes both files of settings.
fn settings(args: &Args, places: &Places, port: u16) -> Result<(PathBuf, PathBuf), Error> {
    let text = |text: &str| Value::String(text.to_owned());
    let log_url = args.kafka.as_deref().map_or_else(|| places.url("log"), text);
    let registry_url = args.registry.as_deref().map_or_else(|| places.url("registry"), text);
    let sidecar = [
        ("listen", vec![("tcp", text(&format!("127.0.0.1:{port}"))), ("admin", text("127.0.0.1:0"))]),
        ("contracts", vec![("dir", places.path("contracts"))]),
        ("spool", vec![("dir", places.path("spool"))]),
        ("log", vec![("url", log_url.clone()), ("prefix", text(&args.prefix))]),
        // Without servers nobody else registers; with them the demonstration itself does, before the sidecar starts.
        ("registry", vec![("url", registry_url.clone()), ("auto_register", Value::Boolean(args.kafka.is_none()))]),
        ("shutdown", vec![("drain_ms", Value::Integer(DRAIN_MS))]),
        ("telemetry", vec![("filter", text(&args.log))]),
    ];
    let catalog = catalog(args);
    let properties = catalog.properties.into_iter().map(|(key, value)| (key, Value::String(value))).collect();
    let mut joiner_log = vec![
        ("url", log_url),
        ("prefix", text(&args.prefix)),
        ("group", text(&args.prefix)),
        ("ingest_time", text("record")),
    ];
    if args.kafka.is_some() {
        // A replay does not wait for the 45 s in which a group misses one that died.
        let session = ("session.timeout.ms".to_owned(), text("6000"));
        joiner_log.push(("librdkafka", Value::Table([session].into_iter().collect())));
    }
    let joiner = [
        ("log", joiner_log),
        ("registry", vec![("url", registry_url)]),
        (
            "catalog",
            vec![
                ("url", text(&catalog.url)),
                ("name", text(&catalog.name)),
                ("namespace", text(&catalog.namespace)),
                ("warehouse", text(&catalog.warehouse)),
                ("properties", Value::Table(properties)),
            ],
        ),
        ("index", vec![("dir", places.path("index"))]),
        ("commit", vec![("interval_ms", Value::Integer(COMMIT_INTERVAL_MS))]),
        ("listen", vec![("admin", text("127.0.0.1:0"))]),
        ("shutdown", vec![("drain_ms", Value::Integer(DRAIN_MS))]),
    ];
    let mut sidecar = table(sidecar);
    sidecar.insert("replay".to_owned(), Value::Boolean(true));
    Ok((places.write("sidecar.toml", sidecar)?, places.write("joiner.toml", table(joiner))?))
}

fn table<const N: usize>(sections: [(&str, Vec<(&str, Value)>); N]) -> Table {
    let section =
        |keys: Vec<(&str, Value)>| Value::Table(keys.into_iter().map(|(key, value)| (key.to_owned(), value)).collect());
    sections.into_iter().map(|(name, keys)| (name.to_owned(), section(keys))).collect()
}
