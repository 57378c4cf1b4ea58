//! `flywheel-sidecar spool inspect|export DIR`: what waits in spools, for an operator with the volume of a dead pod, or of one
//! that lives.
//!
//! DIR is a model's spool or the folder of all. Nothing is locked and nothing is written, so a sidecar may run on the same
//! folder. What is reported goes to standard output, faults go to standard error.
//!
//! | exit code | |
//! |---|---|
//! | 0 | all was read |
//! | 1 | something could not be read, or DIR holds no spool, or the output could not be written |
//! | 2 | the command line is wrong |
//! | 3 | all was read but damaged bytes, which were stepped over and are reported |

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use flywheel_spool::{Inspection, Reader, Record, SpoolError, inspect};

mod export;
mod report;

use export::Export;
use report::Report;

/// Read at a time.
const READ_BYTES: usize = 1 << 20;
/// A block is written with one call; what is not whole after this long is not being written.
const SETTLED_AFTER: Duration = Duration::from_millis(200);

const CODES: &str = "DIR is a model's spool or the folder of all. Takes no lock and writes nothing: a sidecar may run on it.\n\n\
                     Exit codes: 0 all was read; 1 something could not be read, or is no spool; 2 the command line is wrong; \
                     3 all was read but damaged bytes, which were stepped over";

/// What is looked at, and how.
#[derive(Debug, Clone, Subcommand)]
pub enum Look {
    /// Say what is there: segments, records, cursor, producers, schemas, damage
    #[command(after_help = CODES)]
    Inspect(Place),
    /// Print the records that are not forwarded, a JSON object each line. These are the payloads: mind who reads them
    #[command(after_help = CODES)]
    Export {
        /// The forwarded ones too, as far as they are there
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        place: Place,
    },
}

#[derive(Debug, Clone, Args)]
pub struct Place {
    /// A model's spool, or the folder that holds the spools
    pub dir: PathBuf,
}

/// What a look makes of the records of one spool.
trait Visitor {
    /// Whether records below the cursor are wanted.
    fn wants_forwarded(&self) -> bool;
    fn record(&mut self, record: &Record, reader: &Reader, out: &mut dyn Write) -> io::Result<()>;
    /// After the last record.
    fn end(&mut self, spool: &Spool<'_>, damage: Damage, out: &mut dyn Write) -> io::Result<()>;
}

/// One spool that is looked at.
struct Spool<'a> {
    dir: &'a Path,
    /// The last part of its path: the model.
    name: String,
    found: &'a Inspection,
}

/// What could not be read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Damage {
    spans: u64,
    bytes: u64,
}

#[derive(Debug, thiserror::Error)]
enum LookError {
    #[error(transparent)]
    Spool(#[from] SpoolError),
    #[error("{}: {source}", dir.display())]
    Dir { dir: PathBuf, source: io::Error },
    #[error("{}: no spool is there; give a model's spool, or the folder that holds the spools (spool.dir)", .0.display())]
    None(PathBuf),
    #[error("the output cannot be written: {0}")]
    Output(io::Error),
}

/// Looks, and gives the exit code.
pub fn run(look: &Look, out: &mut dyn Write, faults: &mut dyn Write) -> ExitCode {
    ExitCode::from(match look_into(look, out, faults) {
        Ok(false) => 0,
        Ok(true) => 3,
        Err(error) => {
            // Nobody is left to be told where this fails too.
            let _ = writeln!(faults, "{error}");
            1
        }
    })
}

/// True where there was damage.
fn look_into(look: &Look, out: &mut dyn Write, faults: &mut dyn Write) -> Result<bool, LookError> {
    let dir = match look {
        Look::Inspect(place) | Look::Export { place, .. } => &place.dir,
    };
    let dirs = spools(dir)?;
    if dirs.is_empty() {
        return Err(LookError::None(dir.clone()));
    }
    let mut is_damaged = false;
    let mut failed = None;
    for (dir, found) in &dirs {
        let name = dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let spool = Spool { dir, name, found };
        let mut visitor: Box<dyn Visitor> = match look {
            Look::Inspect(_) => Box::new(Report::new(&spool)),
            Look::Export { all, .. } => Box::new(Export::new(&spool, *all)),
        };
        match visit(&spool, &mut *visitor, out) {
            Ok(damage) => {
                let schemas = found.schemas.iter().filter(|schema| schema.text.is_none()).count();
                if damage != Damage::default() || found.cursor_damaged || schemas > 0 {
                    is_damaged = true;
                    let Damage { spans, bytes } = damage;
                    let cursor =
                        if found.cursor_damaged { ", and the cursor: all counts as not forwarded" } else { "" };
                    let _ = writeln!(
                        faults,
                        "{}: damaged: {spans} spans of {bytes} bytes, {schemas} schemas{cursor}",
                        dir.display()
                    );
                }
            }
            // The other spools are looked at all the same, unless nobody takes what is said.
            Err(error @ LookError::Output(_)) => return Err(error),
            Err(error) => {
                let _ = writeln!(faults, "{error}");
                failed = Some(error);
            }
        }
    }
    out.flush().map_err(LookError::Output)?;
    failed.map_or(Ok(is_damaged), Err)
}

/// The directory itself, or those in it, by name.
fn spools(dir: &Path) -> Result<Vec<(PathBuf, Inspection)>, LookError> {
    let failed = |source| LookError::Dir { dir: dir.to_path_buf(), source };
    if let Some(found) = inspect(dir)? {
        return Ok(vec![(dir.to_path_buf(), found)]);
    }
    let mut spools = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_type().map_err(failed)?.is_dir()
            && let Some(found) = inspect(&entry.path())?
        {
            spools.push((entry.path(), found));
        }
    }
    spools.sort_by(|left, right| left.0.cmp(&right.0));
    Ok(spools)
}

fn visit(spool: &Spool<'_>, visitor: &mut dyn Visitor, out: &mut dyn Write) -> Result<Damage, LookError> {
    let from = match &spool.found.cursor {
        Some(cursor) if !visitor.wants_forwarded() => cursor.sequence,
        _ => 0,
    };
    let mut reader = Reader::open(spool.dir, from)?;
    let mut is_settled = false;
    loop {
        let records = reader.read(READ_BYTES)?;
        for record in &records {
            // A segment holds some that are below the cursor.
            if record.sequence >= from {
                visitor.record(record, &reader, out).map_err(LookError::Output)?;
            }
        }
        if records.is_empty() {
            if is_settled {
                break;
            }
            // A writer that lives may be at the last block.
            std::thread::sleep(SETTLED_AFTER);
            reader.settle();
            is_settled = true;
        }
    }
    let skipped = reader.skipped();
    let damage = Damage { spans: skipped.spans, bytes: skipped.bytes };
    visitor.end(spool, damage, out).map_err(LookError::Output)?;
    Ok(damage)
}

/// A time as text.
fn time(time_ms: i64) -> String {
    let mut text = Vec::new();
    crate::forward::write_rfc3339(&mut text, time_ms);
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests;
