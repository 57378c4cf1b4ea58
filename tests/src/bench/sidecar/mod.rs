//! Intake over HTTP: the sidecar beside the same axum server with an empty handler (`server`), under a load that never
//! sleeps (`load`).
//!
//! - Requests a second on one core, over 64 kept connections with a request on its way on each: predictions of 100
//!   features, about 3.2 kB of JSON.
//! - Predictions a second as NDJSON of 100 to a request ÷ one to a request, over 4 connections.
//! - The time in which 99 of 100 requests are answered at 2,000 a second, counted from when each was due, so that what
//!   waited behind a slow one counts too. The sides take turns of a second, first one and then the other first: what a
//!   machine does at regular intervals would else fall into the turns of one side for many rounds.
//! - The resident memory of the process (`memory`) at 20,000 requests a second with the broker away.
//!
//! Servers are bound to core 0 and the load to core 1. What is compared takes turns, so that a busy machine slows both.
//! Nothing is forwarded meanwhile (the broker's address leads nowhere): what is measured is intake, to the spool.

mod load;
mod memory;
mod server;

pub use memory::serve;

use std::error::Error;
use std::time::Duration;

use self::load::{Connection, closed_loop, connect, open_loop, quantile, request};
use self::server::{Server, config};
use super::cores::bind_this_thread;
use super::transcode::body;
use super::{Area, Bar, Measure, median};

pub const AREA: Area = Area {
    name: "sidecar",
    about: "requests a second, time to answer and memory: the sidecar ÷ an empty handler",
    run,
};

const PATH: &str = "/v1/models/bench/predictions";
/// Far more than the rounds fill.
const SPOOL_BYTES: u64 = 64 << 30;
const ROUNDS: usize = 15;
/// Some ten thousand requests.
const SAMPLE_TIME: Duration = Duration::from_millis(300);
/// A sample of each side that does not count.
const WARM_UP: Duration = Duration::from_millis(500);
/// Predictions of a batch.
const BATCH: usize = 100;
const BATCH_CONNECTIONS: usize = 4;
/// Of the open loop, requests a second.
const STEADY_RATE: f64 = 2_000.0;
const STEADY_CONNECTIONS: usize = 16;
/// Of one side in a round: long enough that the 99th of 100 is not what the machine does once a second.
const STEADY_TIME: Duration = Duration::from_secs(1);
const STEADY_ROUNDS: usize = 31;

fn run() -> Result<Vec<Measure>, Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let (ours, empty) = (Server::ours(config(dir.path(), SPOOL_BYTES)?)?, Server::empty()?);
    bind_this_thread(1)?;
    let one = request(PATH, "application/json", &body(1, false));
    let mut measures = vec![rate(&ours, &empty, &one)?];
    measures.push(batches(&ours, &one)?);
    measures.push(tail(&ours, &empty, &one)?);
    ours.stop()?;
    empty.stop()?;
    measures.extend(memory::measures(&one)?);
    Ok(measures)
}

fn rate(ours: &Server, empty: &Server, one: &[u8]) -> Result<Measure, Box<dyn Error>> {
    let mut ours = connect(ours.address, one, 64)?;
    let mut empty = connect(empty.address, one, 64)?;
    let (ratios, our_rate, empty_rate) = in_turns(
        &mut ours,
        &mut empty,
        |connections| closed_loop(connections, WARM_UP),
        |connections| closed_loop(connections, SAMPLE_TIME),
    )?;
    let note = format!("{our_rate:.0}/s ÷ {empty_rate:.0}/s; {} B a request", one.len());
    Ok(Measure { name: "requests a second", ratios, bar: Bar::AtLeast(0.5), note })
}

