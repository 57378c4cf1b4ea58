//! Reading rows back.
//!
//! A scan skips days and files by the partition and the column bounds in the manifests, row groups by their
//! statistics, and gives exactly the rows that the predicate is true for. Columns come in the order asked for and
//! with the types of [`Table::arrow_schema`]; a column that was added after the snapshot is null.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use iceberg::expr::{self, Reference};
use iceberg::scan::TableScan;
use iceberg::spec::Datum;

use super::{Table, TableError};

/// Which rows. Times are ms since the epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Predicate {
    All,
    /// `event_time` from the first, before the second.
    EventTimeBetween(i64, i64),
    /// `event_time` at or after.
    EventTimeFrom(i64),
    /// `event_time` before.
    EventTimeBefore(i64),
    /// `ingest_time` from the first, before the second.
    IngestTimeBetween(i64, i64),
    /// `ingest_time` at or after.
    IngestTimeFrom(i64),
    /// `received_at` at or after.
    ReceivedFrom(i64),
    /// `kafka_partition` is.
    Partition(i32),
    /// `kafka_offset` at or after.
    OffsetFrom(i64),
    /// `kafka_offset` before.
    OffsetBefore(i64),
    /// `prediction_id` from the first, before the second.
    PredictionIdBetween(String, String),
    /// `prediction_id` is one of these.
    PredictionIds(Vec<String>),
    And(Vec<Predicate>),
    Or(Vec<Predicate>),
}

impl Predicate {
    fn expression(&self) -> expr::Predicate {
        let between = |column: &str, from_ms: i64, before_ms: i64| {
            Reference::new(column)
                .greater_than_or_equal_to(time(from_ms))
                .and(Reference::new(column).less_than(time(before_ms)))
        };
        match self {
            Predicate::All => expr::Predicate::AlwaysTrue,
            Predicate::EventTimeBetween(from_ms, before_ms) => between("event_time", *from_ms, *before_ms),
            Predicate::EventTimeFrom(from_ms) => Reference::new("event_time").greater_than_or_equal_to(time(*from_ms)),
            Predicate::EventTimeBefore(before_ms) => Reference::new("event_time").less_than(time(*before_ms)),
            Predicate::IngestTimeBetween(from_ms, before_ms) => between("ingest_time", *from_ms, *before_ms),
            Predicate::IngestTimeFrom(from_ms) => {
                Reference::new("ingest_time").greater_than_or_equal_to(time(*from_ms))
            }
            Predicate::ReceivedFrom(from_ms) => Reference::new("received_at").greater_than_or_equal_to(time(*from_ms)),
            Predicate::Partition(partition) => Reference::new("kafka_partition").equal_to(Datum::int(*partition)),
            Predicate::OffsetFrom(offset) => {
                Reference::new("kafka_offset").greater_than_or_equal_to(Datum::long(*offset))
            }
            Predicate::OffsetBefore(offset) => Reference::new("kafka_offset").less_than(Datum::long(*offset)),
            Predicate::PredictionIdBetween(from, before) => Reference::new("prediction_id")
                .greater_than_or_equal_to(Datum::string(from))
                .and(Reference::new("prediction_id").less_than(Datum::string(before))),
            Predicate::PredictionIds(ids) if ids.is_empty() => expr::Predicate::AlwaysFalse,
            Predicate::PredictionIds(ids) => Reference::new("prediction_id").is_in(ids.iter().map(Datum::string)),
            Predicate::And(all) => {
                all.iter().map(Predicate::expression).fold(expr::Predicate::AlwaysTrue, expr::Predicate::and)
            }
            Predicate::Or(any) => {
                any.iter().map(Predicate::expression).fold(expr::Predicate::AlwaysFalse, expr::Predicate::or)
            }
        }
    }
}

fn time(at_ms: i64) -> Datum {
    Datum::timestamptz_micros(at_ms.saturating_mul(1000))
}

impl Table {
    /// The rows of the state that was loaded last.
    ///
    /// # Errors
    /// [`TableError::Schema`] for a column that the table does not have; else of the store.
    pub async fn scan(
        &self,
        columns: &[&str],
        predicate: Predicate,
    ) -> Result<BoxStream<'static, Result<RecordBatch, TableError>>, TableError> {
        let schema = self.project(columns)?;
        let scan = self.prepare(columns, &predicate)?;
        let table = self.name().to_owned();
        let failed = {
            let table = table.clone();
            move |error| TableError::iceberg(&table, "reading rows", error)
        };
        let batches = scan.to_arrow().await.map_err(&failed)?;
        Ok(batches
            .map_err(failed)
            .and_then(move |batch| {
                let aligned = align(&batch, &schema).map_err(|source| TableError::Arrow {
                    table: table.clone(),
                    action: "reading rows",
                    source,
                });
                futures::future::ready(aligned)
            })
            .boxed())
    }

    /// How many files a scan would open.
    ///
    /// # Errors
    /// Of the store.
    pub async fn count_files(&self, predicate: &Predicate) -> Result<usize, TableError> {
        let failed = |error| TableError::iceberg(self.name(), "planning a scan", error);
        let scan = self.prepare(&[], predicate)?;
        let mut tasks = scan.plan_files().await.map_err(failed)?;
        let mut files = std::collections::HashSet::new();
        while let Some(task) = tasks.try_next().await.map_err(failed)? {
            files.insert(task.data_file_path);
        }
        Ok(files.len())
    }

    fn project(&self, columns: &[&str]) -> Result<SchemaRef, TableError> {
        let mut fields = Vec::with_capacity(columns.len());
        let mut faults = Vec::new();
        for name in columns {
            match self.arrow.field_with_name(name) {
                Ok(field) => fields.push(field.clone()),
                Err(_) => faults.push(format!("there is no column `{name}`")),
            }
        }
        if faults.is_empty() {
            Ok(Arc::new(Schema::new(fields)))
        } else {
            Err(TableError::Schema { table: self.name().to_owned(), faults })
        }
    }

    fn prepare(&self, columns: &[&str], predicate: &Predicate) -> Result<TableScan, TableError> {
        let failed = |error| TableError::iceberg(self.name(), "planning a scan", error);
        let metadata = self.state.metadata();
        // A snapshot is read by the schema it was made with, which may lack columns that were added since.
        let schema = match metadata.current_snapshot() {
            Some(snapshot) => snapshot.schema(metadata).map_err(failed)?,
            None => metadata.current_schema().clone(),
        };
        let mut known: Vec<&str> =
            columns.iter().copied().filter(|name| schema.field_by_name(name).is_some()).collect();
        if known.is_empty() {
            // Rows are counted by some column; the first one there is always serves.
            known.extend(schema.as_struct().fields().first().map(|field| field.name.as_str()));
        }
        // In the order of the table, which is that of its files: columns that are asked for in another one, and are of the
        // same types place by place, the iceberg crate takes for renamed ones, and gives one the values of another.
        let place = |name: &str| schema.as_struct().fields().iter().position(|field| field.name == name);
        known.sort_by_key(|name| place(name));
        known.dedup();
        self.state.scan().select(known).with_filter(predicate.expression()).build().map_err(failed)
    }
}

fn align(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let columns = schema.fields().iter().map(|field| -> Result<ArrayRef, ArrowError> {
        match batch.column_by_name(field.name()) {
            None => Ok(new_null_array(field.data_type(), batch.num_rows())),
            Some(column) if column.data_type() == field.data_type() => Ok(column.clone()),
            Some(column) => cast(column, field.data_type()),
        }
    });
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(schema.clone(), columns, &options)
}
