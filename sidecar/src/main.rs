//! `flywheel-sidecar`: see the library.

use std::process::ExitCode;
use std::time::Duration;

/// It shares a pod with the model server, and one core takes tens of thousands of requests a second.
const THREADS: usize = 2;

/// What still blocks a thread when all is done, such as a question to a broker that is away, is not waited for.
const END_WITHIN: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(THREADS).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(flywheel_sidecar::run_from_args(std::env::args_os().skip(1)));
    runtime.shutdown_timeout(END_WITHIN);
    code
}
