//! Configuration: the compiled-in defaults, then a file, then the environment, key by key.
//!
//! [`DEFAULTS`] is the manual, and it decides which keys there are and of which type. All faults are reported at once.
//! Secrets are never values: they stand in files of their own, whose paths are configured. This is the only place that
//! reads the environment.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand};
use flywheel_schemas::client_options::is_secret;
use serde::Serialize;
use toml::{Table, Value};

use crate::salvage::Look;
use crate::transcode::BODY_BYTES_MAX;

mod values;

use values::{address, number, optional, options, prefix, rates, text, type_name, url, word};

/// The documented defaults.
pub const DEFAULTS: &str = include_str!("config.default.toml");

/// What the names of environment variables begin with.
pub const ENV_PREFIX: &str = "FLYWHEEL_SIDECAR_";

/// Ten years: more is none.
const MAX_AGE_S: u64 = 10 * 365 * 86_400;

/// The keys whose values are tables of free names.
const LIBRDKAFKA: &str = "log.librdkafka";
const SAMPLING: &str = "sampling";
const FREE: [&str; 2] = [LIBRDKAFKA, SAMPLING];

/// What the binary does instead of serving.
#[derive(Debug, Clone, Subcommand)]
pub enum Tool {
    /// Print what a text read from standard input is called in rows: its pseudonym under every key, newest first.
    Pseudonym {
        /// The file that `privacy.key_file` names.
        #[arg(long, value_name = "FILE")]
        key_file: PathBuf,
    },
    /// Look into spools, such as those on the volume of a dead pod.
    #[command(subcommand)]
    Spool(Look),
}

/// The command line.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "flywheel-sidecar",
    version,
    about = "Logs what a model served, typed and without loss",
    no_binary_name = true
)]
pub struct Args {
    /// A TOML file that overrides the defaults.
    #[arg(long, value_name = "FILE", env = "FLYWHEEL_SIDECAR_CONFIG")]
    pub config: Option<PathBuf>,
    /// Print the configuration in force and exit.
    #[arg(long)]
    pub print_config: bool,
    #[command(subcommand)]
    pub tool: Option<Tool>,
}

