//! `flywheel-joiner dead-letter`: what could not be accepted or landed. `list` prints it, a JSON object a line; `replay` tries
//! again, once the cause is mended.

mod replay;

use std::collections::BTreeSet;
use std::process::ExitCode;

use chrono::{DateTime, Utc};
use flywheel_schemas::table;
use serde_json::{Map, Value};

use super::rows;
use crate::config::Config;
use crate::table::{Predicate, Warehouse};

type Failed = Box<dyn std::error::Error>;

#[derive(clap::Subcommand)]
pub enum Arguments {
    /// Print letters, a JSON object a line
    List(List),
    /// Post what a sidecar refused once more, and append what could not be landed to its topic once more
    Replay(Replay),
}

#[derive(clap::Args)]
pub struct List {
    /// Only letters of this model
    #[arg(long)]
    model: Option<String>,
    #[command(flatten)]
    chosen: Chosen,
}

#[derive(clap::Args)]
pub struct Replay {
    #[arg(long)]
    model: String,
    #[command(flatten)]
    chosen: Chosen,
    /// The sidecar or gateway that is to take what a sidecar refused
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8700")]
    to: String,
}

/// Which letters.
#[derive(clap::Args)]
pub struct Chosen {
    /// Only the letter with this dead_letter_id; may be given several times
    #[arg(long = "id", value_name = "ID")]
    ids: Vec<String>,
    /// Only letters with this reason, such as undecodable
    #[arg(long)]
    reason: Option<String>,
    /// Only letters received at or after this RFC 3339 instant
    #[arg(long, value_name = "INSTANT")]
    since: Option<DateTime<Utc>>,
}

pub async fn run(config: Config, arguments: Arguments) -> Result<ExitCode, Failed> {
    let warehouse = Warehouse::open(&config.catalog()).await?;
    let Some(table) = warehouse.load(&table::dead_letter().name).await? else { return Ok(ExitCode::SUCCESS) };
    match arguments {
        Arguments::List(List { model, chosen }) => {
            let mut seen = Seen::default();
            rows::each(&table, chosen.since(), |letter| {
                if chosen.holds(&letter, model.as_deref()) && seen.is_new(&letter) {
                    println!("{}", Value::Object(letter));
                }
            })
            .await?;
            Ok(ExitCode::SUCCESS)
        }
        Arguments::Replay(arguments) => replay::run(config, &warehouse, &table, arguments).await,
    }
}

impl Chosen {
    fn since(&self) -> Predicate {
        self.since.map_or(Predicate::All, |since| Predicate::ReceivedFrom(since.timestamp_millis()))
    }

    fn holds(&self, letter: &Map<String, Value>, model: Option<&str>) -> bool {
        let is = |name: &str, wanted: Option<&str>| wanted.is_none() || text(letter, name) == wanted;
        let is_named = || text(letter, "dead_letter_id").is_some_and(|id| self.ids.iter().any(|wanted| wanted == id));
        is("model", model) && is("reason", self.reason.as_deref()) && (self.ids.is_empty() || is_named())
    }
}

/// Copies of a letter share its id. Of the letters themselves, with their bodies, one is in memory at a time.
#[derive(Default)]
struct Seen(BTreeSet<Option<String>>);

impl Seen {
    fn is_new(&mut self, letter: &Map<String, Value>) -> bool {
        self.0.insert(text(letter, "dead_letter_id").map(str::to_owned))
    }
}

fn text<'a>(letter: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    letter.get(name).and_then(Value::as_str)
}
