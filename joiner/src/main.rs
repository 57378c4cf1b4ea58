//! `flywheel-joiner`.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    flywheel_joiner::run_from_args(std::env::args_os().skip(1)).await
}
