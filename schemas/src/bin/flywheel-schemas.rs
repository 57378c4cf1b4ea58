//! Contracts on the command line and in CI: check, compare, show, register.

use std::process::ExitCode;

use clap::Parser;
use flywheel_schemas::cli::Command;

/// Contracts: check them, compare them, show what follows from them, register them.
#[derive(Parser)]
#[command(name = "flywheel-schemas", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    arguments.command.run(&mut std::io::stdout().lock()).await
}
