//! `flywheel-joiner dead-letter`: what could not be accepted or landed, a JSON object a line.

use std::collections::BTreeSet;
use std::process::ExitCode;

use chrono::{DateTime, Utc};
use flywheel_schemas::table;
use serde_json::{Map, Value};

use super::rows;
use crate::config::Config;
use crate::table::{Predicate, Warehouse};

#[derive(clap::Args)]
pub struct Arguments {
    /// Only letters of this model
    #[arg(long)]
    model: Option<String>,
    /// Only letters with this reason, such as undecodable
    #[arg(long)]
    reason: Option<String>,
    /// Only letters received at or after this RFC 3339 instant
    #[arg(long, value_name = "INSTANT")]
    since: Option<DateTime<Utc>>,
}

pub async fn run(config: Config, arguments: Arguments) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let warehouse = Warehouse::open(&config.catalog()).await?;
    let spec = table::dead_letter();
    let Some(table) = warehouse.load(&spec.name).await? else { return Ok(ExitCode::SUCCESS) };
    let since = arguments.since.map_or(Predicate::All, |since| Predicate::ReceivedFrom(since.timestamp_millis()));
    let text = |letter: &Map<String, Value>, name: &str| letter.get(name).and_then(Value::as_str).map(str::to_owned);
    let is_wanted = |letter: &Map<String, Value>, name: &str, wanted: &Option<String>| {
        wanted.is_none() || text(letter, name) == *wanted
    };
    // Copies of a letter share its id. Of the letters themselves, with their bodies, one is in memory at a time.
    let mut seen = BTreeSet::new();
    rows::each(&table, since, |letter| {
        let is_wanted =
            is_wanted(&letter, "model", &arguments.model) && is_wanted(&letter, "reason", &arguments.reason);
        if is_wanted && seen.insert(text(&letter, "dead_letter_id")) {
            println!("{}", Value::Object(letter));
        }
    })
    .await?;
    Ok(ExitCode::SUCCESS)
}
