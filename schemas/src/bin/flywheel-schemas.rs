//! Contracts on the command line and in CI: check, compare, show, register.

use std::process::ExitCode;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    flywheel_schemas::cli::main().await
}
