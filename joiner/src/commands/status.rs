//! `flywheel-joiner status`: how far each table of each model has come, by what the tables have recorded, and which
//! partitions wait, by what the joiner at `listen.admin` says.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use flywheel_schemas::wire::Kind;

use crate::admin::WAITS;
use crate::completeness::{Producer, Proof, Span};
use crate::config::Config;
use crate::metrics::Waiting;
use crate::pipeline::{COMPLETE_THROUGH, PARTITIONS};
use crate::table::{Mark, Table, TableError, Warehouse};

/// A joiner on this machine answers at once; one that does not is not there.
const ANSWER: Duration = Duration::from_secs(5);

/// Spans of numbers in one line; who wants all asks the tables (`sql missing`).
const SPANS_SHOWN: usize = 20;

#[derive(clap::Args)]
pub struct Arguments {
    /// Only this model
    #[arg(long)]
    model: Option<String>,
    /// Whether all that the sidecars accepted is in the raw tables, and which numbers of whom are missing; exit status 3
    /// where some are. Reads two columns of the whole raw tables
    #[arg(long)]
    completeness: bool,
}

/// The ticks that a training table is complete through.
pub struct Completeness {
    /// Least tick done over all partitions and tables, in milliseconds; none while a partition has none.
    pub through_ms: Option<i64>,
}

pub async fn run(config: Config, arguments: Arguments) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let warehouse = Warehouse::open(&config.catalog()).await?;
    let names = warehouse.tables().await?;
    let models = names.iter().filter_map(|name| name.strip_suffix("_training"));
    let models = models.filter(|model| arguments.model.as_deref().is_none_or(|wanted| wanted == *model));
    if arguments.completeness {
        return prove(&warehouse, models).await;
    }
    let waiting = waiting(&config.listen.admin).await;
    for model in models {
        println!("{model}");
        for kind in ["predictions", "outcomes", "training", "label_revisions", "unmatched"] {
            let name = format!("{model}_{kind}");
            let Some(mut table) = warehouse.load(&name).await? else { continue };
            let marks = table.progress().await?.map(|progress| progress.marks).unwrap_or_default();
            println!("  {name:<40} {}", line(&table, kind, &marks));
        }
        for wait in waiting.iter().flatten().filter(|wait| wait.model == model) {
            let Waiting { kind, partition, offset, why, .. } = wait;
            println!("  WAITS: {kind}, partition {partition}, before offset {offset}: {why}");
        }
    }
    if let Err(error) = &waiting {
        println!("whether a partition waits is not known, since no joiner answers at listen.admin: {error}");
    }
    Ok(ExitCode::SUCCESS)
}

/// Says, per producer and kind, what was accepted and what of it is in the raw table.
async fn prove(
    warehouse: &Warehouse,
    models: impl Iterator<Item = &str>,
) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let mut is_complete = true;
    for model in models {
        println!("{model}");
        for kind in [Kind::Predictions, Kind::Outcomes] {
            let proof = Proof::read(warehouse, model, kind).await?;
            for (id, producer) in &proof.producers {
                let missing = producer.missing();
                is_complete &= missing.is_empty();
                println!("  {:<12} {id}  {}", kind.name(), account(producer, &missing));
            }
            if proof.unnumbered > 0 {
                let rows = proof.unnumbered;
                println!(
                    "  {:<12} {rows} rows of producers that do not number theirs: nothing is proven of them",
                    kind.name()
                );
            }
        }
    }
    println!("{}", if is_complete { "nothing is missing" } else { "some rows are still on their way, or lost" });
    Ok(if is_complete { ExitCode::SUCCESS } else { ExitCode::from(3) })
}

fn account(producer: &Producer, missing: &[Span]) -> String {
    let count: u64 = missing.iter().map(Span::count).sum();
    let (accepted, landed, lost) = (producer.accepted, producer.landed(), producer.lost());
    let (refused, sampled_out) = (producer.refused, producer.sampled_out);
    let state = if producer.is_closed { "closed" } else { "at work" };
    let mut text = format!(
        "{state}: accepted {accepted}, landed {landed}, lost {lost}, missing {count}; refused {refused}, sampled out {sampled_out}"
    );
    let named = |text: &mut String, what: &str, spans: Vec<String>| {
        if !spans.is_empty() {
            let rest = spans.len().saturating_sub(SPANS_SHOWN);
            text.push_str(&format!("\n{:30}{what}: {}", "", spans[..spans.len() - rest].join(", ")));
            if rest > 0 {
                text.push_str(&format!(", and {rest} more spans"));
            }
        }
    };
    named(&mut text, "lost", producer.losses.iter().map(|loss| format!("{} {}", loss.span, loss.reason)).collect());
    named(&mut text, "missing", missing.iter().map(ToString::to_string).collect());
    text
}

/// What the joiner that runs on this machine waits for.
async fn waiting(admin: &str) -> Result<Vec<Waiting>, reqwest::Error> {
    let client = reqwest::Client::builder().no_proxy().timeout(ANSWER).build()?;
    client.get(format!("http://{admin}{WAITS}")).send().await?.error_for_status()?.json().await
}

fn line(table: &Table, kind: &str, marks: &BTreeMap<i32, Mark>) -> String {
    let each = |text: fn(&Mark) -> String| {
        marks.iter().map(|(number, mark)| format!("{number}: {}", text(mark))).collect::<Vec<_>>().join(", ")
    };
    match kind {
        "training" | "label_revisions" | "unmatched" => {
            let through = table.property(COMPLETE_THROUGH).unwrap_or_else(|| "nothing yet".to_owned());
            format!("complete through {through} ({})", each(|mark| instant(mark.next)))
        }
        _ => format!(
            "next offset by partition {{{}}}",
            each(|mark| format!("{} at {}", mark.next, instant(mark.time_ms)))
        ),
    }
}

fn instant(ms: i64) -> String {
    chrono::DateTime::from_timestamp_millis(ms).map_or_else(|| ms.to_string(), |time| time.to_rfc3339())
}

/// What the sealed tables of `model` are complete through: the training table, its revisions and the unmatched.
///
/// # Errors
/// What the catalog says. A model without a table is complete through nothing.
pub async fn completeness(warehouse: &Warehouse, model: &str) -> Result<Completeness, TableError> {
    let mut least: Option<i64> = None;
    let mut partitions: Option<usize> = None;
    for name in ["training", "label_revisions", "unmatched"] {
        let Some(mut table) = warehouse.load(&format!("{model}_{name}")).await? else {
            return Ok(Completeness { through_ms: None });
        };
        let marks = table.progress().await?.map(|progress| progress.marks).unwrap_or_default();
        // The training table, which is the first, says how many there are.
        partitions = partitions.or(table.property(PARTITIONS).and_then(|text| text.parse().ok()));
        let done = marks.values().map(|mark| mark.next).min();
        let Some(done) = done.filter(|_| partitions.is_some_and(|partitions| marks.len() >= partitions)) else {
            return Ok(Completeness { through_ms: None });
        };
        least = Some(least.map_or(done, |least| least.min(done)));
    }
    Ok(Completeness { through_ms: least })
}
