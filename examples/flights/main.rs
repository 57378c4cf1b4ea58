//! `flights`: the whole loop on real flights, one command. See the library beside it.

use std::process::ExitCode;

fn main() -> ExitCode {
    flywheel_examples::main()
}
