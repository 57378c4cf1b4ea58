//! A Parquet file that is no table's: rows that somebody brings.

use std::fs::File;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::errors::ParquetError;

/// Rows that are read at a time.
const ROWS: usize = 1000;

/// The columns of a file and its rows.
///
/// # Errors
/// What is no Parquet.
pub fn read(
    file: File,
) -> Result<(SchemaRef, impl Iterator<Item = Result<RecordBatch, ArrowError>> + Send + 'static), ParquetError> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(file)?;
    Ok((builder.schema().clone(), builder.with_batch_size(ROWS).build()?))
}
