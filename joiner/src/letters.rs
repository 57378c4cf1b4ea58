//! What is kept beside the raw tables: dead letters and the seal log. Both are appended at least once and have natural
//! keys: a joiner that dies between such an append and its raw commit writes the same rows again.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryArray, Int32Array, Int64Array, ListBuilder, RecordBatch, StringArray, StringBuilder,
    TimestampMicrosecondArray,
};
use futures::TryStreamExt;

use crate::bar::{Bar, Barred};
use crate::pipeline::PipelineError;
use crate::source::Record;
use crate::table::{Predicate, Table};

/// Of a body no more than this is kept, in bytes: enough to see what it was.
pub(crate) const BODY_BYTES_MAX: usize = 64 * 1024;

/// A record that could not be landed.
#[derive(Debug, Clone)]
pub(crate) struct DeadLetter {
    model: String,
    kind: &'static str,
    reason: &'static str,
    detail: String,
    body: Vec<u8>,
    body_bytes: usize,
    received_ms: i64,
    topic: String,
    partition: i32,
    offset: i64,
}

impl DeadLetter {
    pub fn new(
        model: &str,
        topic: String,
        record: &Record,
        received_ms: i64,
        reason: &'static str,
        detail: String,
    ) -> DeadLetter {
        let body = record.value.as_deref().unwrap_or_default();
        DeadLetter {
            model: model.to_owned(),
            kind: record.kind.name(),
            reason,
            detail,
            body: body[..body.len().min(BODY_BYTES_MAX)].to_vec(),
            body_bytes: body.len(),
            received_ms,
            topic,
            partition: record.partition,
            offset: record.offset,
        }
    }

    pub fn bytes(&self) -> usize {
        self.body.len() + self.detail.len() + 256
    }
}

/// Appends dead letters; the id is the coordinates, so that a letter that is written twice has one id.
pub(crate) async fn append(table: &mut Table, letters: &[DeadLetter]) -> Result<(), PipelineError> {
    let text =
        |of: fn(&DeadLetter) -> String| -> ArrayRef { Arc::new(StringArray::from_iter_values(letters.iter().map(of))) };
    let mut faults = ListBuilder::new(StringBuilder::new());
    for letter in letters {
        faults.values().append_value(&letter.detail);
        faults.append(true);
    }
    let received = letters.iter().map(|letter| letter.received_ms * 1000);
    let body_bytes = letters.iter().map(|letter| i64::try_from(letter.body_bytes).unwrap_or(i64::MAX));
    let rows = RecordBatch::try_from_iter([
        ("dead_letter_id", text(|letter| format!("{}/{}/{}", letter.topic, letter.partition, letter.offset))),
        ("model", text(|letter| letter.model.clone())),
        ("kind", text(|letter| letter.kind.to_owned())),
        ("reason", text(|letter| letter.reason.to_owned())),
        ("faults", Arc::new(faults.finish()) as ArrayRef),
        ("body", Arc::new(BinaryArray::from_iter_values(letters.iter().map(|letter| &letter.body)))),
        ("body_bytes", Arc::new(Int64Array::from_iter_values(body_bytes))),
        ("received_at", Arc::new(TimestampMicrosecondArray::from_iter_values(received).with_timezone("+00:00"))),
        ("topic", text(|letter| letter.topic.clone())),
        ("kafka_partition", Arc::new(Int32Array::from_iter_values(letters.iter().map(|letter| letter.partition)))),
        ("kafka_offset", Arc::new(Int64Array::from_iter_values(letters.iter().map(|letter| letter.offset)))),
    ])
    .map_err(PipelineError::decode)?;
    append_rows(table, &rows).await
}

/// Appends bars of a model's partitions to the seal log. A bar without an `after` is a partition's start.
pub(crate) async fn append_bars(table: &mut Table, model: &str, bars: &[Barred]) -> Result<(), PipelineError> {
    let after: TimestampMicrosecondArray =
        bars.iter().map(|barred| barred.bar.after_ms.map(|after| after * 1000)).collect();
    let through = bars.iter().map(|barred| barred.bar.through_ms * 1000);
    let causes = bars.iter().map(|barred| &barred.cause);
    let rows = RecordBatch::try_from_iter([
        ("model", Arc::new(StringArray::from_iter_values(bars.iter().map(|_| model))) as ArrayRef),
        ("kafka_partition", Arc::new(Int32Array::from_iter_values(bars.iter().map(|barred| barred.partition)))),
        ("closed_after", Arc::new(after.with_timezone("+00:00"))),
        ("closed_through", Arc::new(TimestampMicrosecondArray::from_iter_values(through).with_timezone("+00:00"))),
        ("cause", Arc::new(StringArray::from_iter_values(causes))),
    ])
    .map_err(PipelineError::decode)?;
    append_rows(table, &rows).await
}

/// The bars that the seal log has for some partitions of a model.
pub(crate) async fn read_bars(table: &Table, model: &str, numbers: &[i32]) -> Result<Vec<(i32, Bar)>, PipelineError> {
    let any = Predicate::Or(numbers.iter().map(|number| Predicate::Partition(*number)).collect());
    let mut stream = Box::pin(table.scan(&["model", "kafka_partition", "closed_after", "closed_through"], any).await?);
    let mut bars = Vec::new();
    while let Some(batch) = stream.try_next().await? {
        let models: &StringArray = column(&batch, "model")?;
        let partitions: &Int32Array = column(&batch, "kafka_partition")?;
        let after: &TimestampMicrosecondArray = column(&batch, "closed_after")?;
        let through: &TimestampMicrosecondArray = column(&batch, "closed_through")?;
        for row in (0..batch.num_rows()).filter(|row| models.value(*row) == model) {
            let after_ms = (!after.is_null(row)).then(|| after.value(row).div_euclid(1000));
            let bar = Bar { after_ms, through_ms: through.value(row).div_euclid(1000) };
            bars.push((partitions.value(row), bar));
        }
    }
    Ok(bars)
}

pub(crate) fn column<'a, T: Array + 'static>(
    batch: &'a RecordBatch,
    name: &'static str,
) -> Result<&'a T, PipelineError> {
    let column = batch.column_by_name(name).and_then(|column| column.as_any().downcast_ref());
    column.ok_or(PipelineError::Column { name })
}

async fn append_rows(table: &mut Table, rows: &RecordBatch) -> Result<(), PipelineError> {
    let mut writer = table.writer()?;
    writer.write(rows).await?;
    let files = writer.close().await?;
    Ok(table.append(files).await?)
}
