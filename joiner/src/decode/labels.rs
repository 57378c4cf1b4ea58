//! The label columns of rows that are sealed or revised.

use std::collections::HashMap;

use arrow::array::{ArrayRef, new_null_array};
use arrow::datatypes::{DataType, SchemaRef};
use flywheel_schemas::contract::{Contract, Label, Scalar};

use super::column::Column;
use super::cursor::Value;
use crate::label::LabelState;

/// Builds the `label_*` columns of a table: per label its value, `_status`, `_at` and `_known_at`.
pub struct LabelColumns {
    /// By label: the places of its value, `_status`, `_at` and `_known_at` among the columns.
    places: HashMap<String, [Option<usize>; 4]>,
    /// In table order.
    columns: Vec<(String, DataType, Column)>,
    length: usize,
}

impl LabelColumns {
    /// For the label columns that `schema` has.
    pub fn new(schema: SchemaRef) -> LabelColumns {
        let columns: Vec<(String, DataType, Column)> = schema
            .fields()
            .iter()
            .filter(|field| field.name().starts_with("label_") && !field.data_type().is_nested())
            .map(|field| (field.name().clone(), field.data_type().clone(), Column::new(field.data_type())))
            .collect();
        let place = |name: &str| columns.iter().position(|(column, ..)| column == name);
        let mut places = HashMap::new();
        for label in columns.iter().filter_map(|(name, ..)| name.strip_prefix("label_")) {
            // What is no label's value, such as a status, is never asked for.
            let of = |suffix: &str| place(&format!("label_{label}{suffix}"));
            places.insert(label.to_owned(), [of(""), of("_status"), of("_at"), of("_known_at")]);
        }
        LabelColumns { places, columns, length: 0 }
    }

    /// Appends a row: the states of the labels of `contract`, in its order. Rows of different contracts may stand in
    /// one batch; labels that a row's contract does not have are null in all four columns.
    pub fn push(&mut self, contract: &Contract, states: &[LabelState]) {
        self.push_those(contract, states, |_| true);
    }

    /// The same without the labels of batch jobs, which are null: a revision of theirs is that job's to write.
    pub fn push_streaming(&mut self, contract: &Contract, states: &[LabelState]) {
        self.push_those(contract, states, Label::is_streaming);
    }

    fn push_those(&mut self, contract: &Contract, states: &[LabelState], are: impl Fn(&Label) -> bool) {
        for (label, state) in contract.labels.iter().zip(states).filter(|(label, _)| are(label)) {
            let Some([value, status, at, known_at]) = self.places.get(&label.name).copied() else { continue };
            self.append(value, state.value.as_ref().map(value_of));
            self.append(status, Some(Value::Text(state.status.name())));
            self.append(at, state.at_us.map(Value::Timestamp));
            self.append(known_at, state.known_at_ms.map(|ms| Value::Timestamp(ms.saturating_mul(1000))));
        }
        self.length += 1;
        self.columns.iter_mut().for_each(|(.., column)| column.pad(self.length));
    }

    fn append(&mut self, place: Option<usize>, value: Option<Value>) {
        if let (Some(place), Some(value)) = (place, value) {
            self.columns[place].2.append(value);
        }
    }

    pub fn len(&self) -> usize {
        self.length
    }

    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The arrays by column name, in table order.
    pub fn finish(self) -> Vec<(String, ArrayRef)> {
        let length = self.length;
        let arrays = self.columns.into_iter().map(|(name, ty, mut column)| {
            // Arrays of scalars cannot fail; only nested ones can.
            let array = column.finish().unwrap_or_else(|_| new_null_array(&ty, length));
            (name, array)
        });
        arrays.collect()
    }
}

fn value_of(value: &Scalar) -> Value<'_> {
    match value {
        Scalar::Boolean(value) => Value::Boolean(*value),
        Scalar::Int(value) => Value::Int(*value),
        Scalar::Long(value) => Value::Long(*value),
        Scalar::Float(value) => Value::Float(*value),
        Scalar::Double(value) => Value::Double(*value),
        Scalar::Decimal(value) => Value::Decimal(*value),
        Scalar::String(value) | Scalar::Uuid(value) => Value::Text(value),
        Scalar::Bytes(value) => Value::Bytes(value),
        Scalar::Date(value) => Value::Date(*value),
        Scalar::Timestamp(value) => Value::Timestamp(*value),
    }
}
