//! Sealing: landed predictions and outcomes → committed rows of the training table ÷ DuckDB's join to a Parquet file.
//!
//! Both sides have one core, and read the same Parquet files: those of the raw tables. Ours is the tick with all that
//! belongs to it: the choice of the first copies and of those that are due, the outcomes from the index, the label
//! function, the rows by day, the commit. DuckDB does the plain thing, `COPY (predictions LEFT JOIN outcomes in their
//! window) TO` one ZSTD file, and looks for no copies, replacements or retracts, since it is told that there are
//! none. In each round a fifth of the predictions have an outcome; the labels of both results are counted and must be
//! the same.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Instant;

use flywheel_schemas::wire::Kind;
use flywheel_sidecar::transcode::Scratch;

use super::{MINUTE_MS, Places, START_MS, Stand};
use crate::bench::cores::bind_this_thread;
use crate::bench::transcode::Random;
use crate::bench::{Area, Bar, Measure, median};
use crate::readers::{Duckdb, Python, duckdb_sql};

pub const AREA: Area = Area {
    name: "seal",
    about: "landed to sealed rows, 30 columns: the joiner ÷ DuckDB's join and ZSTD Parquet, rows a second",
    run,
};

const ROUNDS: usize = 9;
const WARM_UP: usize = 1;
const ROWS: u64 = 200_000;
/// Predictions of a round lie within it; the last of them is sealed 70 minutes later.
const SPREAD_MS: i64 = 10 * MINUTE_MS;
/// From round to round.
const ROUND_MS: i64 = 120 * MINUTE_MS;
/// Shorter than the silence that would bar ticks.
const TICK_MS: i64 = 4 * MINUTE_MS;

fn run() -> Result<Vec<Measure>, Box<dyn Error>> {
    // Before any thread or process is made: they take the binding of the one that starts them.
    bind_this_thread(1)?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(measure())
}

async fn measure() -> Result<Vec<Measure>, Box<dyn Error>> {
    let mut stand = Stand::open().await?;
    let duckdb = Python::files(stand.dir.path()).duckdb()?;
    for setting in ["SET threads = 1", "SET preserve_insertion_order = false"] {
        duckdb_sql(&duckdb, setting)?;
    }
    let mut places = Places::default();
    let (mut ratios, mut our_rates, mut duckdb_rates) = (Vec::new(), Vec::new(), Vec::new());
    let mut known = [stand.files("bench_predictions")?, stand.files("bench_outcomes")?, stand.files("bench_training")?];
    let mut fresh = |stand: &Stand, place: usize, table: &str| -> Result<Vec<PathBuf>, Box<dyn Error>> {
        let all = stand.files(table)?;
        let fresh = all.iter().filter(|file| !known[place].contains(file)).cloned().collect();
        known[place] = all;
        Ok(fresh)
    };
    for round in 0..WARM_UP + ROUNDS {
        let start_ms = START_MS + round as i64 * ROUND_MS;
        fill(&mut stand, &mut places, round as u64, start_ms).await?;
        let (predictions, outcomes) = (fresh(&stand, 0, "bench_predictions")?, fresh(&stand, 1, "bench_outcomes")?);
        let joined = stand.dir.path().join("joined.parquet");
        let query = join(&predictions, &outcomes, &joined);
        let by_duckdb = || -> Result<f64, Box<dyn Error>> {
            let start = Instant::now();
            duckdb_sql(&duckdb, &query)?;
            Ok(ROWS as f64 / start.elapsed().as_secs_f64())
        };
        let (our_rate, duckdb_rate);
        if round % 2 == 0 {
            our_rate = seal(&mut stand).await?;
            duckdb_rate = by_duckdb()?;
        } else {
            duckdb_rate = by_duckdb()?;
            our_rate = seal(&mut stand).await?;
        }
        stand.joiner.follow().await?;
        compare(&duckdb, &fresh(&stand, 2, "bench_training")?, &joined)?;
        if round >= WARM_UP {
            ratios.push(our_rate / duckdb_rate);
            our_rates.push(our_rate);
            duckdb_rates.push(duckdb_rate);
        }
    }
    let note = format!("{:.0}/s ÷ {:.0}/s", median(&mut our_rates), median(&mut duckdb_rates));
    Ok(vec![Measure { name: "rows sealed a second", ratios, bar: Bar::AtLeast(0.5), note }])
}

