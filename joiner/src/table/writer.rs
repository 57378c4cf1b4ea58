//! Rows into Parquet files, one set of files per day.
//!
//! Columns are matched by name to the order of the table and cast to its types: the crate that splits rows by
//! partition goes by position, and would split by a wrong column in silence. A column that a batch lacks is null; one
//! that the table lacks is an error, for its values would be lost.
//!
//! Small batches are gathered to [`ROWS`] rows before they are split, which is where splitting and encoding are
//! cheap. Where the table is partitioned by day alone, as ours are made, they are split here: the crate's way makes a
//! struct of each row. At most [`OPEN_MAX`] days are open at a time, each holding one row group in memory; when another
//! is needed the one that was written to longest ago is closed into a file of its own. Nothing is part of the table
//! until the files are committed; those of a writer that is dropped are orphans.

use std::collections::{BTreeSet, HashMap};

use arrow::array::{Array, ArrayRef, AsArray as _, BooleanArray, RecordBatch, new_null_array};
use arrow::compute::{CastOptions, cast_with_options, concat_batches, filter_record_batch};
use arrow::datatypes::{SchemaRef, TimestampMicrosecondType};
use arrow::error::ArrowError;
use iceberg::arrow::RecordBatchPartitionSplitter;
use iceberg::spec::{DataFile, PartitionKey, Struct, Transform};
use iceberg::writer::base_writer::data_file_writer::{DataFileWriter, DataFileWriterBuilder};
use iceberg::writer::file_writer::ParquetWriterBuilder;
use iceberg::writer::file_writer::rolling_writer::RollingFileWriterBuilder;
use iceberg::writer::{IcebergWriter, IcebergWriterBuilder};
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use super::location::{Location, Names};
use super::{Table, TableError, schema};

/// Rows that are gathered before they are split and encoded…
const ROWS: usize = 8192;
/// …or bytes, for rows that are large.
const GATHERED_BYTES: usize = 16 * 1024 * 1024;
/// Open days. Replays and late records spread; each open day costs up to a row group of memory.
const OPEN_MAX: usize = 16;
/// Limits of a row group, and thereby of the memory of an open file.
const GROUP_ROWS: usize = 64 * 1024;
const GROUP_BYTES: usize = 16 * 1024 * 1024;
/// A column chunk whose dictionary grows beyond this goes on without one: ids and measurements hardly repeat, and a
/// dictionary of all of them costs a look-up for each and saves nothing.
const DICTIONARY_BYTES: usize = 64 * 1024;

const DAY_US: i64 = 86_400_000_000;

type Files = DataFileWriter<ParquetWriterBuilder, Location, Names>;

/// Writes rows of one table into files that a commit then adds to it.
pub struct Writer {
    table: String,
    arrow: SchemaRef,
    splitter: RecordBatchPartitionSplitter,
    /// The column by whose day alone the table is partitioned, if it is.
    day_of: Option<usize>,
    builder: DataFileWriterBuilder<ParquetWriterBuilder, Location, Names>,
    open: HashMap<Struct, Open>,
    files: Vec<DataFile>,
    gathered: Vec<RecordBatch>,
    gathered_bytes: usize,
    gathered_rows: usize,
    rows: u64,
    turn: u64,
}

struct Open {
    files: Files,
    /// The turn of the last write.
    written: u64,
}

impl Table {
    /// A writer for the table as it was loaded last.
    ///
    /// # Errors
    /// Of the table's schema and partition.
    pub fn writer(&self) -> Result<Writer, TableError> {
        let metadata = self.state.metadata();
        let schema = metadata.current_schema().clone();
        let failed = |error| TableError::iceberg(self.name(), "preparing to write", error);
        let splitter = RecordBatchPartitionSplitter::try_new_with_computed_values(
            schema.clone(),
            metadata.default_partition_spec().clone(),
        )
        .map_err(failed)?;
        let day_of = match metadata.default_partition_spec().fields() {
            [field] if field.transform == Transform::Day => {
                schema.field_by_id(field.source_id).and_then(|field| self.arrow.index_of(&field.name).ok())
            }
            _ => None,
        };
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_max_row_group_row_count(Some(GROUP_ROWS))
            .set_max_row_group_bytes(Some(GROUP_BYTES))
            .set_dictionary_page_size_limit(DICTIONARY_BYTES)
            .build();
        let rolling = RollingFileWriterBuilder::new(
            ParquetWriterBuilder::new(properties, schema),
            schema::TARGET_FILE_BYTES,
            self.state.file_io().clone(),
            Location::of(metadata),
            Names,
        );
        Ok(Writer {
            table: self.name().to_owned(),
            arrow: self.arrow.clone(),
            splitter,
            day_of,
            builder: DataFileWriterBuilder::new(rolling),
            open: HashMap::new(),
            files: Vec::new(),
            gathered: Vec::new(),
            gathered_bytes: 0,
            gathered_rows: 0,
            rows: 0,
            turn: 0,
        })
    }
}

