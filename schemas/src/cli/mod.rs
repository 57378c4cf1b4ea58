//! The command line of `flywheel-schemas`.
//!
//! Results go to standard output, faults to standard error. Exit codes: 0 all is well, 1 a contract or a change is
//! refused, 2 something could not be read or reached.

mod register;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

use crate::contract::Contract;
use crate::evolution;
use crate::show;

pub use register::RegisterArguments;

/// Contracts: check them, compare them, show what follows from them, register them.
#[derive(Parser)]
#[command(name = "flywheel-schemas", version)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,
}

/// Does what the arguments of this process say.
pub async fn main() -> ExitCode {
    Arguments::parse().command.run(&mut io::stdout().lock()).await
}

#[derive(Subcommand)]
pub enum Command {
    /// Check contract files and tell every fault, with its line
    Check {
        /// Contract files (YAML)
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Tell what changed between two versions, and whether it may
    Diff { old: PathBuf, new: PathBuf },
    /// Print what follows from a contract
    Show { what: What, file: PathBuf },
    /// Register the schemas of contracts and set up their topics
    Register(Box<RegisterArguments>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum What {
    /// Both Avro schemas
    Avro,
    /// The tables as Iceberg schemas
    Iceberg,
    /// OpenAPI 3.1 of the sidecar's endpoints
    Openapi,
    /// Markdown
    Docs,
}

/// Why a command ended.
#[derive(Debug)]
enum Failure {
    /// A contract or a change is refused; told already.
    Refused,
    /// Something could not be read, written or reached.
    Trouble(String),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::Trouble(error.to_string())
    }
}

impl Command {
    /// Runs the command; `out` gets the results.
    pub async fn run(&self, out: &mut impl Write) -> ExitCode {
        let done = match self {
            Command::Check { files } => check(files, out),
            Command::Diff { old, new } => diff(old, new, out),
            Command::Show { what, file } => print(*what, file, out),
            Command::Register(arguments) => register::run(arguments, out).await,
        };
        match done {
            Ok(()) => ExitCode::SUCCESS,
            Err(Failure::Refused) => ExitCode::from(1),
            Err(Failure::Trouble(message)) => {
                eprintln!("error: {message}");
                ExitCode::from(2)
            }
        }
    }
}

fn check(files: &[PathBuf], out: &mut impl Write) -> Result<(), Failure> {
    let mut refused = false;
    for file in files {
        match load(file) {
            Ok(contract) => {
                writeln!(out, "{}: {} version {} is valid", file.display(), contract.model, contract.version)?
            }
            Err(Failure::Refused) => refused = true,
            Err(trouble) => return Err(trouble),
        }
    }
    if refused { Err(Failure::Refused) } else { Ok(()) }
}

fn diff(old: &Path, new: &Path, out: &mut impl Write) -> Result<(), Failure> {
    let changes = match (load(old), load(new)) {
        (Ok(old), Ok(new)) => evolution::diff(&old, &new),
        (Err(failure), _) | (_, Err(failure)) => return Err(failure),
    };
    if changes.is_empty() {
        writeln!(out, "no change")?;
    }
    for change in &changes {
        writeln!(out, "{change}")?;
    }
    if changes.iter().all(evolution::Change::is_compatible) { Ok(()) } else { Err(Failure::Refused) }
}

fn print(what: What, file: &Path, out: &mut impl Write) -> Result<(), Failure> {
    let contract = load(file)?;
    let value = match what {
        What::Avro => show::avro(&contract),
        What::Iceberg => show::iceberg(&contract),
        What::Openapi => show::openapi([&contract]),
        What::Docs => return Ok(write!(out, "{}", show::docs(&contract))?),
    };
    Ok(writeln!(out, "{value:#}")?)
}

/// Reads a contract; faults and warnings go to standard error.
fn load(file: &Path) -> Result<Contract, Failure> {
    let text =
        std::fs::read_to_string(file).map_err(|error| Failure::Trouble(format!("{}: {error}", file.display())))?;
    let checked = Contract::check(&text);
    for warning in &checked.warnings {
        eprintln!("{}: warning: {warning}", file.display());
    }
    checked.result.map_err(|faults| {
        for fault in &faults {
            eprintln!("{}: {fault}", file.display());
        }
        Failure::Refused
    })
}

#[cfg(test)]
mod tests;
