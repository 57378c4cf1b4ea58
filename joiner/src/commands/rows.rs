//! Rows of a table as JSON, for people and for `jq`: what is null is left out.
//!
//! Numbers and truth values are JSON's own where JSON can hold them, instants RFC 3339, bytes hexadecimal, and everything else
//! (decimals, dates, floats that are not finite) its text.

use arrow::array::{Array, AsArray as _, RecordBatch};
use arrow::datatypes::{DataType, Float32Type, Float64Type, Int32Type, Int64Type};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use futures::{Stream, TryStreamExt as _, stream};
use serde_json::{Map, Number, Value};

use crate::table::{Predicate, Table, TableError};

/// Hands on the rows of `table` for which the predicate is true, one by one.
///
/// # Errors
/// Of the store.
pub async fn each(
    table: &Table,
    predicate: Predicate,
    mut take: impl FnMut(Map<String, Value>),
) -> Result<(), TableError> {
    let schema = table.arrow_schema();
    let columns: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    let mut batches = table.scan(&columns, predicate).await?;
    while let Some(batch) = batches.try_next().await? {
        for row in 0..batch.num_rows() {
            let cells = object(&batch, row).map_err(|source| TableError::Arrow {
                table: table.name().to_owned(),
                action: "showing rows",
                source,
            })?;
            take(cells);
        }
    }
    Ok(())
}

/// The same one by one, for who does with a row what takes time.
///
/// # Errors
/// Of the store.
pub async fn stream(
    table: &Table,
    predicate: Predicate,
) -> Result<impl Stream<Item = Result<Map<String, Value>, TableError>>, TableError> {
    let schema = table.arrow_schema();
    let columns: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    let name = table.name().to_owned();
    let batches = table.scan(&columns, predicate).await?;
    let rows = batches.map_ok(move |batch| {
        let name = name.clone();
        let rows = (0..batch.num_rows()).map(move |row| {
            let failed = |source| TableError::Arrow { table: name.clone(), action: "showing rows", source };
            object(&batch, row).map_err(failed)
        });
        stream::iter(rows)
    });
    Ok(rows.try_flatten())
}

fn object(batch: &RecordBatch, row: usize) -> Result<Map<String, Value>, ArrowError> {
    let schema = batch.schema_ref();
    let mut cells = Map::new();
    for (field, column) in schema.fields().iter().zip(batch.columns()) {
        if column.is_valid(row) {
            cells.insert(field.name().clone(), value(column.as_ref(), row)?);
        }
    }
    Ok(cells)
}

fn value(array: &dyn Array, row: usize) -> Result<Value, ArrowError> {
    if array.is_null(row) {
        return Ok(Value::Null);
    }
    let float = |value: f64| Number::from_f64(value).map(Value::Number);
    let plain = match array.data_type() {
        DataType::Boolean => Some(Value::Bool(array.as_boolean().value(row))),
        DataType::Int32 => Some(array.as_primitive::<Int32Type>().value(row).into()),
        DataType::Int64 => Some(array.as_primitive::<Int64Type>().value(row).into()),
        DataType::Float32 => float(array.as_primitive::<Float32Type>().value(row).into()),
        DataType::Float64 => float(array.as_primitive::<Float64Type>().value(row)),
        DataType::List(_) => {
            let items = array.as_list::<i32>().value(row);
            let items = (0..items.len()).map(|item| value(items.as_ref(), item));
            Some(Value::Array(items.collect::<Result<_, _>>()?))
        }
        DataType::Struct(fields) => {
            let mut members = Map::new();
            for (field, column) in fields.iter().zip(array.as_struct().columns()) {
                members.insert(field.name().clone(), value(column.as_ref(), row)?);
            }
            Some(Value::Object(members))
        }
        _ => None,
    };
    match plain {
        Some(plain) => Ok(plain),
        None => {
            let options = FormatOptions::default().with_timestamp_tz_format(Some("%Y-%m-%dT%H:%M:%S%.6fZ"));
            Ok(Value::String(ArrayFormatter::try_new(array, &options)?.value(row).try_to_string()?))
        }
    }
}