impl Writer {
    /// Rows that were given to it.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Takes rows.
    ///
    /// # Errors
    /// A column that the table lacks, that cannot be cast or that must not be null; or of the store. The writer is of
    /// no use after an error.
    pub async fn write(&mut self, batch: &RecordBatch) -> Result<(), TableError> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let batch = self.align(batch)?;
        self.rows += batch.num_rows() as u64;
        self.gathered_rows += batch.num_rows();
        self.gathered_bytes += batch.get_array_memory_size();
        self.gathered.push(batch);
        if self.gathered_rows >= ROWS || self.gathered_bytes >= GATHERED_BYTES {
            self.flush().await?;
        }
        Ok(())
    }

    /// Closes all files and gives them, to be committed. None where there were no rows.
    ///
    /// # Errors
    /// Of the store.
    pub async fn close(mut self) -> Result<Vec<DataFile>, TableError> {
        self.flush().await?;
        for (_, mut open) in std::mem::take(&mut self.open) {
            self.files.extend(open.files.close().await.map_err(|error| self.failed(error))?);
        }
        Ok(self.files)
    }

    /// The rows in table order and with the table's types.
    fn align(&self, batch: &RecordBatch) -> Result<RecordBatch, TableError> {
        let given = batch.schema();
        let unknown: Vec<String> = given
            .fields()
            .iter()
            .filter(|field| self.arrow.column_with_name(field.name()).is_none())
            .map(|field| format!("there is no column `{}`, add it to the table before rows are written", field.name()))
            .collect();
        if !unknown.is_empty() {
            return Err(TableError::Schema { table: self.table.clone(), faults: unknown });
        }
        let options = CastOptions { safe: false, ..CastOptions::default() };
        let columns = self.arrow.fields().iter().map(|field| -> Result<ArrayRef, ArrowError> {
            match batch.column_by_name(field.name()) {
                None => Ok(new_null_array(field.data_type(), batch.num_rows())),
                Some(column) if column.data_type() == field.data_type() => Ok(column.clone()),
                Some(column) => cast_with_options(column, field.data_type(), &options),
            }
        });
        columns
            .collect::<Result<Vec<_>, _>>()
            .and_then(|columns| RecordBatch::try_new(self.arrow.clone(), columns))
            .map_err(|source| TableError::Arrow { table: self.table.clone(), action: "matching columns", source })
    }

    async fn flush(&mut self) -> Result<(), TableError> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let batches = std::mem::take(&mut self.gathered);
        self.gathered_rows = 0;
        self.gathered_bytes = 0;
        let batch = concat_batches(&self.arrow, &batches).map_err(|source| TableError::Arrow {
            table: self.table.clone(),
            action: "gathering rows",
            source,
        })?;
        drop(batches);
        let mut parts = self.split(&batch)?;
        // In a stable order, so that files close in one too.
        parts.sort_by_cached_key(|(key, _)| key.to_path());
        for (key, rows) in parts {
            self.write_part(key, rows).await?;
        }
        Ok(())
    }

    /// The rows by partition.
    fn split(&self, batch: &RecordBatch) -> Result<Vec<(PartitionKey, RecordBatch)>, TableError> {
        let times = self.day_of.and_then(|place| batch.column(place).as_primitive_opt::<TimestampMicrosecondType>());
        let Some(times) = times.filter(|times| times.null_count() == 0) else {
            return self.splitter.split(batch).map_err(|error| self.failed(error));
        };
        let day = |time: &i64| time.div_euclid(DAY_US);
        let days: BTreeSet<i64> = times.values().iter().map(day).collect();
        let mut parts = Vec::with_capacity(days.len());
        for each in &days {
            let rows = if days.len() == 1 {
                batch.clone()
            } else {
                let chosen = BooleanArray::from_iter(times.values().iter().map(|time| Some(day(time) == *each)));
                filter_record_batch(batch, &chosen).map_err(|source| TableError::Arrow {
                    table: self.table.clone(),
                    action: "splitting rows by day",
                    source,
                })?
            };
            // The key of one of them is that of all.
            let keys = self.splitter.split(&rows.slice(0, 1)).map_err(|error| self.failed(error))?;
            parts.extend(keys.into_iter().map(|(key, _)| (key, rows.clone())));
        }
        Ok(parts)
    }

    async fn write_part(&mut self, key: PartitionKey, rows: RecordBatch) -> Result<(), TableError> {
        self.turn += 1;
        let written = self.turn;
        if !self.open.contains_key(key.data()) {
            self.make_room().await?;
            let files = self.builder.build(Some(key.clone())).await.map_err(|error| self.failed(error))?;
            self.open.insert(key.data().clone(), Open { files, written });
        }
        if let Some(open) = self.open.get_mut(key.data()) {
            open.written = written;
            let result = open.files.write(rows).await;
            result.map_err(|error| self.failed(error))?;
        }
        Ok(())
    }

    /// Closes the day that was written to longest ago, where as many are open as may be.
    async fn make_room(&mut self) -> Result<(), TableError> {
        if self.open.len() < OPEN_MAX {
            return Ok(());
        }
        let oldest = self.open.iter().min_by_key(|(_, open)| open.written).map(|(key, _)| key.clone());
        if let Some(mut open) = oldest.and_then(|key| self.open.remove(&key)) {
            let closed = open.files.close().await.map_err(|error| self.failed(error))?;
            self.files.extend(closed);
        }
        Ok(())
    }

    fn failed(&self, error: iceberg::Error) -> TableError {
        TableError::iceberg(&self.table, "writing rows", error)
    }

    #[cfg(test)]
    pub(super) async fn flush_for_tests(&mut self) -> Result<(), TableError> {
        self.flush().await
    }

    #[cfg(test)]
    pub(super) fn open_for_tests(&self) -> usize {
        self.open.len()
    }
}
