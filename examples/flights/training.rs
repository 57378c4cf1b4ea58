//! Reading the tables back from Iceberg, as any other program would.

use std::future::Future;
use std::time::{Duration, Instant};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Float64Type, Int32Type, TimestampMicrosecondType};
use chrono::DateTime;
use flywheel_joiner::commands::status::completeness;
use flywheel_joiner::completeness::{Producer, Proof, Span};
use flywheel_joiner::table::{CatalogConfig, Predicate, TableError, Warehouse};
use flywheel_schemas::wire::Kind;
use futures::TryStreamExt as _;

use crate::model::{Example, Features};
use crate::{Error, MODEL};

/// How often the table is asked how far it is.
const LOOK: Duration = Duration::from_millis(20);
/// A joiner that is restarted, or whose broker is away, is back long before.
const STANDSTILL: Duration = Duration::from_secs(300);

pub struct Tables {
    warehouse: Warehouse,
}

/// A row of the training table to learn from, in the order of the ids.
pub struct Row {
    pub prediction_id: String,
    pub as_of_ms: i64,
    pub example: Example,
}

/// What was served and what came of it.
pub struct Served {
    pub prediction_id: String,
    pub model_version: String,
    pub late_probability: f64,
    /// Where it was observed.
    pub late: Option<bool>,
}

/// The rows of a label by what is known.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub struct Coverage {
    pub observed_true: u64,
    pub observed_false: u64,
    /// Observed, of a label that is no boolean.
    pub value: u64,
    pub default: u64,
    pub missing: u64,
    /// None of these; there should be none.
    pub other: u64,
}

/// What a sidecar says to have accepted of one kind, and what of it is in the raw table.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Completeness {
    pub accepted: u64,
    pub refused: u64,
    pub lost: u64,
    pub landed: u64,
    /// Numbers that a producer gave and that are not in the table.
    pub missing: u64,
}

impl Tables {
    pub async fn open(config: &CatalogConfig) -> Result<Tables, Error> {
        Ok(Tables { warehouse: Warehouse::open(config).await? })
    }

