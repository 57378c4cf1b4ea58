//! `flywheel-joiner wait`: for schedulers that must not train before a day is complete.

use std::process::ExitCode;
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::status::completeness;
use crate::config::Config;
use crate::table::Warehouse;

/// How often the table is looked at: a snapshot a minute is usual, a demonstration commits every second.
const LOOK: Duration = Duration::from_millis(100);

#[derive(clap::Args)]
pub struct Arguments {
    #[arg(long)]
    model: String,
    /// An RFC 3339 instant
    #[arg(long, value_name = "INSTANT")]
    through: DateTime<Utc>,
    /// Give up after so many seconds, with exit status 3; 0 waits for ever
    #[arg(long, default_value_t = 0)]
    timeout_s: u64,
}

pub async fn run(config: Config, arguments: Arguments) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let warehouse = Warehouse::open(&config.catalog()).await?;
    let done = wait_through(&warehouse, &arguments.model, arguments.through.timestamp_millis());
    if arguments.timeout_s == 0 {
        done.await?;
        return Ok(ExitCode::SUCCESS);
    }
    match tokio::time::timeout(Duration::from_secs(arguments.timeout_s), done).await {
        Ok(result) => result.map(|()| ExitCode::SUCCESS).map_err(Into::into),
        Err(_) => {
            eprintln!("flywheel-joiner: not complete through {} after {} s", arguments.through, arguments.timeout_s);
            Ok(ExitCode::from(3))
        }
    }
}

/// Waits until the training table of `model` is complete through `through_ms`. What passes by itself is waited out.
///
/// # Errors
/// What needs a person.
pub async fn wait_through(warehouse: &Warehouse, model: &str, through_ms: i64) -> Result<(), crate::table::TableError> {
    loop {
        match completeness(warehouse, model).await {
            Ok(completeness) if completeness.through_ms.is_some_and(|done| done >= through_ms) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.is_passing() => tracing::debug!(error = %error, "waiting for the catalog"),
            Err(error) => return Err(error),
        }
        tokio::time::sleep(LOOK).await;
    }
}
