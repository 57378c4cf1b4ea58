//! `flywheel-sidecar`: see the library.

use std::process::ExitCode;

// Two threads: it shares a pod with the model server, and one core takes tens of thousands of requests a second.
#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    flywheel_sidecar::run_from_args(std::env::args_os().skip(1)).await
}