    /// Waits until the training table is complete through an instant.
    ///
    /// # Errors
    /// Nothing has moved for five minutes.
    pub async fn wait_through(&self, through_ms: i64) -> Result<(), Error> {
        let mut reached = None;
        let mut moved = Instant::now();
        loop {
            let now = self.patiently(|| completeness(&self.warehouse, MODEL)).await?.through_ms;
            if now.is_some_and(|now| now >= through_ms) {
                return Ok(());
            }
            if now != reached {
                (reached, moved) = (now, Instant::now());
            }
            if moved.elapsed() > STANDSTILL {
                let through = DateTime::from_timestamp_millis(through_ms).unwrap_or_default();
                return Err(format!(
                    "the training table has not moved for {} s on its way to {through}",
                    STANDSTILL.as_secs()
                )
                .into());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Everything known as of an instant whose lateness was observed, in the order of the ids.
    pub async fn rows(&self, as_of_ms: i64) -> Result<Vec<Row>, Error> {
        const COLUMNS: [&str; 13] = [
            "prediction_id",
            "as_of",
            "event_time",
            "carrier",
            "origin",
            "distance_mi",
            "dep_delay_min",
            "temp_f",
            "wind_mph",
            "precip_in",
            "visibility_mi",
            "label_late15",
            "label_late15_status",
        ];
        let mut rows = Vec::new();
        self.read("training", &COLUMNS, |batch| {
            let columns = Columns(batch);
            for row in 0..batch.num_rows() {
                let seen = columns.time_ms("as_of", row)? <= as_of_ms;
                if !seen || columns.text("label_late15_status", row)? != "observed" {
                    continue;
                }
                let features = Features {
                    departed_at: DateTime::from_timestamp_millis(columns.time_ms("event_time", row)?)
                        .unwrap_or_default(),
                    carrier: columns.text("carrier", row)?.to_owned(),
                    origin: columns.text("origin", row)?.to_owned(),
                    distance_mi: columns.int("distance_mi", row)?,
                    dep_delay_min: columns.int("dep_delay_min", row)?,
                    temp_f: columns.double("temp_f", row)?,
                    wind_mph: columns.double("wind_mph", row)?,
                    precip_in: columns.double("precip_in", row)?,
                    visibility_mi: columns.double("visibility_mi", row)?,
                };
                let late = columns.boolean("label_late15", row)?.ok_or("an observed label without a value")?;
                rows.push(Row {
                    prediction_id: columns.text("prediction_id", row)?.to_owned(),
                    as_of_ms: columns.time_ms("as_of", row)?,
                    example: Example { features, late },
                });
            }
            Ok(())
        })
        .await?;
        rows.sort_by(|a, b| a.prediction_id.cmp(&b.prediction_id));
        Ok(rows)
    }

    /// Every row with what was served.
    pub async fn served(&self) -> Result<Vec<Served>, Error> {
        const COLUMNS: [&str; 5] =
            ["prediction_id", "model_version", "prediction_late_probability", "label_late15", "label_late15_status"];
        let mut served = Vec::new();
        self.read("training", &COLUMNS, |batch| {
            let columns = Columns(batch);
            for row in 0..batch.num_rows() {
                let observed = columns.text("label_late15_status", row)? == "observed";
                served.push(Served {
                    prediction_id: columns.text("prediction_id", row)?.to_owned(),
                    model_version: columns.text("model_version", row)?.to_owned(),
                    late_probability: columns.double("prediction_late_probability", row)?.unwrap_or(f64::NAN),
                    late: columns.boolean("label_late15", row)?.filter(|_| observed),
                });
            }
            Ok(())
        })
        .await?;
        served.sort_by(|a, b| a.prediction_id.cmp(&b.prediction_id));
        Ok(served)
    }

    /// What is known of a label.
    pub async fn coverage(&self, label: &str, is_boolean: bool) -> Result<Coverage, Error> {
        let (value, status) = (format!("label_{label}"), format!("label_{label}_status"));
        let mut coverage = Coverage::default();
        self.read("training", &[&value, &status], |batch| {
            let columns = Columns(batch);
            for row in 0..batch.num_rows() {
                let counter = match (columns.text(&status, row)?, is_boolean) {
                    ("observed", true) if columns.boolean(&value, row)? == Some(true) => &mut coverage.observed_true,
                    ("observed", true) => &mut coverage.observed_false,
                    ("observed", false) => &mut coverage.value,
                    ("default", _) => &mut coverage.default,
                    ("missing", _) => &mut coverage.missing,
                    _ => &mut coverage.other,
                };
                *counter += 1;
            }
            Ok(())
        })
        .await?;
        Ok(coverage)
    }

    /// The ledger against the raw table of a kind, `predictions` or `outcomes`.
    pub async fn completeness(&self, kind: &str) -> Result<Completeness, Error> {
        let kind = if kind == "outcomes" { Kind::Outcomes } else { Kind::Predictions };
        let proof = self.patiently(|| Proof::read(&self.warehouse, MODEL, kind)).await?;
        let sum = |count: fn(&Producer) -> u64| proof.producers.values().map(count).sum();
        Ok(Completeness {
            accepted: sum(|producer| producer.accepted),
            refused: sum(|producer| producer.refused),
            lost: sum(Producer::lost),
            landed: sum(Producer::landed),
            missing: sum(|producer| producer.missing().iter().map(Span::count).sum()),
        })
    }

    async fn read(
        &self,
        which: &str,
        columns: &[&str],
        take: impl FnMut(&RecordBatch) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.read_table(&format!("{MODEL}_{which}"), columns, take).await
    }

    async fn read_table(
        &self,
        name: &str,
        columns: &[&str],
        mut take: impl FnMut(&RecordBatch) -> Result<(), Error>,
    ) -> Result<(), Error> {
        // Collected before anything is taken: a store that goes away in the middle is asked again from the start.
        let batches = self
            .patiently(async || match self.warehouse.load(name).await? {
                Some(table) => table.scan(columns, Predicate::All).await?.try_collect::<Vec<_>>().await,
                None => Ok(Vec::new()),
            })
            .await?;
        batches.iter().try_for_each(&mut take)
    }

    /// Repeats what fails for a reason that passes.
    async fn patiently<T, F>(&self, mut action: impl FnMut() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, TableError>>,
    {
        let end = Instant::now() + STANDSTILL;
        loop {
            match action().await {
                Err(error) if error.is_passing() && Instant::now() < end => tokio::time::sleep(LOOK * 10).await,
                result => return result.map_err(Into::into),
            }
        }
    }
}

/// The columns of a batch by name and type.
struct Columns<'a>(&'a RecordBatch);

impl<'a> Columns<'a> {
    fn column(&self, name: &str) -> Result<&'a dyn Array, Error> {
        let column = self.0.column_by_name(name).ok_or_else(|| format!("the table has no column {name}"))?;
        Ok(column.as_ref())
    }

    fn text(&self, name: &str, row: usize) -> Result<&'a str, Error> {
        Ok(self.column(name)?.as_string_opt::<i32>().ok_or_else(|| unlike(name))?.value(row))
    }

    fn int(&self, name: &str, row: usize) -> Result<i32, Error> {
        Ok(self.column(name)?.as_primitive_opt::<Int32Type>().ok_or_else(|| unlike(name))?.value(row))
    }

    fn time_ms(&self, name: &str, row: usize) -> Result<i64, Error> {
        let column = self.column(name)?.as_primitive_opt::<TimestampMicrosecondType>().ok_or_else(|| unlike(name))?;
        Ok(column.value(row).div_euclid(1000))
    }

    fn double(&self, name: &str, row: usize) -> Result<Option<f64>, Error> {
        let column = self.column(name)?.as_primitive_opt::<Float64Type>().ok_or_else(|| unlike(name))?;
        Ok(column.is_valid(row).then(|| column.value(row)))
    }

    fn boolean(&self, name: &str, row: usize) -> Result<Option<bool>, Error> {
        let column = self.column(name)?.as_boolean_opt().ok_or_else(|| unlike(name))?;
        Ok(column.is_valid(row).then(|| column.value(row)))
    }
}

fn unlike(name: &str) -> Error {
    format!("column {name} has another type than the contract gives it").into()
}
