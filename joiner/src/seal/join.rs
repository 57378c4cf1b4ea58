//! From rows of the raw table to rows of the training table.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray as _, BooleanArray, ListBuilder, RecordBatch, StringBuilder, TimestampMicrosecondArray,
};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, Schema};

use super::copies::Copies;
use super::{Slice, Span};
use crate::decode::LabelColumns;
use crate::label;
use crate::pipeline::{Pipeline, PipelineError};

/// The list of what was noticed about a row.
const FLAGS: &str = "flags";

impl Pipeline {
    /// The rows of a batch that are due, with `as_of` and their labels; none where there are none.
    pub(super) fn join(
        &self,
        batch: &RecordBatch,
        spans: &BTreeMap<i32, Span>,
        slice: &Slice,
    ) -> Result<Option<RecordBatch>, PipelineError> {
        let copies = Copies::of(batch)?;
        let place = |row: usize| (copies.partitions.value(row), copies.offsets.value(row));
        let mut due: Vec<(usize, i64)> = Vec::new();
        for row in (0..batch.num_rows()).filter(|row| slice.due.contains(place(*row))) {
            due.extend(self.as_of_within(spans, &copies.copy(row))?.map(|as_of_ms| (row, as_of_ms)));
        }
        if due.is_empty() {
            return Ok(None);
        }
        let indexed = due.iter().filter(|(row, _)| slice.landed.is_empty() || !slice.landed.contains_key(&place(*row)));
        let indexed = indexed.map(|(row, as_of_ms)| (copies.ids.value(*row), *as_of_ms)).collect();
        let indexed = self.index.statements_of(indexed, self.outcomes_max)?;
        let mut as_of = Vec::with_capacity(due.len());
        let mut labels = LabelColumns::new(self.training.arrow_schema());
        let mut flagged: BTreeMap<usize, Vec<String>> = BTreeMap::new();
        for (row, as_of_ms) in due.iter().copied() {
            let contract = self.contract(copies.versions.value(row))?;
            let statements = match slice.landed.get(&place(row)) {
                Some(landed) => landed.as_slice(),
                None => indexed.get(copies.ids.value(row)).map(Vec::as_slice).unwrap_or_default(),
            };
            let exposure = (!copies.exposures.is_null(row)).then(|| copies.exposures.value(row));
            let event_time_ms = copies.event_times.value(row).div_euclid(1000);
            let prediction = label::Prediction { event_time_ms, exposure };
            let states = label::evaluate(contract, &prediction, as_of_ms, statements);
            let overflown = contract.labels.iter().zip(&states).filter(|(_, state)| state.overflow);
            let flags: Vec<String> = overflown.map(|(label, _)| format!("label_overflow:{}", label.name)).collect();
            if !flags.is_empty() {
                flagged.insert(as_of.len(), flags);
            }
            labels.push(contract, &states);
            as_of.push(as_of_ms * 1000);
        }
        let mut chosen = vec![false; batch.num_rows()];
        due.iter().for_each(|(row, _)| chosen[*row] = true);
        let rows = filter_record_batch(batch, &BooleanArray::from(chosen)).map_err(PipelineError::decode)?;
        let mut fields: Vec<Arc<Field>> = rows.schema().fields().iter().cloned().collect();
        let mut columns: Vec<ArrayRef> = rows.columns().to_vec();
        if !flagged.is_empty() {
            let (place, _) = rows.schema_ref().column_with_name(FLAGS).ok_or(PipelineError::Column { name: FLAGS })?;
            columns[place] = with_flags(&columns[place], &flagged)?;
        }
        let as_of = TimestampMicrosecondArray::from(as_of).with_timezone("+00:00");
        let mut add = |name: String, column: ArrayRef| {
            fields.push(Arc::new(Field::new(name, column.data_type().clone(), true)));
            columns.push(column);
        };
        add("as_of".to_owned(), Arc::new(as_of));
        for (name, column) in labels.finish() {
            add(name, column);
        }
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map(Some).map_err(PipelineError::decode)
    }
}

/// The column `flags` with more of them in some rows.
fn with_flags(column: &ArrayRef, more: &BTreeMap<usize, Vec<String>>) -> Result<ArrayRef, PipelineError> {
    let DataType::List(item) = column.data_type() else { return Err(PipelineError::Column { name: FLAGS }) };
    let lists = column.as_list_opt::<i32>().ok_or(PipelineError::Column { name: FLAGS })?;
    let mut flags = ListBuilder::new(StringBuilder::new()).with_field(Arc::clone(item));
    for row in 0..lists.len() {
        let present = lists.is_valid(row).then(|| lists.value(row));
        let texts =
            present.as_ref().map(|list| list.as_string_opt::<i32>().ok_or(PipelineError::Column { name: FLAGS }));
        for text in texts.transpose()?.into_iter().flatten() {
            flags.values().append_option(text);
        }
        for flag in more.get(&row).into_iter().flatten() {
            flags.values().append_value(flag);
        }
        flags.append(present.is_some() || more.contains_key(&row));
    }
    Ok(Arc::new(flags.finish()))
}
