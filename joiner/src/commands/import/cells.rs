//! Rows of a table as statements: each the JSON body that a client would have sent.
//!
//! Instants become microseconds, decimals text and bytes base64, as a sidecar reads them; floats have the shortest digits that
//! say them. Null is left out.

use arrow::array::{Array, ArrayRef, AsArray as _, RecordBatch};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Float32Type, Float64Type, Int64Type, Schema, TimeUnit, TimestampMicrosecondType};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use uuid::Uuid;

/// The members of a statement that a column may hold.
const KEYS: [&str; 8] =
    ["prediction_id", "event_id", "outcome_id", "event_time", "revision", "op", "op_time", "source"];
/// Without these a row is no statement.
const REQUIRED: [&str; 2] = ["prediction_id", "event_time"];
/// The names that a retract takes back.
const NAMES: &str = "labels";
const LABEL: &str = "label_";

/// What the columns of a table are to a statement.
pub(super) struct Statements {
    /// By column: the name of the member or of the label, and the type that its values are read as.
    columns: Vec<(Part, DataType)>,
}

enum Part {
    Member(String),
    Names,
    Label(String),
}

impl Statements {
    /// # Errors
    /// Every fault of the columns.
    pub fn of(schema: &Schema) -> Result<Statements, Vec<String>> {
        let mut faults = Vec::new();
        for name in REQUIRED.iter().filter(|name| schema.field_with_name(name).is_err()) {
            faults.push(format!("there is no column `{name}`"));
        }
        if !schema.fields().iter().any(|field| field.name().starts_with(LABEL) || field.name() == NAMES) {
            faults.push("there is no column of a label, such as `label_won` for the label `won`".to_owned());
        }
        let mut columns = Vec::new();
        for field in schema.fields() {
            let name = field.name();
            let part = match name.strip_prefix(LABEL) {
                Some(label) => Part::Label(label.to_owned()),
                None if name == NAMES => Part::Names,
                None if KEYS.contains(&name.as_str()) => Part::Member(name.clone()),
                None => {
                    let keys = KEYS.join(", ");
                    faults.push(format!(
                        "column `{name}` is no part of a statement: these are {keys}, {NAMES} and {LABEL}<label>; \
                         import a table without it"
                    ));
                    continue;
                }
            };
            match read_as(field.data_type(), matches!(part, Part::Names)) {
                Some(ty) => columns.push((part, ty)),
                None => {
                    faults.push(format!("column `{name}` is of the type {}, which no label has", field.data_type()))
                }
            }
        }
        if faults.is_empty() { Ok(Statements { columns }) } else { Err(faults) }
    }

    /// The statements of a batch of the same columns.
    pub fn bodies(&self, batch: &RecordBatch) -> Result<Vec<String>, ArrowError> {
        // A value that its type does not hold is an error, and no null.
        let strict = CastOptions { safe: false, ..CastOptions::default() };
        let read = batch.columns().iter().zip(&self.columns);
        let read: Vec<ArrayRef> =
            read.map(|(column, (_, ty))| cast_with_options(column, ty, &strict)).collect::<Result<_, _>>()?;
        (0..batch.num_rows()).map(|row| self.body(&read, row)).collect()
    }

    fn body(&self, columns: &[ArrayRef], row: usize) -> Result<String, ArrowError> {
        let (mut members, mut labels, mut names) = (Vec::new(), Vec::new(), None);
        for (column, (part, _)) in columns.iter().zip(&self.columns).filter(|(column, _)| column.is_valid(row)) {
            let value = value(column.as_ref(), row)?;
            match part {
                Part::Member(name) => members.push(format!("{}:{value}", quoted(name))),
                Part::Label(name) => labels.push(format!("{}:{value}", quoted(name))),
                Part::Names => names = Some(value),
            }
        }
        match names {
            // Where both are there, the sidecar says what is wrong with it.
            _ if !labels.is_empty() => members.push(format!("{}:{{{}}}", quoted(NAMES), labels.join(","))),
            Some(names) => members.push(format!("{}:{names}", quoted(NAMES))),
            None => {}
        }
        Ok(format!("{{{}}}", members.join(",")))
    }
}

/// The one type of several alike that `value` writes; none for those that no label has.
fn read_as(ty: &DataType, is_list: bool) -> Option<DataType> {
    Some(match ty {
        DataType::List(item) | DataType::LargeList(item) if is_list => {
            let item = item.as_ref().clone().with_data_type(read_as(item.data_type(), false)?);
            DataType::List(std::sync::Arc::new(item))
        }
        _ if is_list => return None,
        DataType::Boolean | DataType::Float32 | DataType::Float64 | DataType::Date32 => ty.clone(),
        DataType::Decimal128(..) | DataType::Decimal256(..) => ty.clone(),
        DataType::FixedSizeBinary(16) => ty.clone(),
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => DataType::Int64,
        DataType::UInt8 | DataType::UInt16 | DataType::UInt32 | DataType::UInt64 => DataType::Int64,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => DataType::LargeBinary,
        // One without a zone is taken for UTC.
        DataType::Timestamp(_, zone) => DataType::Timestamp(TimeUnit::Microsecond, zone.clone()),
        DataType::Dictionary(_, value) => read_as(value, false)?,
        _ => return None,
    })
}

