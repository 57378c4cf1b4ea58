//! `flywheel-joiner import outcomes`: labels from a warehouse, as ordinary outcomes.
//!
//! They are posted to a sidecar or a gateway, which checks, numbers and forwards them like any other. Each statement has an
//! `event_id` that follows from all it says, so that rows that are imported again state nothing twice. Because of that a value
//! that goes back to what it was says nothing new either, unless its row has a greater `revision` or a later `op_time`.
//!
//! | from | rows |
//! |---|---|
//! | a file | NDJSON, a line each as the sidecar takes it; Parquet where the name ends in `.parquet` |
//! | a table of the catalog (`name`, or `namespace.name`) | columns `prediction_id`, `event_time`, `label_<label>`…, and where they are there `event_id`, `outcome_id`, `revision`, `op`, `op_time`, `source`, `labels` |

mod cells;
mod lines;

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::process::ExitCode;

use arrow::array::RecordBatch;
use flywheel_schemas::wire::Kind;
use futures::stream::{self, BoxStream};
use futures::{StreamExt as _, TryStreamExt as _};

use super::sidecar::{BYTES_MAX, ROWS_MAX, Sidecar};
use crate::config::Config;
use crate::table::{self, Predicate, Warehouse};
use cells::Statements;
use lines::Line;

type Failed = Box<dyn std::error::Error>;

#[derive(clap::Subcommand)]
pub enum Arguments {
    /// Statements about predictions, from a file or a table
    Outcomes(Outcomes),
}

#[derive(clap::Args)]
pub struct Outcomes {
    /// A file of NDJSON, a file whose name ends in .parquet, or a table of the catalog
    #[arg(value_name = "FILE|TABLE")]
    from: String,
    #[arg(long)]
    model: String,
    /// The sidecar or gateway that is to take them
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8700")]
    to: String,
}

/// Where the rows come from. All of them are bounded: a line, or a batch of rows.
enum Source {
    Lines {
        file: BufReader<File>,
        line: usize,
    },
    Batches {
        statements: Statements,
        batches: BoxStream<'static, Result<RecordBatch, Failed>>,
        row: usize,
        ready: Vec<String>,
    },
}

/// A statement, or why there is none.
struct Row {
    place: String,
    statement: Result<String, &'static str>,
}

/// Rows that are posted together.
#[derive(Default)]
struct Batch {
    places: Vec<String>,
    statements: Vec<String>,
    bytes: usize,
}

#[derive(Default)]
struct Counts {
    accepted: usize,
    refused: usize,
}

/// Ends with exit status 3 where rows were refused.
pub async fn run(config: Config, arguments: Arguments) -> Result<ExitCode, Failed> {
    let Arguments::Outcomes(Outcomes { from, model, to }) = arguments;
    let sidecar = Sidecar::new(&to, &model, Kind::Outcomes)?;
    let mut source = Source::open(&config, &from).await?;
    let (mut batch, mut counts) = (Batch::default(), Counts::default());
    let told = |counts: &Counts| {
        let Counts { accepted, refused } = counts;
        println!("{accepted} outcomes accepted, {refused} refused");
    };
    loop {
        let row = source.next().await.inspect_err(|_| told(&counts))?;
        let is_last = row.is_none();
        match row {
            Some(Row { place, statement: Ok(statement) }) => {
                let statement = lines::with_event_id(&statement);
                // A row never waits for one that would be too large beside it.
                if batch.bytes + statement.len() > BYTES_MAX {
                    batch.post(&sidecar, &mut counts).await.inspect_err(|_| told(&counts))?;
                }
                batch.bytes += statement.len() + 1;
                batch.places.push(place);
                batch.statements.push(statement);
            }
            Some(Row { place, statement: Err(why) }) => counts.refuse(&place, why),
            None => {}
        }
        if is_last || batch.statements.len() >= ROWS_MAX {
            batch.post(&sidecar, &mut counts).await.inspect_err(|_| told(&counts))?;
        }
        if is_last {
            told(&counts);
            return Ok(if counts.refused == 0 { ExitCode::SUCCESS } else { ExitCode::from(3) });
        }
    }
}