fn batches(ours: &Server, one: &[u8]) -> Result<Measure, Box<dyn Error>> {
    // Each of its own: a batch with one id a hundred times is no batch that anybody sends.
    let rows: Vec<String> = (0..BATCH as u64).map(|number| without_id(&body(number, false))).collect();
    let batch = request(PATH, "application/x-ndjson", &rows.join("\n"));
    let mut batched = connect(ours.address, &batch, BATCH_CONNECTIONS)?;
    let mut single = connect(ours.address, one, 64)?;
    let (ratios, batches, singles) = in_turns(
        &mut batched,
        &mut single,
        |connections| closed_loop(connections, WARM_UP),
        |connections| closed_loop(connections, SAMPLE_TIME),
    )?;
    let ratios = ratios.into_iter().map(|ratio| ratio * BATCH as f64).collect();
    // One batch at a time.
    let mut taken = Vec::new();
    for _ in 0..2_000 {
        let begun = std::time::Instant::now();
        batched[0].begin(begun)?;
        batched[0].finish()?;
        taken.push(begun.elapsed());
    }
    let (half, most) = (quantile(&mut taken, 0.5), quantile(&mut taken, 0.99));
    let note = format!(
        "{:.0}/s ÷ {singles:.0}/s; one batch at a time: p50 {half:.0} µs, p99 {most:.0} µs",
        batches * BATCH as f64
    );
    Ok(Measure { name: "predictions a second, NDJSON", ratios, bar: Bar::AtLeast(2.0), note })
}

fn tail(ours: &Server, empty: &Server, one: &[u8]) -> Result<Measure, Box<dyn Error>> {
    let mut ours = connect(ours.address, one, STEADY_CONNECTIONS)?;
    let mut empty = connect(empty.address, one, STEADY_CONNECTIONS)?;
    let mut turn = |is_ours: bool| -> Result<f64, Box<dyn Error>> {
        let mut taken = Vec::with_capacity(STEADY_RATE as usize);
        open_loop(if is_ours { &mut ours } else { &mut empty }, STEADY_RATE, STEADY_TIME, |connection| {
            taken.push(connection.due.elapsed());
            connection.check()
        })?;
        Ok(quantile(&mut taken, 0.99))
    };
    let (mut ratios, mut our_times, mut empty_times) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=STEADY_ROUNDS {
        let ours_first = round % 2 == 0;
        let (first, second) = (turn(ours_first)?, turn(!ours_first)?);
        let (our_time, empty_time) = if ours_first { (first, second) } else { (second, first) };
        // The first is the warm-up.
        if round == 0 {
            continue;
        }
        ratios.push(our_time / empty_time);
        our_times.push(our_time);
        empty_times.push(empty_time);
    }
    let note = format!("{:.0} µs ÷ {:.0} µs", median(&mut our_times), median(&mut empty_times));
    Ok(Measure { name: "p99 at 2,000 requests a second", ratios, bar: Bar::AtMost(1.5), note })
}

type Sides = (Vec<f64>, f64, f64);

/// Ratios of the rates of two sides that take turns, and the median rate of each.
fn in_turns<'a>(
    left: &mut [Connection<'a>],
    right: &mut [Connection<'a>],
    warm_up: impl Fn(&mut [Connection<'a>]) -> Result<f64, Box<dyn Error>>,
    sample: impl Fn(&mut [Connection<'a>]) -> Result<f64, Box<dyn Error>>,
) -> Result<Sides, Box<dyn Error>> {
    warm_up(left)?;
    warm_up(right)?;
    let (mut ratios, mut left_rates, mut right_rates) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (left_rate, right_rate) = (sample(left)?, sample(right)?);
        ratios.push(left_rate / right_rate);
        left_rates.push(left_rate);
        right_rates.push(right_rate);
    }
    Ok((ratios, median(&mut left_rates), median(&mut right_rates)))
}

/// The same row without the id that it brings: the sidecar mints one.
fn without_id(row: &str) -> String {
    let end = row.find(",\"event_time\"").unwrap_or(0);
    format!("{{{}", &row[end + 1..])
}
