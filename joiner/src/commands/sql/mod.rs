//! `flywheel-joiner sql`: the text of a view, for the engine that is to have it.
//!
//! | view | rows |
//! |---|---|
//! | `predictions-distinct` | the first landed copy of every prediction |
//! | `training-current` | the base rows with the labels of their last revisions |
//! | `training-as-of` | the same as it was at an instant: the same rows whenever it is asked |
//! | `training-sampled` | either of the two, of which rows that a condition holds for are kept at a rate, with their weight |
//! | `training-live` | the current rows, and the predictions that are not sealed with their labels as known now |
//! | `unmatched-current` | the statements without a place, without those whose prediction has landed since |
//! | `audit` | where the tables differ from what the raw tables say: none |
//! | `completeness` | per producer and kind: accepted by the ledger, landed, lost, missing |
//! | `backfill` | no view: two statements that write what a newer contract says of predictions served under older ones |
//! | `attribution-last-touch`, `attribution-first-touch` | outcomes that name an entity, with the prediction that they are about |
//! | `missing` | the numbers (producer_seq) that are in no table and that no loss in the ledger accounts for, in spans |
//!
//! Labels are those of the registered contracts and columns those of the catalog at the time of asking, and instants up to
//! which tables are complete stand in the text as numbers: after a new contract, and for a later audit, the text is to be
//! made anew. `predictions-distinct`, `completeness` and `missing` ask nobody.

mod attribution;
mod audit;
mod backfill;
mod current;
mod labels;
mod live;
mod model;
mod names;
mod numbers;
mod ticks;
mod unmatched;

use std::process::ExitCode;

use chrono::{DateTime, Utc};
use clap::ValueEnum;
use flywheel_schemas::contract::parse_duration;

use crate::config::Config;
use attribution::Touch;
pub use audit::Table;
pub use backfill::statements as backfill;
pub use model::Model;
pub use names::{Engine, Names};
pub use numbers::{completeness, missing};

#[derive(clap::Args)]
pub struct Arguments {
    view: View,
    #[arg(long)]
    model: String,
    #[arg(long, default_value = "spark")]
    engine: Engine,
    #[command(flatten)]
    options: Options,
}

/// What some of the views want to know.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Options {
    /// For training-as-of and training-sampled: an RFC 3339 instant, at or before what the table is complete through
    #[arg(long, value_name = "INSTANT")]
    pub as_of: Option<DateTime<Utc>>,
    /// For training-sampled: the share of the rows that --where holds for that is kept, more than 0 and at most 1
    #[arg(long)]
    pub rate: Option<f64>,
    /// For training-sampled: a condition in the engine's SQL on the columns of the training table, such as "label_x = false"
    #[arg(long = "where", value_name = "CONDITION")]
    pub condition: Option<String>,
    /// For audit: only this table
    #[arg(long)]
    pub table: Option<Table>,
    /// For backfill: the version of the contract that says the labels
    #[arg(long, value_name = "VERSION")]
    pub contract: Option<i32>,
    /// For backfill: predictions of this RFC 3339 instant and later
    #[arg(long, value_name = "INSTANT")]
    pub from: Option<DateTime<Utc>>,
    /// For backfill: the labels as known at this RFC 3339 instant; what the tables are complete through, unless given
    #[arg(long, value_name = "INSTANT")]
    pub through: Option<DateTime<Utc>>,
    /// For attribution: the table of the outcomes, as the engine calls it
    #[arg(long, value_name = "TABLE")]
    pub outcomes: Option<String>,
    /// For attribution: a part of the entity that the outcomes name; may be given several times. All, unless given
    #[arg(long, value_name = "NAME")]
    pub entity: Vec<String>,
    /// For attribution: a label that it states, in the column label_<LABEL>; may be given several times
    #[arg(long = "label", value_name = "LABEL")]
    pub labels: Vec<String>,
    /// For attribution: how long before an outcome its prediction was made at most, such as 12h
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub window: Option<i64>,
    /// For attribution: how long after an outcome its prediction may still have landed, 10m unless given
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub lateness: Option<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum View {
    PredictionsDistinct,
    TrainingCurrent,
    TrainingAsOf,
    TrainingSampled,
    TrainingLive,
    UnmatchedCurrent,
    Audit,
    Backfill,
    AttributionLastTouch,
    AttributionFirstTouch,
    Completeness,
    Missing,
}

pub async fn run(config: Config, arguments: Arguments) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let Arguments { view, model, engine, options } = arguments;
    let names = Names { engine, namespace: &config.catalog.namespace, model: &model };
    let text = match view {
        View::PredictionsDistinct => predictions_distinct(&names),
        View::Completeness => completeness(&names),
        View::Missing => missing(&names),
        _ => text(&names, view, &options, &Model::read(&config, &model).await?)?,
    };
    println!("{text}");
    Ok(ExitCode::SUCCESS)
}

/// The text of a view of a model as its registry and its catalog know it.
///
/// # Errors
/// An option that the view needs and that is not there or is none, and an audit where nothing is sealed.
pub fn text(names: &Names, view: View, options: &Options, model: &Model) -> Result<String, Box<dyn std::error::Error>> {
    Ok(match view {
        View::PredictionsDistinct => predictions_distinct(names),
        View::TrainingCurrent => current::training(names, model, None),
        View::TrainingAsOf => {
            let as_of = options.as_of.ok_or("training-as-of needs --as-of INSTANT")?;
            current::training(names, model, Some(as_of))
        }
        View::TrainingSampled => {
            let rate = options.rate.ok_or("training-sampled needs --rate, the share of rows that is kept")?;
            if !(rate > 0.0 && rate <= 1.0) {
                return Err(format!("--rate {rate}: a rate is more than 0 and at most 1").into());
            }
            let condition = options.condition.as_deref();
            let condition = condition.ok_or("training-sampled needs --where, which rows are sampled")?;
            current::sampled(names, model, rate, condition, options.as_of)
        }
        View::TrainingLive => live::training(names, model),
        View::UnmatchedCurrent => unmatched::current(names, model),
        View::Audit => audit::text(names, model, options.table)?,
        View::Backfill => backfill::statements(names, options, model)?.join(";\n\n") + ";",
        View::AttributionLastTouch => attribution::text(names, model, options, Touch::Last)?,
        View::AttributionFirstTouch => attribution::text(names, model, options, Touch::First)?,
        View::Completeness => completeness(names),
        View::Missing => missing(names),
    })
}

/// The first copy of every prediction: least ingest time, then offset.
pub fn predictions_distinct(names: &Names) -> String {
    let table = names.table("predictions");
    format!(
        "SELECT * FROM (\n  SELECT p.*, row_number() OVER (\n    PARTITION BY prediction_id ORDER BY ingest_time, kafka_offset) \
         AS copy_number\n  FROM {table} p)\nWHERE copy_number = 1"
    )
}
