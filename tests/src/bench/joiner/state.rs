//! What the joiner holds: resident memory with a million open predictions and ten million outcomes, and how soon a
//! joiner that is started anew over that index makes its first commit.
//!
//! The records are made in blocks and not kept, so that what this process holds is what the joiner holds. Memory is
//! the most that was ever resident (`VmHWM`), through landing, the restart and the tick that seals all million at
//! once.

use std::error::Error;
use std::time::Instant;

use flywheel_joiner::Steps;
use flywheel_schemas::wire::Kind;
use flywheel_sidecar::transcode::Scratch;

use super::{MINUTE_MS, MODEL, PARTITIONS, Places, START_MS, Stand, config, fill_log};
use crate::bench::{Area, Bar, Measure};

pub const AREA: Area = Area {
    name: "state",
    about: "resident memory at 1 M open predictions and 10 M outcomes; a restart over them, to the first commit",
    run,
};

const PREDICTIONS: u64 = 1_000_000;
/// Each of another event, so that all are kept.
const OUTCOMES_EACH: u64 = 10;
/// Predictions whose records are made at a time.
const BLOCK: u64 = 2_000;
/// All predictions lie in one span of the grid.
const SPREAD_MS: i64 = 4 * MINUTE_MS;
/// All are sealed at one tick before it.
const END_MS: i64 = 90 * MINUTE_MS;
const TICK_MS: i64 = 4 * MINUTE_MS;

fn run() -> Result<Vec<Measure>, Box<dyn Error>> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(measure())
}

async fn measure() -> Result<Vec<Measure>, Box<dyn Error>> {
    let Stand { dir, mut joiner, writer } = Stand::open().await?;
    let (mut places, mut scratch) = (Places::default(), Scratch::default());
    for block in 0..PREDICTIONS / BLOCK {
        let mut records = Vec::new();
        for number in block * BLOCK..(block + 1) * BLOCK {
            let event_ms = START_MS + number as i64 * SPREAD_MS / PREDICTIONS as i64;
            let (id, value) = writer.prediction(&mut scratch, number, event_ms)?;
            records.push(places.record(Kind::Predictions, &id, value, event_ms));
            for _ in 0..OUTCOMES_EACH {
                let value = writer.outcome(&mut scratch, &id, number % 2 == 0, event_ms)?;
                records.push(places.record(Kind::Outcomes, &id, value, event_ms));
            }
        }
        joiner.take(records).await?;
    }
    joiner.commit().await?;
    let landed_mb = most_resident_mb()?;

    drop(joiner);
    fill_log(dir.path(), &places).await?;
    let start = Instant::now();
    let mut joiner = Steps::open(config(dir.path()), MODEL, PARTITIONS).await?;
    let opened_s = start.elapsed().as_secs_f64();
    joiner.take(places.ticks(START_MS + SPREAD_MS)).await?;
    joiner.commit().await?;
    let restart_s = start.elapsed().as_secs_f64();

    for time_ms in (START_MS + SPREAD_MS..START_MS + END_MS).step_by(TICK_MS as usize) {
        joiner.take(places.ticks(time_ms)).await?;
    }
    joiner.commit().await?;
    let start = Instant::now();
    if !joiner.seal().await? {
        return Err("no tick was due".into());
    }
    let seal_s = start.elapsed().as_secs_f64();
    let sealed_mb = most_resident_mb()?;
    joiner.follow().await?;
    let note = format!("{landed_mb:.0} MB after landing, {sealed_mb:.0} MB after the seal, which took {seal_s:.1} s");
    Ok(vec![
        Measure { name: "resident, MB", ratios: vec![most_resident_mb()?], bar: Bar::AtMost(512.0), note },
        Measure {
            name: "restart to commit, s",
            ratios: vec![restart_s],
            bar: Bar::AtMost(60.0),
            note: format!("of which {opened_s:.2} s to open"),
        },
    ])
}

fn most_resident_mb() -> Result<f64, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM in /proc/self/status")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib / 1024.0)
}
