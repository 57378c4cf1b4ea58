//! The settings: the defaults file compiled in, then a file, then the environment; every fault at once.
//!
//! The defaults file is the manual and the schema in one: a key that it does not have is unknown, and a value must be
//! of the type that it has there. Only `[log.librdkafka]` and `[catalog.properties]` take any key.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::{Table, Value};

use crate::source::SourceConfig;
use crate::table::CatalogConfig;
use flywheel_schemas::client_options::is_secret;
use flywheel_schemas::registry::RegistryConfig;

/// The defaults file: every setting with its meaning.
pub const DEFAULTS: &str = include_str!("../config.default.toml");

/// The sections whose keys are not ours.
const FREE: [&str; 2] = ["log.librdkafka", "catalog.properties"];

/// What the journal of an index takes before it is given back, twice.
const INDEX_BYTES_MIN: u64 = 256 * 1024 * 1024;

const ENVIRONMENT_PREFIX: &str = "FLYWHEEL_JOINER_";

#[derive(Debug, Clone, Deserialize, serde::Serialize)]
pub struct Config {
    pub log: LogSection,
    pub registry: RegistrySection,
    pub catalog: CatalogSection,
    pub index: IndexSection,
    pub commit: CommitSection,
    pub listen: ListenSection,
    pub shutdown: ShutdownSection,
}

#[derive(Debug, Clone, Deserialize, serde::Serialize)]
pub struct LogSection {
    pub url: String,
    pub prefix: String,
    pub group: String,
    pub member: String,
    pub ingest_time: IngestTime,
    #[serde(serialize_with = "redacted")]
    pub librdkafka: BTreeMap<String, String>,
}

/// Where a record's ingest time comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum IngestTime {
    /// The broker's append time.
    Broker,
    /// The time that the writer put on the record.
    Record,
}

#[derive(Debug, Clone, Deserialize, serde::Serialize)]
pub struct RegistrySection {
    pub url: String,
    pub username: String,
    pub password_file: String,
    pub token_file: String,
    pub ca_file: String,
}

#[derive(Debug, Clone, Deserialize, serde::Serialize)]
pub struct CatalogSection {
    pub url: String,
    pub name: String,
    pub namespace: String,
    pub warehouse: String,
    #[serde(serialize_with = "redacted")]
    pub properties: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Deserialize, serde::Serialize)]
pub struct IndexSection {
    pub dir: PathBuf,
    pub max_bytes: u64,
}

#[derive(Debug, Clone, Deserialize, serde::Serialize)]
pub struct CommitSection {
    pub interval_ms: u64,
    pub bytes: usize,
}

#[derive(Debug, Clone, Deserialize, serde::Serialize)]
pub struct ListenSection {
    pub admin: String,
}

#[derive(Debug, Clone, Deserialize, serde::Serialize)]
pub struct ShutdownSection {
    pub drain_ms: u64,
}

/// Every fault of the settings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError(pub Vec<String>);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl Default for Config {
    /// The defaults file.
    fn default() -> Config {
        // A test proves that the file parses, so the second arm is never taken.
        Config::from_layers(Table::new(), std::iter::empty()).unwrap_or_else(|error| unreachable!("{error}"))
    }
}

impl Config {
    /// Reads the process's environment and, where given, a file.
    ///
    /// # Errors
    /// All faults of all layers.
    pub fn load(file: Option<&Path>) -> Result<Config, ConfigError> {
        let table = match file {
            None => Table::new(),
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|error| ConfigError(vec![format!("{}: {error}", path.display())]))?;
                text.parse().map_err(|error| ConfigError(vec![format!("{}: {error}", path.display())]))?
            }
        };
        Config::from_layers(table, std::env::vars())
    }

    /// Lays a table over the defaults and the environment over both.
    pub fn from_layers(
        table: Table,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Config, ConfigError> {
        let mut faults = Vec::new();
        let mut settings: Table = DEFAULTS.parse().map_err(|error| ConfigError(vec![format!("defaults: {error}")]))?;
        overlay(&mut settings, table, "", &mut faults);
        for (name, text) in environment {
            if let Some(key) = name.strip_prefix(ENVIRONMENT_PREFIX) {
                set(&mut settings, &name, &key.to_ascii_lowercase(), &text, &mut faults);
            }
        }
        let config: Option<Config> = settings.try_into().map_err(|error| faults.push(format!("{error}"))).ok();
        if let Some(config) = &config {
            config.check(&mut faults);
        }
        match config {
            Some(config) if faults.is_empty() => Ok(config),
            _ => Err(ConfigError(faults)),
        }
    }

    fn check(&self, faults: &mut Vec<String>) {
        if !(self.log.url.starts_with("kafka://") || self.log.url.starts_with("file:")) {
            faults.push(format!("log.url: `{}` is neither kafka://HOST:PORT nor file:DIR", self.log.url));
        }
        if self.commit.interval_ms == 0 {
            faults.push("commit.interval_ms: must be at least 1".to_owned());
        }
        if self.index.max_bytes < INDEX_BYTES_MIN {
            faults.push(format!("index.max_bytes: must be at least {INDEX_BYTES_MIN}, which an empty index may take"));
        }
        if !self.listen.admin.is_empty() {
            match self.listen.admin.parse::<std::net::SocketAddr>() {
                Ok(address) if address.ip().is_loopback() => {}
                Ok(_) => faults.push(format!("listen.admin: `{}` is no loopback address", self.listen.admin)),
                Err(_) => faults.push(format!("listen.admin: `{}` is no IP:PORT", self.listen.admin)),
            }
        }
    }

    pub(crate) fn source(&self) -> SourceConfig {
        SourceConfig {
            url: self.log.url.clone(),
            prefix: self.log.prefix.clone(),
            group: self.log.group.clone(),
            member: some(&self.log.member),
            librdkafka: self.log.librdkafka.clone(),
        }
    }

    /// How the registry is reached.
    pub fn registry(&self) -> RegistryConfig {
        let path = |text: &String| some(text).map(PathBuf::from);
        RegistryConfig {
            url: self.registry.url.clone(),
            username: some(&self.registry.username),
            password_file: path(&self.registry.password_file),
            token_file: path(&self.registry.token_file),
            ca_file: path(&self.registry.ca_file),
        }
    }

    /// How the catalog is reached.
    pub fn catalog(&self) -> CatalogConfig {
        CatalogConfig {
            url: self.catalog.url.clone(),
            name: self.catalog.name.clone(),
            namespace: self.catalog.namespace.clone(),
            warehouse: self.catalog.warehouse.clone(),
            properties: self.catalog.properties.clone(),
        }
    }

    /// Whether the writers of the log keep its time, so that the joiner writes no tick records.
    pub(crate) fn writer_keeps_time(&self) -> bool {
        self.log.ingest_time == IngestTime::Record || self.log.url.starts_with("file:")
    }
}

fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn overlay(settings: &mut Table, layer: Table, path: &str, faults: &mut Vec<String>) {
    for (key, value) in layer {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        match (settings.get_mut(&key), value) {
            (Some(Value::Table(settings)), Value::Table(layer)) if FREE.contains(&path.as_str()) => {
                for (key, value) in layer {
                    settings.insert(key, Value::String(plain(&value)));
                }
            }
            (Some(Value::Table(settings)), Value::Table(layer)) => overlay(settings, layer, &path, faults),
            (Some(old), value) if old.same_type(&value) => *old = value,
            (Some(old), value) => {
                faults.push(format!("{path}: expected {}, found {}", old.type_str(), value.type_str()));
            }
            (None, _) => faults.push(format!("{path}: unknown setting; see --print-config for those there are")),
        }
    }
}

/// A value of a free section: librdkafka and the catalogs take text.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// What `--print-config` shows of a free section.
fn redacted<S: serde::Serializer>(settings: &BTreeMap<String, String>, to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(settings.iter().map(|(name, value)| {
        // Headers of a REST catalog may be those that let one in.
        let is_hidden = is_secret(name) || name.starts_with("header.");
        (name, if is_hidden { "(hidden)" } else { value.as_str() })
    }))
}

/// Sets `section_key` from a variable's text, which takes the type that the setting has.
fn set(settings: &mut Table, name: &str, key: &str, text: &str, faults: &mut Vec<String>) {
    let target = key.split_once('_').and_then(|(section, key)| settings.get_mut(section)?.as_table_mut()?.get_mut(key));
    let value = match &target {
        None | Some(Value::Table(_)) => {
            faults.push(format!("{name}: names no setting; see --print-config for those there are"));
            return;
        }
        Some(Value::String(_)) => Some(Value::String(text.to_owned())),
        Some(Value::Integer(_)) => text.parse().ok().map(Value::Integer),
        Some(Value::Boolean(_)) => text.parse().ok().map(Value::Boolean),
        Some(_) => None,
    };
    match (target, value) {
        (Some(target), Some(value)) => *target = value,
        (Some(target), None) => faults.push(format!("{name}: `{text}` is no {}", target.type_str())),
        (None, _) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str, environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Config::from_layers(text.parse().expect("toml"), environment)
    }

    #[test]
    fn the_defaults_are_a_configuration() {
        assert_eq!(Config::default().log.prefix, "flywheel");
    }

    #[test]
    fn the_environment_wins_over_the_file() {
        let config =
            load("[log]\nprefix = \"a\"\ngroup = \"g\"", &[("FLYWHEEL_JOINER_LOG_PREFIX", "b")]).expect("valid");
        assert_eq!((config.log.prefix.as_str(), config.log.group.as_str()), ("b", "g"));
    }

    #[test]
    fn every_fault_is_told_at_once() {
        let faults = load(
            "[log]\nprefx = \"a\"\nurl = 5\n[index]\nmax_bytes = 1\n[commit]\ninterval_ms = 0\n[listen]\nadmin = \"0.0.0.0:1\"",
            &[("FLYWHEEL_JOINER_COMMIT_BYTES", "many"), ("FLYWHEEL_JOINER_NO", "1")],
        )
        .expect_err("faulty")
        .0;
        assert_eq!(faults.len(), 7, "{faults:?}");
    }

    #[test]
    fn free_sections_take_any_key() {
        let config = load("[log.librdkafka]\n\"fetch.min.bytes\" = 5", &[]).expect("valid");
        assert_eq!(config.log.librdkafka["fetch.min.bytes"], "5");
    }

    #[test]
    fn secrets_are_not_shown() {
        let config = load(
            "[log.librdkafka]\n\"sasl.password\" = \"hush\"\n\"sasl.password-file\" = \"/p\"\n\
             [catalog.properties]\n\"s3.secret-access-key\" = \"hush\"\n\"header.authorization\" = \"hush\"\n\
             \"s3.region\" = \"here\"",
            &[],
        )
        .expect("valid");
        let shown = toml::to_string_pretty(&config).expect("text");
        assert!(!shown.contains("hush") && shown.contains("/p") && shown.contains("here"), "{shown}");
    }
}
