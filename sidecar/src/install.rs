//! Brings contracts into force: at the start, and again when asked to.
//!
//! Each model has a directory `<spool.dir>/<model>`. Of `spool.max_bytes` one 32nd is for the dead letters and one 32nd
//! for the ledger; the models that are there at the start share the rest equally, and with them those whose contract is
//! gone while their spool is not: what they accepted still goes to the log. A model that comes later gets the share it
//! would have had; until the next start the sum can be that much more.
//!
//! A version in force is a contract with what this sidecar adds to it: where that changes, the same version comes into
//! force anew.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use flywheel_schemas::contract::{Contract, Privacy};
use flywheel_spool::{Options, Spool, SpoolError};
use uuid::Uuid;

use crate::config::{self, Config};
use crate::contracts;
use crate::ledger::end_of;
use crate::models::{Model, Version, VersionError};
use crate::privacy::KeyRing;
use crate::shared::Shared;
use crate::transcode::Local;

/// Each service spool gets this part of the budget.
pub(crate) const SERVICE_SHARE: u64 = 32;

/// A datum can be longer than its JSON: two characters of a `list<double>` are eight bytes.
const GROWTH_MAX: usize = 4;
/// Ids, names and blocks that are there whatever the body holds.
const RECORD_BYTES_FIXED: usize = 64 << 10;

