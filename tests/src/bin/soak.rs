//! `soak [MINUTES]`: 20 unless said otherwise; exit code 1 where something is missing or grows.

use std::process::ExitCode;
use std::time::Duration;

use flywheel_tests::soak::{self, Report};

/// How much more memory the last life may have needed than the second: the first has the calibration in it.
const GROWTH: f64 = 1.25;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let first = arguments.next();
    if first.as_deref() == Some(soak::SERVE) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        return runtime
            .map_or(ExitCode::FAILURE, |runtime| runtime.block_on(flywheel_sidecar::run_from_args(arguments)));
    }
    let minutes = first.map_or(Ok(20), |text| text.parse::<u64>());
    let Ok(minutes) = minutes else {
        eprintln!("soak [MINUTES]");
        return ExitCode::from(2);
    };
    match soak::run(Duration::from_secs(minutes * 60)) {
        Ok(report) => print(&report),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn print(report: &Report) -> ExitCode {
    let Report { rate_max, rate, accepted, put_off, unanswered, messages, missing, foreign, conflicting, lives } =
        report;
    println!("{rate:.0} predictions a second, half of {rate_max:.0}");
    println!("{accepted} accepted; {put_off} put off with 503, {unanswered} repeated for want of an answer");
    println!("{messages} in the topic: {missing} missing, {foreign} never sent, {conflicting} copies unlike the first");
    for (number, (resident, files)) in lives.iter().enumerate() {
        println!("life {number:>2}: {resident:5.1} MiB resident and {files} files open at the most");
    }
    let (second, last) = (lives.get(1), lives.last());
    let is_flat = second.zip(last).is_some_and(|(second, last)| last.0 <= second.0 * GROWTH && last.1 <= second.1 + 2);
    let is_whole = *missing == 0 && *foreign == 0 && *conflicting == 0 && *accepted > 0;
    println!("{}, {}", if is_whole { "whole" } else { "NOT WHOLE" }, if is_flat { "flat" } else { "GROWING" });
    if is_whole && is_flat { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