fn value(array: &dyn Array, row: usize) -> Result<String, ArrowError> {
    Ok(match array.data_type() {
        DataType::Boolean => array.as_boolean().value(row).to_string(),
        DataType::Int64 => array.as_primitive::<Int64Type>().value(row).to_string(),
        DataType::Float32 => {
            let value = array.as_primitive::<Float32Type>().value(row);
            float(value.into(), format!("{value:?}"))
        }
        DataType::Float64 => {
            let value = array.as_primitive::<Float64Type>().value(row);
            float(value, format!("{value:?}"))
        }
        DataType::Timestamp(..) => array.as_primitive::<TimestampMicrosecondType>().value(row).to_string(),
        DataType::Utf8 => quoted(array.as_string::<i32>().value(row)),
        DataType::LargeBinary => quoted(&STANDARD.encode(array.as_binary::<i64>().value(row))),
        DataType::FixedSizeBinary(_) => {
            let bytes = array.as_fixed_size_binary().value(row);
            let uuid = Uuid::from_slice(bytes).map_err(|error| ArrowError::CastError(error.to_string()))?;
            quoted(&uuid.hyphenated().to_string())
        }
        DataType::List(_) => {
            let items = array.as_list::<i32>().value(row);
            let items: Vec<String> =
                (0..items.len()).map(|item| value(items.as_ref(), item)).collect::<Result<_, _>>()?;
            format!("[{}]", items.join(","))
        }
        // Dates and decimals.
        _ => quoted(&ArrayFormatter::try_new(array, &FormatOptions::default())?.value(row).try_to_string()?),
    })
}

/// The tokens of Python where JSON has none.
fn float(value: f64, digits: String) -> String {
    match () {
        () if value.is_nan() => "NaN".to_owned(),
        () if value.is_infinite() => if value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned(),
        () => digits,
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        BooleanArray, Date32Array, Decimal128Array, FixedSizeBinaryArray, Float32Array, Float64Array, Int32Array,
        LargeBinaryArray, ListBuilder, StringArray, StringBuilder, TimestampMillisecondArray, UInt64Array,
    };

    use super::*;

    fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true)))
            .unwrap()
    }

    #[test]
    fn a_row_is_the_body_that_a_client_would_send() {
        let mut names = ListBuilder::new(StringBuilder::new());
        names.append(false);
        names.values().append_value("won");
        names.append(true);
        let id = FixedSizeBinaryArray::try_from_iter([[1_u8; 16], [2; 16]].into_iter()).unwrap();
        let rows = batch(vec![
            ("prediction_id", Arc::new(id)),
            ("event_time", Arc::new(TimestampMillisecondArray::from(vec![5, -6]))),
            ("op", Arc::new(StringArray::from(vec![None, Some("retract")]))),
            ("revision", Arc::new(Int32Array::from(vec![Some(3), None]))),
            ("labels", Arc::new(names.finish())),
            ("label_won", Arc::new(BooleanArray::from(vec![Some(true), None]))),
            ("label_rate", Arc::new(Float32Array::from(vec![Some(0.1), None]))),
            ("label_none", Arc::new(Float64Array::from(vec![Some(f64::NAN), None]))),
            (
                "label_price",
                Arc::new(Decimal128Array::from(vec![Some(-5), None]).with_precision_and_scale(9, 2).unwrap()),
            ),
            ("label_bits", Arc::new(LargeBinaryArray::from(vec![Some(&[0_u8, 255][..]), None]))),
            ("label_day", Arc::new(Date32Array::from(vec![Some(-1), None]))),
            ("label_count", Arc::new(UInt64Array::from(vec![Some(7), None]))),
        ]);
        let bodies = Statements::of(rows.schema_ref()).unwrap().bodies(&rows).unwrap();
        assert_eq!(
            bodies,
            [
                r#"{"prediction_id":"01010101-0101-0101-0101-010101010101","event_time":5000,"revision":3,"labels":{"won":true,"rate":0.1,"none":NaN,"price":"-0.05","bits":"AP8=","day":"1969-12-31","count":7}}"#,
                r#"{"prediction_id":"02020202-0202-0202-0202-020202020202","event_time":-6000,"op":"retract","labels":["won"]}"#,
            ]
        );
    }

    #[test]
    fn what_does_not_fit_is_an_error_and_no_null() {
        let text = |values: Vec<&str>| -> ArrayRef { Arc::new(StringArray::from(values)) };
        let time: ArrayRef = Arc::new(TimestampMillisecondArray::from(vec![5]));
        let rows = batch(vec![
            ("prediction_id", text(vec!["p"])),
            ("event_time", Arc::clone(&time)),
            ("label_x", Arc::new(UInt64Array::from(vec![u64::MAX]))),
        ]);
        assert!(Statements::of(rows.schema_ref()).unwrap().bodies(&rows).is_err());
        let rows = batch(vec![("prediction_id", text(vec!["p"])), ("lable_x", text(vec!["1"]))]);
        let faults = Statements::of(rows.schema_ref()).err().unwrap();
        assert_eq!(faults.len(), 3, "{faults:?}");
        let rows = batch(vec![
            ("prediction_id", text(vec!["p"])),
            ("event_time", time),
            ("label_x", {
                let mut list = ListBuilder::new(StringBuilder::new());
                list.append(true);
                Arc::new(list.finish())
            }),
        ]);
        assert!(Statements::of(rows.schema_ref()).err().unwrap()[0].contains("`label_x` is of the type"));
    }
}
