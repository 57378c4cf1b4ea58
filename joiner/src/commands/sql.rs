//! `flywheel-joiner sql`: the text of a view, for the engine that is to have it.
//!
//! | view | rows |
//! |---|---|
//! | `predictions-distinct` | the first landed copy of every prediction |
//! | `training-as-of` | the training rows sealed by an instant: the same rows whenever it is asked |
//! | `completeness` | per producer and kind: accepted by the ledger, landed, missing |

use std::process::ExitCode;

use chrono::{DateTime, Utc};
use clap::ValueEnum;

use crate::config::Config;

#[derive(clap::Args)]
pub struct Arguments {
    view: View,
    #[arg(long)]
    model: String,
    #[arg(long, default_value = "spark")]
    engine: Engine,
    /// For training-as-of: an RFC 3339 instant, at or before what the table is complete through
    #[arg(long, value_name = "INSTANT")]
    as_of: Option<DateTime<Utc>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum View {
    PredictionsDistinct,
    TrainingAsOf,
    Completeness,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Engine {
    Spark,
    Trino,
    Duckdb,
}

pub async fn run(config: Config, arguments: Arguments) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let names = Names { engine: arguments.engine, namespace: &config.catalog.namespace, model: &arguments.model };
    let text = match arguments.view {
        View::PredictionsDistinct => predictions_distinct(&names),
        View::TrainingAsOf => {
            let as_of = arguments.as_of.ok_or("training-as-of needs --as-of INSTANT")?;
            training_as_of(&names, as_of)
        }
        View::Completeness => completeness(&names),
    };
    println!("{text}");
    Ok(ExitCode::SUCCESS)
}

/// How an engine names tables and writes instants.
pub struct Names<'a> {
    pub engine: Engine,
    pub namespace: &'a str,
    pub model: &'a str,
}

impl Names<'_> {
    fn table(&self, suffix: &str) -> String {
        format!("{}.{}_{suffix}", self.namespace, self.model)
    }

    fn shared(&self, table: &str) -> String {
        format!("{}.{table}", self.namespace)
    }

    fn instant(&self, instant: DateTime<Utc>) -> String {
        let text = instant.format("%Y-%m-%d %H:%M:%S%.6f");
        match self.engine {
            Engine::Trino => format!("TIMESTAMP '{text} UTC'"),
            Engine::Spark | Engine::Duckdb => format!("TIMESTAMP '{text}+00:00'"),
        }
    }
}

/// The first copy of every prediction: least ingest time, then offset.
pub fn predictions_distinct(names: &Names) -> String {
    let table = names.table("predictions");
    format!(
        "SELECT * FROM (\n  SELECT p.*, row_number() OVER (\n    PARTITION BY prediction_id ORDER BY ingest_time, kafka_offset) \
         AS copy_number\n  FROM {table} p)\nWHERE copy_number = 1"
    )
}

/// The training set as it was at an instant. Rows are never changed, so it needs no snapshot id.
pub fn training_as_of(names: &Names, as_of: DateTime<Utc>) -> String {
    format!("SELECT * FROM {}\nWHERE as_of <= {}", names.table("training"), names.instant(as_of))
}

/// Accepted by the ledger, landed, and what is missing between the two, per producer and kind.
pub fn completeness(names: &Names) -> String {
    let (predictions, outcomes, ledger) = (names.table("predictions"), names.table("outcomes"), names.shared("ledger"));
    let model = names.model;
    format!(
        "WITH said AS (\n  SELECT producer_id, kind, max(last_seq) AS accepted\n  FROM {ledger} WHERE model = '{model}' \
         GROUP BY producer_id, kind),\nlanded AS (\n  SELECT producer_id, 'predictions' AS kind, count(DISTINCT \
         producer_seq) AS landed, max(producer_seq) AS greatest\n  FROM {predictions} WHERE producer_id IS NOT NULL GROUP BY producer_id\n  UNION \
         ALL\n  SELECT producer_id, 'outcomes', count(DISTINCT producer_seq), max(producer_seq)\n  FROM {outcomes} WHERE producer_id IS NOT \
         NULL GROUP BY producer_id)\nSELECT coalesce(s.producer_id, l.producer_id) AS producer_id, coalesce(s.kind, l.kind) \
         AS kind,\n  coalesce(s.accepted, 0) AS accepted, coalesce(l.landed, 0) AS landed,\n  \
         greatest(coalesce(s.accepted, 0), coalesce(l.greatest, 0)) - coalesce(l.landed, 0) AS missing\nFROM said s FULL \
         OUTER JOIN landed l ON s.producer_id = l.producer_id AND s.kind = l.kind\nORDER BY 1, 2"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_written_as_the_engine_reads_them() {
        let at = "2013-02-01T00:00:00Z".parse().expect("an instant");
        let text = |engine| training_as_of(&Names { engine, namespace: "flywheel", model: "m" }, at);
        assert!(text(Engine::Trino).ends_with("as_of <= TIMESTAMP '2013-02-01 00:00:00.000000 UTC'"));
        assert!(text(Engine::Spark).ends_with("as_of <= TIMESTAMP '2013-02-01 00:00:00.000000+00:00'"));
    }
}
