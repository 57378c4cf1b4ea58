//! `flywheel-joiner sql`: the text of a view, for the engine that is to have it.
//!
//! | view | rows |
//! |---|---|
//! | `predictions-distinct` | the first landed copy of every prediction |
//! | `training-as-of` | the training rows sealed by an instant: the same rows whenever it is asked |
//! | `completeness` | per producer and kind: accepted by the ledger, landed, lost, missing |
//! | `missing` | the numbers (producer_seq) that are in no table and that no loss in the ledger accounts for, in spans |

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
    Missing,
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
        View::Missing => missing(&names),
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

/// Named queries that both of the following begin with. `said`: the last number that the ledger has of each producer and
/// kind. `landed`: the numbers in the raw tables. `gaps`: the spans of numbers that are neither landed nor in a loss, up to
/// the last number that is known of: where what is covered so far ends before the next that is covered begins.
fn numbers(names: &Names) -> String {
    let (predictions, outcomes, ledger) = (names.table("predictions"), names.table("outcomes"), names.shared("ledger"));
    let model = names.model;
    let landed = |kind: &str, table: &str| {
        format!(
            "SELECT producer_id, '{kind}' AS kind, producer_seq FROM {table}\n  \
             WHERE producer_id IS NOT NULL AND producer_seq IS NOT NULL"
        )
    };
    format!(
        "WITH said AS (
  SELECT producer_id, kind, max(last_seq) AS accepted FROM {ledger}
  WHERE model = '{model}' AND closed_by <> 'loss' GROUP BY producer_id, kind),
landed AS (
  {}
  UNION ALL
  {}),
ends AS (
  SELECT producer_id, kind, max(last_seq) + 1 AS after_last FROM (
    SELECT producer_id, kind, accepted AS last_seq FROM said
    UNION ALL SELECT producer_id, kind, producer_seq FROM landed) known
  GROUP BY producer_id, kind),
covered AS (
  SELECT producer_id, kind, producer_seq AS first_seq, producer_seq AS last_seq FROM landed
  UNION ALL SELECT producer_id, kind, first_seq, last_seq FROM {ledger} WHERE model = '{model}' AND closed_by = 'loss'
  UNION ALL SELECT producer_id, kind, 0, 0 FROM ends
  UNION ALL SELECT producer_id, kind, after_last, after_last FROM ends),
gaps AS (
  SELECT producer_id, kind, reached + 1 AS first_seq, first_seq - 1 AS last_seq FROM (
    SELECT producer_id, kind, first_seq, max(last_seq) OVER (
      PARTITION BY producer_id, kind ORDER BY first_seq, last_seq
      ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS reached
    FROM covered) steps
  WHERE first_seq > reached + 1)
",
        landed("predictions", &predictions),
        landed("outcomes", &outcomes)
    )
}

/// Accepted by the ledger, landed, lost and missing, per producer and kind. A row that landed after it was given up counts as
/// landed.
pub fn completeness(names: &Names) -> String {
    numbers(names)
        + "SELECT e.producer_id, e.kind, coalesce(s.accepted, 0) AS accepted, coalesce(l.landed, 0) AS landed,
  e.after_last - 1 - coalesce(l.landed, 0) - coalesce(g.missing, 0) AS lost, coalesce(g.missing, 0) AS missing
FROM ends e
LEFT JOIN said s ON s.producer_id = e.producer_id AND s.kind = e.kind
LEFT JOIN (SELECT producer_id, kind, count(DISTINCT producer_seq) AS landed FROM landed GROUP BY producer_id, kind) l
  ON l.producer_id = e.producer_id AND l.kind = e.kind
LEFT JOIN (SELECT producer_id, kind, sum(last_seq - first_seq + 1) AS missing FROM gaps GROUP BY producer_id, kind) g
  ON g.producer_id = e.producer_id AND g.kind = e.kind
ORDER BY 1, 2"
}

/// The numbers that are neither landed nor accounted for, in spans.
pub fn missing(names: &Names) -> String {
    numbers(names) + "SELECT producer_id, kind, first_seq, last_seq FROM gaps ORDER BY 1, 2, 3"
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
