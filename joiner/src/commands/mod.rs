//! The commands of `flywheel-joiner`.

pub(crate) mod adopt;
mod body;
mod dead_letter;
mod get;
mod import;
mod rebuild_index;
mod release;
mod rows;
pub mod run;
mod sidecar;
pub mod sql;
pub mod status;
pub mod wait;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::Config;

/// Attaches outcomes to predictions and writes the tables that models are trained from.
#[derive(Parser)]
#[command(name = "flywheel-joiner", version)]
struct Arguments {
    /// Settings that override the defaults
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print the settings in force and end
    #[arg(long, global = true)]
    print_config: bool,
    #[command(subcommand)]
    command: Option<Verb>,
}

#[derive(Subcommand)]
enum Verb {
    /// Land and seal until stopped (what happens without a command too)
    Run,
    /// How far each table of each model has come
    Status(status::Arguments),
    /// Wait until a model's training table is complete through an instant
    Wait(wait::Arguments),
    /// Print the text of a view for an engine
    Sql(sql::Arguments),
    /// All that the tables hold about one prediction
    Get(get::Arguments),
    /// What could not be accepted or landed, and why; and another try at it
    #[command(subcommand)]
    DeadLetter(dead_letter::Arguments),
    /// Let ticks be open although a label source seems dead
    Release(release::Arguments),
    /// Labels from a warehouse, posted to a sidecar as ordinary outcomes
    #[command(subcommand)]
    Import(import::Arguments),
    /// Let a model's tables go on from topics that are not those they were filled from
    Adopt(adopt::Arguments),
    /// Delete a model's outcome index, which the next start builds anew; the joiner must not run
    RebuildIndex(rebuild_index::Arguments),
}

/// Runs the program with these arguments, its name left out.
pub async fn run_from_args(arguments: impl IntoIterator<Item = std::ffi::OsString>) -> ExitCode {
    let name = std::iter::once(std::ffi::OsString::from("flywheel-joiner"));
    let arguments = match Arguments::try_parse_from(name.chain(arguments)) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are no failures, and go to standard output; clap knows which is which.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let config = match Config::load(arguments.config.as_deref()) {
        Ok(config) => config,
        Err(faults) => {
            for fault in &faults.0 {
                eprintln!("flywheel-joiner: {fault}");
            }
            return ExitCode::from(2);
        }
    };
    if arguments.print_config {
        return print_config(&config);
    }
    let result = match arguments.command {
        None | Some(Verb::Run) => run::run(config).await,
        Some(Verb::Status(arguments)) => status::run(config, arguments).await,
        Some(Verb::Wait(arguments)) => wait::run(config, arguments).await,
        Some(Verb::Sql(arguments)) => sql::run(config, arguments).await,
        Some(Verb::Get(arguments)) => get::run(config, arguments).await,
        Some(Verb::DeadLetter(arguments)) => dead_letter::run(config, arguments).await,
        Some(Verb::Release(arguments)) => release::run(config, arguments).await,
        Some(Verb::Import(arguments)) => import::run(config, arguments).await,
        Some(Verb::Adopt(arguments)) => adopt::run(config, arguments).await,
        Some(Verb::RebuildIndex(arguments)) => rebuild_index::run(config, arguments).await,
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("flywheel-joiner: {error}");
            ExitCode::FAILURE
        }
    }
}

fn print_config(config: &Config) -> ExitCode {
    match toml::to_string_pretty(config) {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("flywheel-joiner: {error}");
            ExitCode::FAILURE
        }
    }
}
