//! What the spool brings to the disk in a second, group-committed ÷ a plain sequential write of as many bytes.
//!
//! A sample of ours appends records of 1,000 random bytes from one thread, as fast as they are taken, into a spool that accepts
//! with `fdatasync`; where the spool is full for the moment, the thread waits for the oldest records that it has not
//! seen accepted, as the clients of those would. It ends when all is on the disk. A sample of the other writes as many bytes as the spool's segments have into one new file, 1 MiB at a time from
//! random bytes in memory, with one `fdatasync` at the end, as `dd bs=1M conv=fdatasync` does. The two take turns on
//! one file system (that of TMPDIR), so that others who use it slow both.
//!
//! Beside it stands how long a caller's append takes, which waits for no disk: at that full rate, and at 5,000 records a second.

use std::collections::VecDeque;
use std::error::Error;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use flywheel_spool::{Accepted, AppendError, Options, SchemaKey, Spool};
use futures::executor::block_on;

use super::{Area, Bar, Measure, median};

pub const AREA: Area = Area {
    name: "spool",
    about: "bytes a second to the disk, records of 1,000 B: the spool with group commit ÷ dd with fdatasync",
    run,
};

const ROUNDS: usize = 15;
const RECORD_BYTES: usize = 1_000;
/// Some 200 MB: many group commits, and three segments.
const RECORDS: usize = 200_000;
/// So many share one that waits.
const CLIENT_RECORDS: usize = 250;
/// What dd is told to write at a time.
const PIECE_BYTES: usize = 1 << 20;
/// A busy model server.
const PACE: u32 = 5_000;
const PACED: Duration = Duration::from_secs(3);

fn run() -> Result<Vec<Measure>, Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let pool = random(4 * PIECE_BYTES);
    // One of each that does not count.
    let bytes = ours(&dir.path().join("warm"), &pool, &mut Vec::new())?.1;
    theirs(&dir.path().join("warm.dd"), &pool, bytes)?;
    let (mut ratios, mut our_rates, mut their_rates, mut appends) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let mut our_turn = || ours(&dir.path().join(round.to_string()), &pool, &mut appends);
        let their_turn = || theirs(&dir.path().join(format!("{round}.dd")), &pool, bytes);
        // Who comes first finds the disk as the other left it.
        let ((our_time, our_bytes), their_time) = if round % 2 == 0 {
            (our_turn()?, their_turn()?)
        } else {
            let their_time = their_turn()?;
            (our_turn()?, their_time)
        };
        let our_rate = our_bytes as f64 / our_time.as_secs_f64();
        let their_rate = bytes as f64 / their_time.as_secs_f64();
        ratios.push(our_rate / their_rate);
        our_rates.push(our_rate / 1e6);
        their_rates.push(their_rate / 1e6);
    }
    let mut paced = paced(&dir.path().join("paced"), &pool)?;
    let note = format!(
        "{:.0} MB/s ÷ {:.0} MB/s; append p99 {:.1} µs (p999 {:.1}) at full rate, {:.1} µs (p999 {:.1}) at {PACE}/s",
        median(&mut our_rates),
        median(&mut their_rates),
        quantile(&mut appends, 0.99),
        quantile(&mut appends, 0.999),
        quantile(&mut paced, 0.99),
        quantile(&mut paced, 0.999),
    );
    Ok(vec![Measure { name: "group commit", ratios, bar: Bar::AtLeast(0.6), note }])
}

fn options() -> Options {
    Options { max_bytes: 4 << 30, accepted: Accepted::Disk, ..Options::default() }
}

/// The time until all is on the disk, and the bytes that are there. `appends` takes the µs of each append that was taken.
fn ours(dir: &Path, pool: &[u8], appends: &mut Vec<f64>) -> Result<(Duration, u64), Box<dyn Error>> {
    let spool = Spool::open(dir, options())?;
    let start = Instant::now();
    let mut waiting = VecDeque::new();
    for number in 0..RECORDS {
        let at = number * RECORD_BYTES % (pool.len() - RECORD_BYTES);
        loop {
            let before = Instant::now();
            match spool.append(SchemaKey::NONE, |_, out| out.extend_from_slice(&pool[at..at + RECORD_BYTES])) {
                Ok(pending) => {
                    appends.push(before.elapsed().as_secs_f64() * 1e6);
                    if number % CLIENT_RECORDS == 0 {
                        waiting.push_back(pending);
                    }
                    break;
                }
                Err(AppendError::Full) => match waiting.pop_front() {
                    Some(pending) => drop(block_on(pending)?),
                    None => std::thread::yield_now(),
                },
                Err(error) => return Err(error.into()),
            }
        }
    }
    block_on(spool.sync())?;
    let time = start.elapsed();
    let bytes = spool.usage().bytes;
    spool.close()?;
    std::fs::remove_dir_all(dir)?;
    Ok((time, bytes))
}

fn theirs(path: &Path, pool: &[u8], bytes: u64) -> Result<Duration, Box<dyn Error>> {
    let start = Instant::now();
    let mut file = File::create(path)?;
    let mut left = bytes;
    for piece in pool.chunks(PIECE_BYTES).cycle() {
        if left == 0 {
            break;
        }
        let length = usize::try_from(left)?.min(piece.len());
        file.write_all(&piece[..length])?;
        left -= length as u64;
    }
    file.sync_data()?;
    let time = start.elapsed();
    std::fs::remove_file(path)?;
    Ok(time)
}

/// The µs of each append at [`PACE`].
fn paced(dir: &Path, pool: &[u8]) -> Result<Vec<f64>, Box<dyn Error>> {
    let spool = Spool::open(dir, Options { accepted: Accepted::Kernel, ..options() })?;
    let mut appends = Vec::new();
    let start = Instant::now();
    let mut due = Duration::ZERO;
    while due < PACED {
        if let Some(early) = due.checked_sub(start.elapsed()) {
            std::thread::sleep(early);
        }
        let before = Instant::now();
        let pending = spool.append(SchemaKey::NONE, |_, out| out.extend_from_slice(&pool[..RECORD_BYTES]))?;
        appends.push(before.elapsed().as_secs_f64() * 1e6);
        drop(pending);
        due += Duration::from_secs(1) / PACE;
    }
    spool.close()?;
    Ok(appends)
}

fn quantile(values: &mut [f64], part: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(((values.len() as f64) * part) as usize).copied().unwrap_or(f64::NAN)
}

/// Bytes that no compression shortens, the same each time.
fn random(length: usize) -> Vec<u8> {
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(&mut next).flatten().take(length).collect()
}