/// Lands the predictions and outcomes of a round, and the ticks by which they are due.
async fn fill(stand: &mut Stand, places: &mut Places, round: u64, start_ms: i64) -> Result<(), Box<dyn Error>> {
    let mut scratch = Scratch::default();
    let mut random = Random(round);
    let mut records = Vec::new();
    for number in 0..ROWS {
        let event_ms = start_ms + number as i64 * SPREAD_MS / ROWS as i64;
        let (id, value) = stand.writer.prediction(&mut scratch, round * ROWS + number, event_ms)?;
        if random.next().is_multiple_of(5) {
            let outcome_ms = event_ms + MINUTE_MS + (random.next() % 1_800_000) as i64;
            let outcome = stand.writer.outcome(&mut scratch, &id, random.next() & 1 == 0, outcome_ms)?;
            records.push((outcome_ms, Some((Kind::Outcomes, id.clone(), outcome))));
        }
        records.push((event_ms, Some((Kind::Predictions, id, value))));
    }
    for time_ms in (start_ms..start_ms + ROUND_MS).step_by(TICK_MS as usize) {
        records.push((time_ms, None));
    }
    records.sort_by_key(|(time_ms, _)| *time_ms);
    let mut placed = Vec::new();
    for (time_ms, record) in records {
        match record {
            Some((kind, id, value)) => placed.push(places.record(kind, &id, value, time_ms)),
            None => placed.extend(places.ticks(time_ms)),
        }
    }
    stand.joiner.take(placed).await?;
    Ok(stand.joiner.commit().await?)
}

/// Rows a second.
async fn seal(stand: &mut Stand) -> Result<f64, Box<dyn Error>> {
    let start = Instant::now();
    if !stand.joiner.seal().await? {
        return Err("no tick was due".into());
    }
    Ok(ROWS as f64 / start.elapsed().as_secs_f64())
}

fn list(files: &[PathBuf]) -> String {
    let files: Vec<String> = files.iter().map(|file| format!("'{}'", file.display())).collect();
    format!("[{}]", files.join(", "))
}

/// The join as one would write it by hand, with the columns that the training table has.
fn join(predictions: &[PathBuf], outcomes: &[PathBuf], file: &Path) -> String {
    format!(
        "COPY (
            SELECT p.*, to_timestamp(ceil((epoch(p.event_time) + 4200) / 300) * 300) AS as_of,
                coalesce(o.label_good, false) AS label_good,
                CASE WHEN o.label_good IS NULL THEN 'default' ELSE 'observed' END AS label_good_status,
                o.event_time AS label_good_at, o.ingest_time AS label_good_known_at
            FROM read_parquet({}, hive_partitioning = false) p
                LEFT JOIN read_parquet({}, hive_partitioning = false) o ON o.prediction_id = p.prediction_id
                AND o.event_time >= p.event_time - INTERVAL 5 MINUTE AND o.event_time < p.event_time + INTERVAL 1 HOUR
        ) TO '{}' (FORMAT parquet, COMPRESSION zstd)",
        list(predictions),
        list(outcomes),
        file.display()
    )
}

/// Both results must have the same rows by label and status.
fn compare(duckdb: &Duckdb, ours: &[PathBuf], theirs: &Path) -> Result<(), Box<dyn Error>> {
    let counts = |files: &str| {
        format!(
            "SELECT count(*), count(DISTINCT prediction_id), count(*) FILTER (label_good),
                sum(epoch_ms(as_of))::VARCHAR, count(*) FILTER (label_good_status = 'observed'), sum(epoch_us(label_good_at))::VARCHAR
            FROM read_parquet({files}, hive_partitioning = false)"
        )
    };
    let ours = duckdb_sql(duckdb, &counts(&list(ours)))?;
    let theirs = duckdb_sql(duckdb, &counts(&format!("'{}'", theirs.display())))?;
    if ours == theirs && ours[0][0] == ROWS {
        Ok(())
    } else {
        Err(format!("the results differ: {ours:?} and {theirs:?}").into())
    }
}
