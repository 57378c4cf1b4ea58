//! The demonstration under a name that the tests of this package can find (`CARGO_BIN_EXE_demonstration`).

use std::process::ExitCode;

fn main() -> ExitCode {
    flywheel_examples::main()
}
