//! `flywheel-schemas` under a name that the tests of this package can find (`CARGO_BIN_EXE_schemas`).

use std::process::ExitCode;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    flywheel_schemas::cli::main().await
}
