//! Whole-system tests. Those on real servers share one set of them (`flywheel_tests::servers::shared`); the
//! demonstration runs as a process, its input being the first days of the quarter unless `FLYWHEEL_TEST_DAYS` says
//! more (90 for all).

mod alarms;
mod bad_input;
mod bits;
mod chaos;
mod client;
mod commands;
mod completeness;
mod gate;
mod faults;
mod joiner;
mod joiners;
mod journey;
mod kafka;
mod log;
mod privacy;
mod registry;
mod servers;
mod tables;
mod tidy;
mod trouble;
mod views;

/// The demonstration's binary.
const DEMONSTRATION: &str = env!("CARGO_BIN_EXE_demonstration");

/// The options that every run has.
fn options(data_dir: &std::path::Path, flights: &std::path::Path) -> Vec<String> {
    let (data_dir, flights) = (data_dir.display().to_string(), flights.display().to_string());
    ["--data-dir", &data_dir, "--flights", &flights].map(str::to_owned).to_vec()
}
