//! `flywheel-joiner get`: all that the tables hold about one prediction, as one JSON document.
//!
//! | member | rows |
//! |---|---|
//! | `predictions` | every landed copy, in the order of ingest |
//! | `outcomes` | every statement about it, likewise |
//! | `training` | its base row |
//! | `label_revisions` | its labels where they changed after that, by tick |
//! | `unmatched` | its statements that found no place |

use std::process::ExitCode;

use flywheel_schemas::id;
use serde_json::{Map, Value};

use super::rows;
use crate::config::Config;
use crate::table::{Predicate, Warehouse};

#[derive(clap::Args)]
pub struct Arguments {
    prediction_id: String,
    #[arg(long)]
    model: String,
}

/// Tables by suffix: whether they are kept by event time, and by which column their rows are put in order.
const TABLES: [(&str, bool, &str); 5] = [
    ("predictions", true, "ingest_time"),
    ("outcomes", false, "ingest_time"),
    ("training", true, "as_of"),
    ("label_revisions", true, "as_of"),
    ("unmatched", false, "as_of"),
];

/// Ends with exit status 3 where no table has a row.
pub async fn run(config: Config, arguments: Arguments) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let warehouse = Warehouse::open(&config.catalog()).await?;
    let Arguments { prediction_id, model } = arguments;
    let event_ms = id::time_ms_of(&prediction_id);
    let mut found = Map::new();
    for (suffix, is_by_event_time, order) in TABLES {
        let Some(table) = warehouse.load(&format!("{model}_{suffix}")).await? else { continue };
        let mut predicates = vec![Predicate::PredictionIds(vec![prediction_id.clone()])];
        // The time in the id spares a look into the other days.
        if let Some(event_ms) = event_ms.filter(|_| is_by_event_time) {
            predicates.push(Predicate::EventTimeBetween(event_ms, event_ms + 1));
        }
        let mut rows = Vec::new();
        rows::each(&table, Predicate::And(predicates), |row| rows.push(row)).await?;
        let text = |row: &Map<String, Value>| row.get(order).and_then(Value::as_str).unwrap_or_default().to_owned();
        rows.sort_by_key(text);
        found.insert(suffix.to_owned(), rows.into());
    }
    if found.is_empty() {
        return Err(format!("there is no model `{model}` in this catalog").into());
    }
    let is_known = found.values().any(|rows| rows.as_array().is_some_and(|rows| !rows.is_empty()));
    println!("{:#}", Value::Object(found));
    Ok(if is_known { ExitCode::SUCCESS } else { ExitCode::from(3) })
}
