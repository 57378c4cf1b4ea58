//! Landing: framed records in memory → rows of a committed snapshot ÷ the plain way to a Parquet file.
//!
//! Both sides have one core and one thread, and write the same columns with the same compression in row groups of the
//! same number of rows; that they do is checked in the warm-up. Ours begins with the joiner's records and ends when the
//! SQLite catalog has the commit: framing, decoding, checks of ids, times and partitions, the split by day, the
//! statistics of the files, manifests and metadata are in it. The other side ([`plain`](super::plain)) begins with the
//! same records and ends with the closed file. The sides take turns, the first one by turns too.

use std::error::Error;
use std::time::Instant;

use flywheel_joiner::source::Record;
use flywheel_schemas::wire::Kind;
use flywheel_sidecar::transcode::Scratch;

use super::{MINUTE_MS, Places, START_MS, Stand, plain};
use crate::bench::cores::bind_this_thread;
use crate::bench::{Area, Bar, Measure, median};

pub const AREA: Area = Area {
    name: "land",
    about: "framed records to a committed table, 30 columns: the joiner ÷ arrow-avro and ArrowWriter, rows a second",
    run,
};

const ROUNDS: usize = 15;
const WARM_UP: usize = 2;
/// About half a second of work; two row groups and a rest.
const ROWS: u64 = 150_000;

fn run() -> Result<Vec<Measure>, Box<dyn Error>> {
    // Before any thread is made: they take the binding of the one that starts them.
    bind_this_thread(1)?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(measure())
}

async fn measure() -> Result<Vec<Measure>, Box<dyn Error>> {
    let mut stand = Stand::open().await?;
    let mut scratch = Scratch::default();
    let mut rows = Vec::new();
    for number in 0..ROWS {
        let event_ms = START_MS + number as i64 * MINUTE_MS / ROWS as i64;
        let (id, value) = stand.writer.prediction(&mut scratch, number, event_ms)?;
        rows.push((id, value, event_ms));
    }
    let bytes = rows.iter().map(|(_, value, _)| value.len()).sum::<usize>() / rows.len();
    let mut places = Places::default();
    let file = stand.dir.path().join("plain.parquet");
    let (mut ratios, mut our_rates, mut plain_rates) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..WARM_UP + ROUNDS {
        let records: Vec<Record> = rows
            .iter()
            .map(|(id, value, event_ms)| places.record(Kind::Predictions, id, value.clone(), *event_ms))
            .collect();
        let (schema, schema_id) = (stand.writer.plan.prediction_schema().clone(), stand.writer.schema_ids[0]);
        let plainly = |records: &[Record]| -> Result<(f64, Vec<String>), Box<dyn Error>> {
            let start = Instant::now();
            let columns = plain::land(records, &schema, schema_id, &file)?;
            Ok((ROWS as f64 / start.elapsed().as_secs_f64(), columns))
        };
        let (copy, (our_rate, (plain_rate, columns)));
        if round % 2 == 0 {
            copy = records.clone();
            our_rate = land(&mut stand, records).await?;
            (plain_rate, columns) = plainly(&copy)?;
        } else {
            (plain_rate, columns) = plainly(&records)?;
            our_rate = land(&mut stand, records).await?;
        }
        if round == 0 {
            compare_columns(&stand, columns)?;
        }
        if round >= WARM_UP {
            ratios.push(our_rate / plain_rate);
            our_rates.push(our_rate);
            plain_rates.push(plain_rate);
        }
    }
    let note = format!("{:.0}/s ÷ {:.0}/s; {bytes} B each", median(&mut our_rates), median(&mut plain_rates));
    Ok(vec![Measure { name: "rows landed a second", ratios, bar: Bar::AtLeast(0.6), note }])
}

/// Rows a second.
async fn land(stand: &mut Stand, records: Vec<Record>) -> Result<f64, Box<dyn Error>> {
    let start = Instant::now();
    stand.joiner.take(records).await?;
    stand.joiner.commit().await?;
    Ok(ROWS as f64 / start.elapsed().as_secs_f64())
}

/// Both sides must have written the same columns and rows.
fn compare_columns(stand: &Stand, mut plain: Vec<String>) -> Result<(), Box<dyn Error>> {
    use parquet::file::reader::{FileReader, SerializedFileReader};
    let (mut ours, mut rows) = (Vec::new(), 0);
    for file in stand.files("bench_predictions")? {
        let reader = SerializedFileReader::new(std::fs::File::open(file)?)?;
        let metadata = reader.metadata().file_metadata();
        rows += metadata.num_rows();
        ours = metadata.schema().get_fields().iter().map(|field| field.name().to_owned()).collect();
    }
    ours.sort();
    plain.sort();
    if ours != plain {
        return Err(format!("the columns differ: {ours:?} and {plain:?}").into());
    }
    if rows != ROWS as i64 { Err(format!("{rows} of {ROWS} rows are in the table").into()) } else { Ok(()) }
}
