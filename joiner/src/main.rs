//! `flywheel-joiner`.

use std::process::ExitCode;

/// Gives back what a large commit took; the system's allocator keeps it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    flywheel_joiner::run_from_args(std::env::args_os().skip(1)).await
}