/// Every setting; what each means stands in [`DEFAULTS`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Config {
    pub replay: bool,
    pub listen: Listen,
    pub contracts: Contracts,
    /// By model: the rate in place of the contract's.
    pub sampling: BTreeMap<String, f64>,
    pub privacy: Privacy,
    pub spool: Spool,
    pub log: Log,
    pub registry: Registry,
    pub limits: Limits,
    pub shutdown: Shutdown,
    pub telemetry: Telemetry,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Listen {
    pub tcp: Option<SocketAddr>,
    pub uds: Option<PathBuf>,
    pub admin: SocketAddr,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Contracts {
    pub dir: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Privacy {
    pub key_file: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Spool {
    pub dir: PathBuf,
    pub max_bytes: u64,
    pub when_full: WhenFull,
    pub max_age_s: u64,
    pub accepted: Accepted,
    pub sync_interval_ms: u64,
    pub compress: Compress,
}

/// How the spools lie on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Compress {
    None,
    Zstd,
}

/// What gives way where the log takes too little for too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WhenFull {
    /// New rows.
    Refuse,
    /// The oldest that wait.
    DropOldest,
}

/// What a 202 waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Accepted {
    /// `write(2)` returned.
    Kernel,
    /// `fdatasync` returned.
    Disk,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Log {
    pub url: String,
    pub prefix: String,
    pub partitions: i32,
    #[serde(serialize_with = "redacted")]
    pub librdkafka: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Registry {
    pub url: String,
    pub username: Option<String>,
    pub password_file: Option<PathBuf>,
    pub token_file: Option<PathBuf>,
    pub ca_file: Option<PathBuf>,
    pub auto_register: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Limits {
    pub body_bytes: usize,
    pub batch_rows: usize,
    pub connections: usize,
    pub bodies_bytes: u64,
    pub header_timeout_ms: u64,
    pub body_timeout_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Shutdown {
    pub requests_ms: u64,
    pub drain_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Telemetry {
    pub filter: String,
    pub format: LogFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Text,
    Json,
}

/// Everything that is wrong with a configuration, a sentence each.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    pub faults: Vec<String>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the configuration has {} fault(s)", self.faults.len())?;
        self.faults.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
    }
}

impl Default for Config {
    fn default() -> Config {
        let mut config = Config::blank();
        let faults = config.apply(&defaults());
        debug_assert!(faults.is_empty(), "{faults:?}");
        config
    }
}

impl Config {
    /// Reads the file, if there is one, and the variables that begin with [`ENV_PREFIX`], over the defaults.
    ///
    /// # Errors
    /// All faults at once: unknown keys, wrong types, values that are not allowed.
    pub fn load(file: Option<&Path>, env: impl Iterator<Item = (String, String)>) -> Result<Config, ConfigError> {
        let mut config = Config::default();
        let known = defaults();
        let mut faults = Vec::new();
        if let Some(file) = file {
            let name = format!("file {}", file.display());
            match std::fs::read_to_string(file).map_err(|error| error.to_string()).and_then(|text| parse(&text)) {
                Ok(settings) => faults.extend(config.overlay(&known, &settings, |key| format!("{name}, `{key}`"))),
                Err(error) => faults.push(format!("{name}: {error}")),
            }
        }
        let (settings, unreadable) = from_environment(&known, env);
        faults.extend(unreadable);
        faults.extend(config.overlay(&known, &settings, |key| format!("environment, `{}`", env_name(key))));
        faults.extend(config.check());
        if faults.is_empty() { Ok(config) } else { Err(ConfigError { faults }) }
    }

    /// As the command line and the environment of this process say.
    pub fn from_args(args: &Args) -> Result<Config, ConfigError> {
        // A name or value that is not Unicode is none of ours.
        let env =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        Config::load(args.config.as_deref(), env)
    }

    /// The configuration in force, in the form of a file. Values of librdkafka options that may be secret are hidden.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).unwrap_or_else(|error| format!("# cannot be shown: {error}\n"))
    }

    fn overlay(
        &mut self,
        known: &BTreeMap<String, Value>,
        settings: &BTreeMap<String, Value>,
        place: impl Fn(&str) -> String,
    ) -> Vec<String> {
        let (right, wrong): (BTreeMap<_, _>, BTreeMap<_, _>) =
            settings.clone().into_iter().partition(|(key, value)| known.get(key).is_some_and(|of| of.same_type(value)));
        let mut faults: Vec<String> = wrong
            .iter()
            .map(|(key, value)| match known.get(key) {
                Some(of) => format!("{}: {} is needed, {} was found", place(key), type_name(of), type_name(value)),
                None => format!("{}: there is no such key", place(key)),
            })
            .collect();
        faults.extend(self.apply(&right).into_iter().map(|(key, fault)| format!("{}: {fault}", place(&key))));
        faults
    }

    /// Takes over values of the right types; gives back the keys whose values are not allowed, and why.
    fn apply(&mut self, settings: &BTreeMap<String, Value>) -> Vec<(String, String)> {
        settings
            .iter()
            .filter_map(|(key, value)| self.set(key, value).err().map(|fault| (key.clone(), fault)))
            .collect()
    }

    fn set(&mut self, key: &str, value: &Value) -> Result<(), String> {
        match key {
            "replay" => self.replay = value.as_bool().unwrap_or_default(),
            "listen.tcp" => self.listen.tcp = optional(value).map(|text| address(&text)).transpose()?,
            "listen.uds" => self.listen.uds = optional(value).map(PathBuf::from),
            "listen.admin" => self.listen.admin = address(&text(value)?)?,
            "contracts.dir" => self.contracts.dir = PathBuf::from(text(value)?),
            SAMPLING => self.sampling = rates(value)?,
            "privacy.key_file" => self.privacy.key_file = optional(value).map(PathBuf::from),
            "spool.dir" => self.spool.dir = PathBuf::from(text(value)?),
            "spool.max_bytes" => self.spool.max_bytes = number(value, 1 << 20, u64::MAX)?,
            "spool.when_full" => {
                let words = [("refuse", WhenFull::Refuse), ("drop_oldest", WhenFull::DropOldest)];
                self.spool.when_full = word(value, &words)?;
            }
            "spool.max_age_s" => self.spool.max_age_s = number(value, 0, MAX_AGE_S)?,
            "spool.accepted" => {
                self.spool.accepted = word(value, &[("kernel", Accepted::Kernel), ("disk", Accepted::Disk)])?;
            }
            "spool.sync_interval_ms" => self.spool.sync_interval_ms = number(value, 1, 60_000)?,
            "spool.compress" => {
                self.spool.compress = word(value, &[("none", Compress::None), ("zstd", Compress::Zstd)])?;
            }
            "log.url" => self.log.url = url(value, &["kafka://", "file:"])?,
            "log.prefix" => self.log.prefix = prefix(value)?,
            "log.partitions" => self.log.partitions = number(value, 1, 10_000)?,
            LIBRDKAFKA => self.log.librdkafka = options(value)?,
            "registry.url" => self.registry.url = url(value, &["http://", "https://", "file:"])?,
            "registry.username" => self.registry.username = optional(value),
            "registry.password_file" => self.registry.password_file = optional(value).map(PathBuf::from),
            "registry.token_file" => self.registry.token_file = optional(value).map(PathBuf::from),
            "registry.ca_file" => self.registry.ca_file = optional(value).map(PathBuf::from),
            "registry.auto_register" => self.registry.auto_register = value.as_bool().unwrap_or_default(),
            "limits.body_bytes" => self.limits.body_bytes = number(value, 1024, BODY_BYTES_MAX)?,
            "limits.batch_rows" => self.limits.batch_rows = number(value, 1, 1_000_000)?,
            "limits.connections" => self.limits.connections = number(value, 1, 1_000_000)?,
            "limits.bodies_bytes" => self.limits.bodies_bytes = number(value, 1 << 20, 1 << 40)?,
            "limits.header_timeout_ms" => self.limits.header_timeout_ms = number(value, 1, 3_600_000)?,
            "limits.body_timeout_ms" => self.limits.body_timeout_ms = number(value, 1, 3_600_000)?,
            "shutdown.requests_ms" => self.shutdown.requests_ms = number(value, 0, 3_600_000)?,
            "shutdown.drain_ms" => self.shutdown.drain_ms = number(value, 0, 3_600_000)?,
            "telemetry.filter" => self.telemetry.filter = text(value)?,
            "telemetry.format" => {
                self.telemetry.format = word(value, &[("text", LogFormat::Text), ("json", LogFormat::Json)])?;
            }
            _ => return Err("there is no such key".to_owned()),
        }
        Ok(())
    }

    /// What is wrong only with several keys taken together.
    fn check(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.listen.tcp.is_none() && self.listen.uds.is_none() {
            faults.push("`listen.tcp` and `listen.uds` are both off: turn one on".to_owned());
        }
        if self.registry.username.is_some() != self.registry.password_file.is_some() {
            faults.push("`registry.username` and `registry.password_file` go together".to_owned());
        }
        if self.limits.bodies_bytes < self.limits.body_bytes as u64 {
            let text = "`limits.bodies_bytes` is less than `limits.body_bytes`: the largest body must fit";
            faults.push(text.to_owned());
        }
        if self.replay && self.spool.max_age_s > 0 {
            faults.push("`spool.max_age_s` goes by the clock, and in a replay all is old: leave it 0".to_owned());
        }
        faults
    }

    /// The base that the defaults fill in; every value of it is replaced.
    fn blank() -> Config {
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        Config {
            replay: false,
            listen: Listen { tcp: None, uds: None, admin: nowhere },
            contracts: Contracts { dir: PathBuf::new() },
            sampling: BTreeMap::new(),
            privacy: Privacy { key_file: None },
            spool: Spool {
                dir: PathBuf::new(),
                max_bytes: 0,
                when_full: WhenFull::Refuse,
                max_age_s: 0,
                accepted: Accepted::Kernel,
                sync_interval_ms: 0,
                compress: Compress::None,
            },
            log: Log { url: String::new(), prefix: String::new(), partitions: 0, librdkafka: BTreeMap::new() },
            registry: Registry {
                url: String::new(),
                username: None,
                password_file: None,
                token_file: None,
                ca_file: None,
                auto_register: false,
            },
            limits: Limits {
                body_bytes: 0,
                batch_rows: 0,
                connections: 0,
                bodies_bytes: 0,
                header_timeout_ms: 0,
                body_timeout_ms: 0,
            },
            shutdown: Shutdown { requests_ms: 0, drain_ms: 0 },
            telemetry: Telemetry { filter: String::new(), format: LogFormat::Text },
        }
    }
}

fn defaults() -> BTreeMap<String, Value> {
    parse(DEFAULTS).unwrap_or_default()
}

/// A file as dotted keys and values.
fn parse(text: &str) -> Result<BTreeMap<String, Value>, String> {
    let table: Table = text.parse().map_err(|error: toml::de::Error| error.to_string())?;
    let mut settings = BTreeMap::new();
    flatten("", table, &mut settings);
    Ok(settings)
}

fn flatten(path: &str, table: Table, settings: &mut BTreeMap<String, Value>) {
    for (name, value) in table {
        let key = if path.is_empty() { name } else { format!("{path}.{name}") };
        match value {
            Value::Table(table) if !FREE.contains(&key.as_str()) => flatten(&key, table, settings),
            value => {
                settings.insert(key, value);
            }
        }
    }
}

fn env_name(key: &str) -> String {
    format!("{ENV_PREFIX}{}", key.replace('.', "_").to_uppercase())
}

/// The settings that the environment holds, typed as the defaults are, and the variables that cannot be read.
fn from_environment(
    known: &BTreeMap<String, Value>,
    env: impl Iterator<Item = (String, String)>,
) -> (BTreeMap<String, Value>, Vec<String>) {
    let keys: BTreeMap<String, (&String, &Value)> = known.iter().map(|(key, of)| (env_name(key), (key, of))).collect();
    let mut settings = BTreeMap::new();
    let mut faults = Vec::new();
    for (name, text) in env {
        let Some(rest) = name.strip_prefix(ENV_PREFIX) else { continue };
        if rest == "CONFIG" || is_service_link(rest) {
            continue;
        }
        let value = match keys.get(&name) {
            None => Err("there is no such key".to_owned()),
            Some((_, Value::Integer(_))) => {
                text.parse().map(Value::Integer).map_err(|_| "an integer is needed".to_owned())
            }
            Some((_, Value::Boolean(_))) => {
                text.parse().map(Value::Boolean).map_err(|_| "`true` or `false` is needed".to_owned())
            }
            Some((_, Value::Table(_))) => pairs(&text),
            Some(_) => Ok(Value::String(text)),
        };
        match (value, keys.get(&name)) {
            (Ok(value), Some((key, _))) => {
                settings.insert((*key).clone(), value);
            }
            (Err(fault), _) => faults.push(format!("environment, `{name}`: {fault}")),
            (Ok(_), None) => {}
        }
    }
    (settings, faults)
}

/// Kubernetes puts the addresses of a service called `flywheel-sidecar` into the environment of its neighbours.
fn is_service_link(rest: &str) -> bool {
    rest == "PORT" || rest.starts_with("PORT_") || rest == "SERVICE_HOST" || rest.starts_with("SERVICE_PORT")
}

fn pairs(text: &str) -> Result<Value, String> {
    let mut table = Table::new();
    for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').ok_or("`name=value,name=value` is needed")?;
        table.insert(name.trim().to_owned(), Value::String(value.trim().to_owned()));
    }
    Ok(Value::Table(table))
}

fn redacted<S: serde::Serializer>(options: &BTreeMap<String, String>, to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(
        options.iter().map(|(name, value)| (name, if is_secret(name) { "(hidden)" } else { value.as_str() })),
    )
}

#[cfg(test)]
mod tests;
