//! `flywheel-joiner status`: how far each table of each model has come, by what the tables have recorded, and which
//! partitions wait, by what the joiner at `listen.admin` says.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use crate::admin::WAITS;
use crate::config::Config;
use crate::metrics::Waiting;
use crate::pipeline::COMPLETE_THROUGH;
use crate::table::{Mark, Table, TableError, Warehouse};

/// A joiner on this machine answers at once; one that does not is not there.
const ANSWER: Duration = Duration::from_secs(5);

#[derive(clap::Args)]
pub struct Arguments {
    /// Only this model
    #[arg(long)]
    model: Option<String>,
}

/// The ticks that a training table is complete through.
pub struct Completeness {
    /// Least tick done over all partitions, in milliseconds; none while a partition has none.
    pub through_ms: Option<i64>,
}

pub async fn run(config: Config, arguments: Arguments) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let warehouse = Warehouse::open(&config.catalog()).await?;
    let names = warehouse.tables().await?;
    let waiting = waiting(&config.listen.admin).await;
    let models = names.iter().filter_map(|name| name.strip_suffix("_training"));
    for model in models.filter(|model| arguments.model.as_deref().is_none_or(|wanted| wanted == *model)) {
        println!("{model}");
        for kind in ["predictions", "outcomes", "training"] {
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
        "training" => {
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

/// What the training table of `model` is complete through.
///
/// # Errors
/// What the catalog says. A model without a table is complete through nothing.
pub async fn completeness(warehouse: &Warehouse, model: &str) -> Result<Completeness, TableError> {
    let Some(mut table) = warehouse.load(&format!("{model}_training")).await? else {
        return Ok(Completeness { through_ms: None });
    };
    let marks = table.progress().await?.map(|progress| progress.marks).unwrap_or_default();
    let partitions = table.property(crate::pipeline::PARTITIONS).and_then(|text| text.parse::<usize>().ok());
    let whole = partitions.is_some_and(|partitions| marks.len() >= partitions);
    Ok(Completeness { through_ms: marks.values().map(|mark| mark.next).min().filter(|_| whole) })
}