/// Why a contract is not in force.
#[derive(Debug, thiserror::Error)]
enum InstallError {
    #[error("version {0} is in force with another text: a changed contract needs a new version")]
    SameVersion(i32),
    #[error(transparent)]
    Version(#[from] VersionError),
    #[error(transparent)]
    Spool(#[from] SpoolError),
}

/// The options of a spool with so much of the budget.
pub(crate) fn options(config: &config::Spool, max_bytes: u64, record_bytes_max: usize) -> Options {
    let accepted = match config.accepted {
        config::Accepted::Kernel => flywheel_spool::Accepted::Kernel,
        config::Accepted::Disk => flywheel_spool::Accepted::Disk,
    };
    let sync_interval = Duration::from_millis(config.sync_interval_ms);
    let compress = match config.compress {
        config::Compress::None => flywheel_spool::Compress::None,
        config::Compress::Zstd => flywheel_spool::Compress::Zstd,
    };
    Options { max_bytes, record_bytes_max, accepted, sync_interval, compress, ..Options::default() }
}

pub(crate) struct Installer {
    shared: Arc<Shared>,
    contracts_dir: PathBuf,
    spool: config::Spool,
    record_bytes_max: usize,
    producer_id: Uuid,
    /// Sampling rates by model, in place of the contracts'.
    rates: Mutex<BTreeMap<String, f64>>,
    key_file: Option<PathBuf>,
    /// The last that were read without a fault.
    keys: Mutex<Option<Arc<KeyRing>>>,
    /// Whether the directory was once without a fault; then faults of later texts do not make it unready.
    was_sound: AtomicBool,
}

impl Installer {
    pub(crate) fn new(shared: Arc<Shared>, config: &Config, producer_id: Uuid) -> Installer {
        Installer {
            shared,
            contracts_dir: config.contracts.dir.clone(),
            spool: config.spool.clone(),
            record_bytes_max: config.limits.body_bytes * GROWTH_MAX + RECORD_BYTES_FIXED,
            producer_id,
            rates: Mutex::new(config.sampling.clone()),
            key_file: config.privacy.key_file.clone(),
            keys: Mutex::default(),
            was_sound: AtomicBool::new(false),
        }
    }

    /// Takes over what a running sidecar can: the rates of `[sampling]`. [`Installer::install`] then puts them in force.
    pub(crate) fn take_over(&self, config: &Config) {
        *self.rates.lock().unwrap_or_else(PoisonError::into_inner) = config.sampling.clone();
    }

    fn local(&self, contract: &Contract) -> Local {
        let rate = self.rates.lock().unwrap_or_else(PoisonError::into_inner).get(&contract.model).copied();
        let needs_keys = contract.fields().any(|(_, field)| field.privacy == Privacy::Hmac);
        let keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        Local { rate, keys: keys.clone().filter(|_| needs_keys) }
    }

    /// Reads the key file again. Keys that were good stay in force where it has a fault.
    fn read_keys(&self) {
        let Some(path) = &self.key_file else { return };
        let read = KeyRing::read(path);
        self.shared.metrics.key_file_read(path, read.as_ref().err());
        if let Ok(keys) = read {
            *self.keys.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(keys));
        }
    }

    /// Reads key file and contract directory, opens the spools that are new, and puts in force what is sound. Gives the names of
    /// the new spools. Blocks for the disk.
    ///
    /// # Errors
    /// At the start, where a spool cannot be opened; and where the directory cannot be read. Faulty contracts are logged
    /// and counted, and take nothing from the others.
    pub(crate) fn install(&self) -> Result<Vec<String>, String> {
        self.read_keys();
        let dir = &self.contracts_dir;
        let mut found = contracts::read(dir).map_err(|error| format!("contracts.dir {}: {error}", dir.display()))?;
        let mut names: BTreeSet<String> = found.contracts.iter().map(|(_, contract)| contract.model.clone()).collect();
        names.extend(
            left_behind(&self.spool.dir).map_err(|error| format!("spool.dir {}: {error}", self.spool.dir.display()))?,
        );
        let share = (self.spool.max_bytes - 2 * (self.spool.max_bytes / SERVICE_SHARE)) / names.len().max(1) as u64;
        let mut opened = Vec::new();
        for name in &names {
            if self.shared.spool(name).is_none() {
                let spool = self.open(name, share).map_err(|error| format!("the spool of {name}: {error}"))?;
                self.shared.add_spool(name, spool);
                opened.push(name.clone());
            }
        }
        for (path, contract) in std::mem::take(&mut found.contracts) {
            if let Err(error) = self.put_in_force(contract) {
                found.faulty.push((path, error.to_string()));
            }
        }
        for (path, fault) in &found.faulty {
            self.shared.metrics.contract_refused(&path.display().to_string(), fault);
        }
        self.shared.metrics.contracts_read(found.faulty.len());
        if found.faulty.is_empty() {
            self.was_sound.store(true, Ordering::Relaxed);
        }
        for name in self.rates.lock().unwrap_or_else(PoisonError::into_inner).keys() {
            if !names.contains(name) {
                tracing::warn!(model = name, "[sampling] has a rate for a model that has no contract here");
            }
        }
        if self.shared.models.all().is_empty() {
            tracing::warn!(dir = %dir.display(), "no contract is in force: every request will be answered with 404");
        }
        Ok(opened)
    }

    pub(crate) fn was_sound(&self) -> bool {
        self.was_sound.load(Ordering::Relaxed)
    }

    fn open(&self, name: &str, max_bytes: u64) -> Result<Spool, SpoolError> {
        let spool = Spool::open(&self.spool.dir.join(name), options(&self.spool, max_bytes, self.record_bytes_max))?;
        self.shared.metrics.spool_recovered(name, spool.recovery());
        Ok(spool)
    }

    fn put_in_force(&self, contract: Contract) -> Result<(), InstallError> {
        let (name, number) = (contract.model.clone(), contract.version);
        let local = self.local(&contract);
        let rate = local.rate.unwrap_or(contract.sampling.rate);
        if let Some(model) = self.shared.models.get(&name) {
            let running = model.version();
            let (in_force, is_same) = (running.plan.contract(), **running.plan.contract() == contract);
            if is_same && *running.plan.local() == local {
                return Ok(());
            }
            if in_force.version == number && !is_same {
                return Err(InstallError::SameVersion(number));
            }
            let version = Version::prepare(contract, local, model.spool())?;
            model.put_in_force(version);
        } else if let Some(spool) = self.shared.spool(&name) {
            let version = Version::prepare(contract, local, &spool)?;
            let clock = if self.shared.replay { Some(end_of(&spool)?.time_ms) } else { None };
            let (producer_id, bytes_max) = (self.producer_id.into_bytes(), self.record_bytes_max);
            let model = Model::new(&name, producer_id, spool, bytes_max, version, &self.shared.metrics, clock);
            self.shared.models.add(Arc::new(model));
        }
        self.shared.metrics.contract_loaded(&name, number, rate);
        Ok(())
    }
}

/// The spools that are there, by the names of their models.
fn left_behind(dir: &Path) -> std::io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if let Some(name) = name.to_str().filter(|name| is_model(name))
            && entry.file_type()?.is_dir()
        {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

/// `[a-z][a-z0-9_]{0,62}`, as the contract has it.
fn is_model(name: &str) -> bool {
    name.len() <= 63
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}
