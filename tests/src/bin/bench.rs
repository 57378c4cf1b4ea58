//! `bench AREA [--json]`: the measures of an area beside their bars; exit code 1 where a median misses its bar.

use std::process::ExitCode;

use clap::Parser;
use flywheel_tests::bench::{AREAS, Bar, Measure, sidecar};
use serde_json::json;

/// That of the joiner.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
struct Arguments {
    /// The area to measure, or `all`.
    area: String,
    /// One JSON object per measure and line.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    if let Some(code) = sidecar::serve() {
        return code;
    }
    let arguments = Arguments::parse();
    let chosen: Vec<_> = AREAS.iter().filter(|area| arguments.area == "all" || arguments.area == area.name).collect();
    if chosen.is_empty() {
        eprintln!("no area `{}`; there are:", arguments.area);
        for area in AREAS {
            eprintln!("  {:<12} {}", area.name, area.about);
        }
        return ExitCode::from(2);
    }
    if cfg!(debug_assertions) {
        eprintln!("this is no release build: the ratios say nothing");
    }
    let mut all_met = true;
    for area in chosen {
        match (area.run)() {
            Ok(measures) => {
                for measure in &measures {
                    all_met &= measure.is_met();
                    if arguments.json { print_line(area.name, measure) } else { print_row(area.name, measure) }
                }
            }
            Err(error) => {
                eprintln!("{}: {error}", area.name);
                all_met = false;
            }
        }
    }
    if all_met { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn print_row(area: &str, measure: &Measure) {
    let (min, median, max) = measure.spread();
    let verdict = if measure.is_met() { "met" } else { "MISSED" };
    println!(
        "{area:<12} {:<28} {median:>7.2}  ({min:.2} to {max:.2}, {} rounds)  bar {}  {verdict}  {}",
        measure.name,
        measure.ratios.len(),
        measure.bar,
        measure.note,
    );
}

fn print_line(area: &str, measure: &Measure) {
    let (min, median, max) = measure.spread();
    let (direction, bar) = match measure.bar {
        Bar::AtLeast(bar) => ("at_least", bar),
        Bar::AtMost(bar) => ("at_most", bar),
    };
    let line = json!({
        "area": area, "measure": measure.name, "min": min, "median": median, "max": max,
        "rounds": measure.ratios.len(), "direction": direction, "bar": bar, "met": measure.is_met(), "note": measure.note,
    });
    println!("{line}");
}
