//! What a newer contract says of predictions that were served under older ones.
//!
//! Rows are never changed in the training table: the backfill has a table of its own, `<model>_training_v<VERSION>`, with the
//! columns that the training table has by that contract. It gets a row for each prediction served under an older contract,
//! made at `--from` or later, that the newer one would have sealed by `--through`; the labels are as known at `--through`,
//! which is the row's `as_of`: so that statements count that came long after the prediction, such as an import of a label that
//! is new. A prediction that has a row there gets no second one, so the statements may be run again, and later ones add what
//! has become due since. To have labels as known later, drop the table first. One run at a time: two at once may both add.

use arrow::datatypes::DataType;
use chrono::{DateTime, Utc};
use flywheel_schemas::contract::Contract;
use flywheel_schemas::table;

use super::model::Model;
use super::names::Engine;
use super::{Names, Options, labels, live, ticks};

type Failed = Box<dyn std::error::Error>;

/// One that makes the table where it is missing, and one that adds the rows.
///
/// # Errors
/// An option that is not there, or says what is not: a contract that is not registered, an instant that the tables are not
/// complete through. A column of the contract that no joiner has added yet.
pub fn statements(names: &Names, options: &Options, model: &Model) -> Result<Vec<String>, Failed> {
    let version = options.contract.ok_or("backfill needs --contract VERSION, the contract that says the labels")?;
    let from = options.from.ok_or("backfill needs --from INSTANT, of which the first predictions are")?;
    let through_us = through(names, options, model)?;
    let known: Vec<String> = model.contracts.iter().map(|contract| contract.version.to_string()).collect();
    let contract = model.contracts.iter().find(|contract| contract.version == version).cloned().ok_or_else(|| {
        format!(
            "version {version} of the contract of `{}` is not registered; these are: {}",
            names.model,
            known.join(", ")
        )
    })?;
    let columns: Vec<String> = table::training(&contract).columns.into_iter().map(|column| column.name).collect();
    check(names, &contract, &columns, model)?;
    // By this contract alone, whatever a row says of its own.
    let model = Model { contracts: vec![contract], ..model.clone() };
    let target = names.table(&format!("training_v{version}"));
    let query = |new_in: Option<&str>| query(names, &model, &columns, version, from, through_us, new_in);
    let made = match names.engine {
        Engine::Spark => "\nUSING iceberg PARTITIONED BY (days(event_time))",
        Engine::Trino => "\nWITH (partitioning = ARRAY['day(event_time)'])",
        Engine::Duckdb => "",
    };
    let quoted: Vec<String> = columns.iter().map(|name| names.column(name)).collect();
    Ok(vec![
        format!("CREATE TABLE IF NOT EXISTS {target}{made} AS\nSELECT * FROM (\n{}) none WHERE 1 = 0", query(None)),
        format!("INSERT INTO {target} ({})\nSELECT * FROM (\n{}) more", quoted.join(", "), query(Some(&target))),
    ])
}

fn through(names: &Names, options: &Options, model: &Model) -> Result<i64, Failed> {
    let complete_us = model.through_us.ok_or_else(|| {
        format!("no tick of `{}` is recorded as done in every partition of its tables yet", names.model)
    })?;
    let through_us = options.through.map_or(complete_us, |through| through.timestamp_micros());
    if through_us > complete_us {
        let complete = DateTime::<Utc>::from_timestamp_micros(complete_us).map_or(String::new(), |at| at.to_rfc3339());
        return Err(format!("--through: the tables of `{}` are complete through {complete} only", names.model).into());
    }
    Ok(through_us)
}

/// A joiner adds the columns of a contract when it starts, and before the first row that needs them.
fn check(names: &Names, contract: &Contract, columns: &[String], model: &Model) -> Result<(), Failed> {
    let has = |table: &[(String, DataType)], name: &str| table.iter().any(|(other, _)| other == name);
    let is_label = |name: &String| contract.labels.iter().any(|label| name.starts_with(&labels::column(label)));
    let mut missing: Vec<String> = columns
        .iter()
        .filter(|name| !is_label(name) && !has(&model.training, name))
        .map(|name| format!("{}.{name}", names.table("predictions")))
        .collect();
    // Those of the unmatched are those of the outcomes.
    let stated = contract.labels.iter().map(labels::column).filter(|name| !has(&model.unmatched, name));
    missing.extend(stated.map(|name| format!("{}.{name}", names.table("outcomes"))));
    if missing.is_empty() {
        return Ok(());
    }
    Err(format!(
        "the tables lack columns of version {}: {}; start a joiner once, or restart one, which adds them",
        contract.version,
        missing.join(", ")
    )
    .into())
}

/// The rows, without those that are in the table `new_in`.
fn query(
    names: &Names,
    model: &Model,
    columns: &[String],
    version: i32,
    from: DateTime<Utc>,
    through_us: i64,
    new_in: Option<&str>,
) -> String {
    let from_us = from.timestamp_micros();
    let (join, is_new) = match new_in {
        Some(table) => (
            format!(
                "\n  LEFT JOIN (SELECT DISTINCT prediction_id FROM {table}) d ON d.prediction_id = p.prediction_id"
            ),
            " AND d.prediction_id IS NULL",
        ),
        None => (String::new(), ""),
    };
    let due = format!(
        "due AS (
  SELECT p.prediction_id, CAST({through_us} AS BIGINT) AS tick_us, p.flywheel_event_us AS event_us, p.exposure,
    {version} AS contract_version
  FROM sealed p{join}
  WHERE p.contract_version < {version} AND p.flywheel_event_us >= {from_us} AND p.flywheel_as_of_us <= {through_us}{is_new})"
    );
    let mut queries = vec![ticks::bars(names, model), ticks::firsts(names), ticks::sealed(model), due];
    queries.extend([labels::rules(model), labels::stated(names)]);
    queries.extend(labels::queries(names, model));
    let expressions = columns.iter().map(|name| {
        let expression = match (name.as_str(), labels::part(model, name)) {
            ("as_of", _) => names.timestamp("s.tick_us"),
            ("flags", _) => live::flags(names, model),
            (_, Some((part @ ("at" | "known"), label))) => names.timestamp(&format!("s.{part}_of_{label}")),
            (_, Some((part, label))) => format!("s.{part}_of_{label}"),
            (_, None) => format!("p.{}", names.column(name)),
        };
        format!("{expression} AS {}", names.column(name))
    });
    format!(
        "WITH {}\nSELECT {}\nFROM sealed p JOIN states s ON s.prediction_id = p.prediction_id",
        queries.join(",\n"),
        expressions.collect::<Vec<_>>().join(",\n  ")
    )
}
