//! Landing as a program of few lines would do it: the framed datums decoded by arrow-avro, the coordinates as columns
//! beside them, all of it into one Parquet file. No check of an id, no partition, no table.

use std::error::Error;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema};
use arrow_avro::reader::{Decoder, ReaderBuilder};
use arrow_avro::schema::{AvroSchema, Fingerprint, FingerprintAlgorithm, SchemaStore};
use flywheel_joiner::source::Record;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

/// Rows of a batch and of a row group, as the joiner's writer has them.
const BATCH_ROWS: usize = 8192;
const GROUP_ROWS: usize = 64 * 1024;

/// Writes the values of `records` to `file` and gives the names of its columns.
pub fn land(records: &[Record], schema: &str, schema_id: u32, file: &Path) -> Result<Vec<String>, Box<dyn Error>> {
    let mut store = SchemaStore::new_with_type(FingerprintAlgorithm::Id);
    store.set(Fingerprint::Id(schema_id), AvroSchema::new(schema.to_owned()))?;
    let mut decoder = ReaderBuilder::new()
        .with_batch_size(BATCH_ROWS)
        .with_writer_schema_store(store)
        .with_active_fingerprint(Fingerprint::Id(schema_id))
        .build_decoder()?;
    let mut writer: Option<ArrowWriter<File>> = None;
    for records in records.chunks(BATCH_ROWS) {
        let batch = batch(&mut decoder, records)?;
        let writer = match &mut writer {
            Some(writer) => writer,
            None => writer.insert(ArrowWriter::try_new(File::create(file)?, batch.schema(), Some(properties()))?),
        };
        writer.write(&batch)?;
    }
    let writer = writer.ok_or("no records")?;
    let metadata = writer.close()?;
    Ok(metadata.file_metadata().schema().get_fields().iter().map(|field| field.name().to_owned()).collect())
}

fn properties() -> WriterProperties {
    WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(Some(GROUP_ROWS))
        .build()
}

/// The records of the datum are taken apart to top-level columns, which copies nothing.
fn batch(decoder: &mut Decoder, records: &[Record]) -> Result<RecordBatch, Box<dyn Error>> {
    for record in records {
        let value = record.value.as_deref().ok_or("no value")?;
        if decoder.decode(value)? != value.len() {
            return Err("a datum was not read whole".into());
        }
    }
    let decoded = decoder.flush()?.ok_or("nothing was decoded")?;
    let (mut fields, mut columns) = (Vec::new(), Vec::new());
    for (field, column) in decoded.schema().fields().iter().zip(decoded.columns()) {
        match field.data_type() {
            DataType::Struct(inner) => {
                // The one record whose fields are columns of another name.
                let prefix = if field.name() == "prediction" { "prediction_" } else { "" };
                let named =
                    |inner: &Arc<Field>| Arc::new(Field::clone(inner).with_name(format!("{prefix}{}", inner.name())));
                fields.extend(inner.iter().map(named));
                columns.extend(column.as_struct().columns().iter().cloned());
            }
            _ => {
                fields.push(field.clone());
                columns.push(column.clone());
            }
        }
    }
    let mut add = |name: &str, column: ArrayRef| {
        fields.push(Arc::new(Field::new(name, column.data_type().clone(), true)));
        columns.push(column);
    };
    let times = TimestampMicrosecondArray::from_iter_values(records.iter().map(|record| record.time_ms * 1000));
    add("ingest_time", Arc::new(times.with_timezone("+00:00")));
    add("kafka_partition", Arc::new(Int32Array::from_iter_values(records.iter().map(|record| record.partition))));
    add("kafka_offset", Arc::new(Int64Array::from_iter_values(records.iter().map(|record| record.offset))));
    add("producer_id", Arc::new(StringArray::from_iter(records.iter().map(|record| record.producer_id.as_deref()))));
    add("producer_seq", Arc::new(Int64Array::from_iter(records.iter().map(|record| record.producer_seq))));
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}