impl Batch {
    async fn post(&mut self, sidecar: &Sidecar, counts: &mut Counts) -> Result<(), Failed> {
        let Batch { places, statements, .. } = std::mem::take(self);
        if statements.is_empty() {
            return Ok(());
        }
        let rows: Vec<&str> = statements.iter().map(String::as_str).collect();
        let answers = sidecar.post(&rows).await.map_err(|error| {
            let (first, last) = (places.first().map_or("", String::as_str), places.last().map_or("", String::as_str));
            format!("{first} to {last}: {error}")
        })?;
        for (place, answer) in places.iter().zip(answers) {
            match answer {
                None => counts.accepted += 1,
                Some(why) => counts.refuse(place, &why),
            }
        }
        Ok(())
    }
}

impl Counts {
    fn refuse(&mut self, place: &str, why: &str) {
        self.refused += 1;
        eprintln!("{place}: {why}");
    }
}

impl Source {
    async fn open(config: &Config, from: &str) -> Result<Source, Failed> {
        let path = Path::new(from);
        if !path.is_file() {
            return Source::open_table(config, from).await;
        }
        let file = File::open(path).map_err(|error| format!("{from}: {error}"))?;
        if path.extension().is_none_or(|extension| extension != "parquet") {
            return Ok(Source::Lines { file: BufReader::new(file), line: 0 });
        }
        let (schema, rows) = table::parquet(file).map_err(|error| format!("{from}: {error}"))?;
        let statements = Statements::of(&schema).map_err(|faults| said(from, &faults))?;
        let batches = stream::iter(rows).map_err(Failed::from).boxed();
        Ok(Source::Batches { statements, batches, row: 0, ready: Vec::new() })
    }

    async fn open_table(config: &Config, from: &str) -> Result<Source, Failed> {
        let mut catalog = config.catalog();
        let name = match from.rsplit_once('.') {
            Some((namespace, name)) => {
                catalog.namespace = namespace.to_owned();
                name
            }
            None => from,
        };
        let table = Warehouse::open(&catalog).await?.load(name).await?;
        let table = table.ok_or_else(|| {
            format!("there is neither a file `{from}` nor a table `{name}` in the namespace `{}`", catalog.namespace)
        })?;
        let schema = table.arrow_schema();
        let statements = Statements::of(&schema).map_err(|faults| said(from, &faults))?;
        let columns: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        let batches = table.scan(&columns, Predicate::All).await?.map_err(Failed::from).boxed();
        Ok(Source::Batches { statements, batches, row: 0, ready: Vec::new() })
    }

    async fn next(&mut self) -> Result<Option<Row>, Failed> {
        match self {
            Source::Lines { file, line } => loop {
                *line += 1;
                let statement = match lines::next(file)? {
                    Line::Text(text) if text.trim().is_empty() => continue,
                    Line::Text(text) => Ok(text),
                    Line::Refused(why) => Err(why),
                    Line::End => return Ok(None),
                };
                return Ok(Some(Row { place: format!("line {line}"), statement }));
            },
            Source::Batches { statements, batches, row, ready } => loop {
                if let Some(statement) = ready.pop() {
                    *row += 1;
                    return Ok(Some(Row { place: place(*row, &statement), statement: Ok(statement) }));
                }
                let Some(batch) = batches.try_next().await? else { return Ok(None) };
                *ready = statements.bodies(&batch)?;
                ready.reverse();
            },
        }
    }
}

/// The rows of a table have no numbers that stay: what a row is about says more.
fn place(row: usize, statement: &str) -> String {
    let about = statement.split('"').skip_while(|part| *part != "prediction_id").nth(2);
    about.map_or_else(|| format!("row {row}"), |id| format!("row {row}, prediction {id}"))
}

fn said(from: &str, faults: &[String]) -> String {
    format!("{from}: {}", faults.join("\n"))
}
