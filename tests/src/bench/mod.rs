//! Benchmarks as ratios: each measure compares two ways of doing one thing, taken in turns within one run, and has a
//! bar that its median must reach. So a result says something on any machine, a busy one too.
//!
//! An area is a file of this folder with an [`Area`]; [`AREAS`] lists them. `cargo run --release -p flywheel-tests
//! --bin bench -- AREA` runs one.

pub mod client;
mod cores;
pub mod forward;
pub mod joiner;
pub mod sidecar;
pub mod spool;
pub mod transcode;

use std::fmt;
use std::time::{Duration, Instant};

use serde::Serialize;

/// Every area, in the order in which `all` runs them.
pub const AREAS: &[Area] = &[
    transcode::AREA,
    sidecar::AREA,
    spool::AREA,
    forward::AREA,
    client::AREA,
    joiner::land::AREA,
    joiner::seal::AREA,
    joiner::commit::AREA,
    joiner::commit::WEEK_AREA,
    joiner::state::AREA,
];

/// A subject of measures.
pub struct Area {
    pub name: &'static str,
    /// What is measured, in a line.
    pub about: &'static str,
    pub run: fn() -> Result<Vec<Measure>, Box<dyn std::error::Error>>,
}

/// What a median must reach.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bar {
    AtLeast(f64),
    AtMost(f64),
}

impl fmt::Display for Bar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bar::AtLeast(bar) => write!(f, "≥ {bar}"),
            Bar::AtMost(bar) => write!(f, "≤ {bar}"),
        }
    }
}

/// One ratio with its bar.
#[derive(Debug, Clone, Serialize)]
pub struct Measure {
    pub name: &'static str,
    /// One per round.
    pub ratios: Vec<f64>,
    pub bar: Bar,
    /// What the two sides took, for people.
    pub note: String,
}

impl Measure {
    /// The least, the middle and the greatest ratio.
    pub fn spread(&self) -> (f64, f64, f64) {
        let mut sorted = self.ratios.clone();
        sorted.sort_by(f64::total_cmp);
        let at = |place: usize| sorted.get(place).copied().unwrap_or(f64::NAN);
        (at(0), at(sorted.len() / 2), at(sorted.len().saturating_sub(1)))
    }

    pub fn is_met(&self) -> bool {
        let (_, median, _) = self.spread();
        match self.bar {
            Bar::AtLeast(bar) => median >= bar,
            Bar::AtMost(bar) => median <= bar,
        }
    }
}

/// Rounds of a comparison; each gives one ratio.
const ROUNDS: usize = 15;
/// Samples of each side in a round. Their median stands for the side, so that a sample in which another process had
/// the core does not count.
const SAMPLES: usize = 15;
/// A sample repeats its work for at least this long: far above the clock's grain, below a scheduler's slice.
const SAMPLE_TIME: Duration = Duration::from_millis(1);

/// Runs `slow` and `fast` in turns and says how many times as long the first takes. Each call does `items` items.
pub fn compare(name: &'static str, bar: Bar, items: u32, slow: &mut dyn FnMut(), fast: &mut dyn FnMut()) -> Measure {
    let (slow_calls, fast_calls) = (calls(slow), calls(fast));
    let mut ratios = Vec::new();
    let (mut slow_ns, mut fast_ns) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (mut slow_samples, mut fast_samples) = (Vec::new(), Vec::new());
        for _ in 0..SAMPLES {
            slow_samples.push(sample(slow, slow_calls) / f64::from(items));
            fast_samples.push(sample(fast, fast_calls) / f64::from(items));
        }
        let (slow, fast) = (median(&mut slow_samples), median(&mut fast_samples));
        ratios.push(slow / fast);
        slow_ns.push(slow);
        fast_ns.push(fast);
    }
    let note = format!("{:.0} ns ÷ {:.0} ns", median(&mut slow_ns), median(&mut fast_ns));
    Measure { name, ratios, bar, note }
}

/// How many calls fill a sample.
fn calls(work: &mut dyn FnMut()) -> u32 {
    let mut calls = 1;
    loop {
        let start = Instant::now();
        (0..calls).for_each(|_| work());
        if start.elapsed() >= SAMPLE_TIME || calls >= 1 << 20 {
            return calls;
        }
        calls *= 2;
    }
}

/// Nanoseconds of one call, over `calls` of them.
fn sample(work: &mut dyn FnMut(), calls: u32) -> f64 {
    let start = Instant::now();
    (0..calls).for_each(|_| work());
    start.elapsed().as_secs_f64() * 1e9 / f64::from(calls)
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
