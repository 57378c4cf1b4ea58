//! What a second start has to know to go on where the first one ended, at whatever instruction that was.
//!
//! `replay.json` is written whole at each week's end: the weeks done and the two models. `replay.position` is written
//! over at each instant: the last one of which every call was answered. What came after that instant is sent again
//! under the same ids, so a re-start changes nothing in the tables.

use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use flywheel_schemas::id;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::Error;
use crate::args::Args;
use crate::flights::Flight;
use crate::model::{CONSTANT, Model};

const STATE: &str = "replay.json";
const POSITION: &str = "replay.position";
/// What a run leaves beside the journal.
const LEFT: [&str; 12] = [
    "catalog.db",
    "catalog.db-shm",
    "catalog.db-wal",
    "contracts",
    "index",
    "joiner.log",
    "joiner.toml",
    "log",
    "registry",
    "sidecar.log",
    "sidecar.toml",
    "spool",
];
const WAREHOUSE: &str = "warehouse";

/// A model under the name by which its predictions say what made them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Version {
    pub name: String,
    pub model: Model,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct State {
    /// Which flights and which servers; a journal is of no use for others.
    run: String,
    /// Weeks that are over, trained from and judged.
    pub weeks: u32,
    /// Serves.
    pub current: Version,
    /// Was trained at the last week's end and is judged at the next.
    pub candidate: Option<Version>,
    pub finished: bool,
}

pub struct Journal {
    pub state: State,
    path: PathBuf,
    position: File,
    position_ms: i64,
}

impl Journal {
    /// Makes or goes on with the journal in the data directory.
    ///
    /// # Errors
    /// The directory holds another run, or something that is none.
    pub fn open(args: &Args, flights: &[Flight]) -> Result<Journal, Error> {
        let dir = &args.data_dir;
        let told = |what: &str| format!("{}: {what}", dir.display());
        fs::create_dir_all(dir).map_err(|error| told(&error.to_string()))?;
        let path = dir.join(STATE);
        let run = fingerprint(args, flights);
        let mut found: Option<State> = match fs::read(&path) {
            Ok(text) => Some(serde_json::from_slice(&text).map_err(|error| told(&format!("{STATE}: {error}")))?),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(told(&format!("{STATE}: {error}")).into()),
        };
        if args.fresh && found.is_some() {
            remove(dir).map_err(|error| told(&error.to_string()))?;
            found = None;
        }
        let state = match found {
            Some(state) if state.run == run => state,
            Some(_) => {
                return Err(told(
                    "holds a run of other flights or with other servers; choose another --data-dir, or --fresh",
                )
                .into());
            }
            None if LEFT.iter().chain([&WAREHOUSE]).any(|name| dir.join(name).exists()) => {
                return Err(
                    told("holds tables or spools, but no replay.json of a run; choose another --data-dir").into()
                );
            }
            None => {
                let current = Version { name: "constant".to_owned(), model: Model::Constant(CONSTANT) };
                State { run, weeks: 0, current, candidate: None, finished: false }
            }
        };
        let position =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(dir.join(POSITION))?;
        let mut text = [0; WIDTH];
        let position_ms = match position.read_at(&mut text, 0)? {
            0 => i64::MIN,
            _ => String::from_utf8_lossy(&text)
                .trim()
                .parse()
                .map_err(|_| told("replay.position is damaged; start afresh with --fresh"))?,
        };
        let journal = Journal { state, path, position, position_ms };
        journal.save()?;
        Ok(journal)
    }

    /// The last instant of which every call was answered, in milliseconds since the epoch; before all where none was.
    pub fn position_ms(&self) -> i64 {
        self.position_ms
    }

    pub fn pass(&mut self, instant_ms: i64) -> Result<(), Error> {
        // One write of a few bytes: it is there as a whole if the process dies after it. It need not survive the power,
        // since a sidecar that is further says so.
        self.position.write_all_at(format!("{instant_ms:WIDTH$}").as_bytes(), 0)?;
        self.position_ms = instant_ms;
        Ok(())
    }

    /// Writes the state, whole or not at all.
    pub fn save(&self) -> Result<(), Error> {
        let new = self.path.with_extension("json.new");
        fs::write(&new, serde_json::to_vec_pretty(&self.state)?)?;
        fs::rename(&new, &self.path)?;
        Ok(())
    }
}

/// Digits of a position.
const WIDTH: usize = 20;

/// Removes what a run leaves, and nothing else.
fn remove(dir: &Path) -> std::io::Result<()> {
    for name in LEFT.iter().chain([&WAREHOUSE, &POSITION, &STATE]) {
        let path = dir.join(name);
        let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        match removed {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn fingerprint(args: &Args, flights: &[Flight]) -> String {
    let mut hash = Sha256::new();
    for server in [&args.kafka, &args.registry, &args.catalog, &args.warehouse].into_iter().flatten() {
        hash.update(server);
        hash.update([0]);
    }
    hash.update(&args.prefix);
    hash.update([u8::from(args.corrections)]);
    for flight in flights {
        hash.update(flight.prediction_id().as_bytes());
        hash.update(flight.event_id().unwrap_or_default().as_bytes());
    }
    let mut bits = [0; 10];
    bits.copy_from_slice(&hash.finalize()[..10]);
    id::from_parts(0, bits).to_string()
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    fn args(dir: &Path, more: &[&str]) -> Args {
        let mut words = vec!["flights", "--data-dir", dir.to_str().unwrap()];
        words.extend(more);
        Args::parse_from(words)
    }

    #[test]
    fn a_second_start_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let flights = crate::flights::read(None).unwrap();
        let mut journal = Journal::open(&args(dir.path(), &[]), &flights).unwrap();
        assert_eq!((journal.position_ms(), journal.state.weeks), (i64::MIN, 0));
        journal.pass(1_357_034_400_000).unwrap();
        journal.pass(5).unwrap();
        journal.state.weeks = 3;
        journal.save().unwrap();
        let again = Journal::open(&args(dir.path(), &[]), &flights).unwrap();
        assert_eq!((again.position_ms(), again.state.weeks), (5, 3));
    }

    #[test]
    fn another_run_is_refused_and_a_fresh_one_removes_only_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let flights = crate::flights::read(None).unwrap();
        Journal::open(&args(dir.path(), &[]), &flights).unwrap().pass(5).unwrap();
        fs::create_dir(dir.path().join("warehouse")).unwrap();
        fs::write(dir.path().join("mine.txt"), "").unwrap();
        assert!(Journal::open(&args(dir.path(), &[]), &flights[1..]).is_err());
        let fresh = Journal::open(&args(dir.path(), &["--fresh"]), &flights[1..]).unwrap();
        assert_eq!(fresh.position_ms(), i64::MIN);
        assert!(!dir.path().join("warehouse").exists() && dir.path().join("mine.txt").exists());
    }

    #[test]
    fn a_directory_with_tables_of_no_run_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("warehouse")).unwrap();
        let flights = crate::flights::read(None).unwrap();
        assert!(Journal::open(&args(dir.path(), &["--fresh"]), &flights).is_err());
        assert!(dir.path().join("warehouse").exists());
    }
}
