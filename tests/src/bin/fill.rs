//! Fills the topics of a model for `tests/peers/joiner.sh`; what it made it prints as one JSON line.
//!
//! ```text
//! fill rows BROKERS PREFIX DIR PARTITIONS PREDICTIONS    topics, schemas into DIR, predictions and outcomes
//! fill end  BROKERS PREFIX DIR PARTITIONS PREDICTIONS    what moves time on by an hour
//! fill live BROKERS PREFIX DIR PARTITIONS SECONDS        topics, schemas, and 200 predictions a second with an outcome each
//! fill topic BROKERS TOPIC                               an empty topic of one partition
//! ```

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match flywheel_tests::bench::joiner::fill::run(&arguments) {
        Ok(said) => {
            println!("{said}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("fill: {error}");
            ExitCode::FAILURE
        }
    }
}
