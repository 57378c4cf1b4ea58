//! Statements: of a datum, and of the rows that it became. Both are the same statement.
//!
//! What a foreign producer leaves out is the same in both: no outcome id is the empty one, no revision is 0, no op is
//! assert, no op time is the ingest time. A uuid is stated as [`Scalar::String`], since tables do not tell them
//! apart. Values stand in the order of their names.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type, TimeUnit,
    TimestampMicrosecondType,
};
use flywheel_schemas::contract::Scalar;
use flywheel_schemas::wire::Kind;

use super::cursor::Value;
use super::plan::{Plan, Role, Sink};
use super::{DatumFault, DecodeError, Decoder, Origin};
use crate::label::{Op, Statement};

/// The prefix of the columns of label values.
const LABEL: &str = "label_";

impl Decoder {
    /// The statement of an outcome's datum.
    ///
    /// # Errors
    /// The datum is not one that [`Decoder::check`] passes, or the decoder is not for outcomes.
    pub fn statement(&self, datum: &[u8], origin: &Origin) -> Result<Statement, DecodeError> {
        if self.plan.kind != Some(Kind::Outcomes) {
            return Err(DecodeError::Kind);
        }
        let lacks = |field| DecodeError::datum(field, 0, DatumFault::Null);
        let mut stated =
            Stated { plan: &self.plan, event_id: None, event_time_us: None, op: None, rest: blank(origin) };
        self.plan.walk(datum, &mut stated)?;
        let Stated { event_id, event_time_us, op, mut rest, .. } = stated;
        rest.event_id = event_id.ok_or_else(|| lacks("event_id"))?.to_owned();
        rest.event_time_us = event_time_us.ok_or_else(|| lacks("event_time"))?;
        if let Some(op) = op {
            rest.op = Op::parse(op).ok_or_else(|| DecodeError::datum("op", 0, DatumFault::Op))?;
        }
        rest.values.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(rest)
    }
}

fn blank(origin: &Origin) -> Statement {
    Statement {
        event_id: String::new(),
        outcome_id: String::new(),
        revision: 0,
        op: Op::Assert,
        op_time_us: origin.ingest_time_ms.saturating_mul(1000),
        event_time_us: 0,
        ingest_time_ms: origin.ingest_time_ms,
        partition: origin.partition,
        offset: origin.offset,
        contract_version: None,
        labels: Vec::new(),
        values: Vec::new(),
    }
}

struct Stated<'p, 'd> {
    plan: &'p Plan,
    event_id: Option<&'d str>,
    event_time_us: Option<i64>,
    op: Option<&'d str>,
    rest: Statement,
}

impl<'d> Sink<'d> for Stated<'_, 'd> {
    fn scalar(&mut self, leaf: usize, value: Value<'d>) {
        let leaf = &self.plan.leaves[leaf];
        match (leaf.role, value) {
            (Role::EventId, Value::Text(id)) => self.event_id = Some(id),
            (Role::EventTime, Value::Timestamp(time)) => self.event_time_us = Some(time),
            (Role::Op, Value::Text(op)) => self.op = Some(op),
            (Role::OutcomeId, Value::Text(id)) => self.rest.outcome_id = id.to_owned(),
            (Role::Revision, Value::Long(revision)) => self.rest.revision = revision,
            (Role::ContractVersion, Value::Int(version)) => self.rest.contract_version = Some(version),
            (Role::OpTime, Value::Timestamp(time)) => self.rest.op_time_us = time,
            (Role::Label, value) => {
                let name = leaf.column.as_deref().and_then(|column| column.strip_prefix(LABEL));
                self.rest.values.extend(name.map(|name| (name.to_owned(), scalar(value))));
            }
            _ => {}
        }
    }

    fn item(&mut self, leaf: usize, value: Value<'d>) {
        if let (Role::Labels, Value::Text(name)) = (self.plan.leaves[leaf].role, value) {
            self.rest.labels.push(name.to_owned());
        }
    }
}

fn scalar(value: Value) -> Scalar {
    match value {
        Value::Boolean(value) => Scalar::Boolean(value),
        Value::Int(value) => Scalar::Int(value),
        Value::Long(value) => Scalar::Long(value),
        Value::Float(value) => Scalar::Float(value),
        Value::Double(value) => Scalar::Double(value),
        Value::Decimal(value) => Scalar::Decimal(value),
        Value::Text(value) => Scalar::String(value.to_owned()),
        Value::Bytes(value) => Scalar::Bytes(value.to_owned()),
        Value::Date(value) => Scalar::Date(value),
        Value::Timestamp(value) => Scalar::Timestamp(value),
    }
}

/// The statements of rows of an outcomes table, each with the prediction it is about, in the order of the rows.
///
/// # Errors
/// A column that every row needs is not in the batch or holds a null, or a column is not of the table's type.
pub fn statements(batch: &RecordBatch) -> Result<Vec<(String, Statement)>, DecodeError> {
    let columns = Columns { batch };
    let labels: Vec<(&str, &dyn Array)> = batch
        .schema_ref()
        .fields()
        .iter()
        .zip(batch.columns())
        .filter_map(|(field, array)| Some((field.name().strip_prefix(LABEL)?, array.as_ref())))
        .collect();
    (0..batch.num_rows())
        .map(|row| {
            let ingest_time_us = columns.long("ingest_time", row)?.ok_or_else(|| columns.lacks("ingest_time"))?;
            let partition = columns.int("kafka_partition", row)?.ok_or_else(|| columns.lacks("kafka_partition"))?;
            let offset = columns.long("kafka_offset", row)?.ok_or_else(|| columns.lacks("kafka_offset"))?;
            let ingest_time_ms = ingest_time_us.div_euclid(1000);
            let origin = Origin { ingest_time_ms, partition, offset, producer_id: None, producer_seq: None };
            let mut statement = blank(&origin);
            let required = |name: &'static str| columns.text(name, row)?.ok_or_else(|| columns.lacks(name));
            let prediction_id = required("prediction_id")?.to_owned();
            statement.event_id = required("event_id")?.to_owned();
            statement.event_time_us = columns.long("event_time", row)?.ok_or_else(|| columns.lacks("event_time"))?;
            if let Some(outcome_id) = columns.text("outcome_id", row)? {
                statement.outcome_id = outcome_id.to_owned();
            }
            if let Some(revision) = columns.long("revision", row)? {
                statement.revision = revision;
            }
            if let Some(op) = columns.text("op", row)? {
                statement.op = Op::parse(op).ok_or_else(|| columns.unfit("op", "assert or retract"))?;
            }
            if let Some(op_time_us) = columns.long("op_time", row)? {
                statement.op_time_us = op_time_us;
            }
            statement.contract_version = columns.int("contract_version", row)?;
            statement.labels = columns.texts("labels", row)?;
            for (name, array) in &labels {
                if array.is_valid(row) {
                    let value =
                        cell(*array, row).ok_or_else(|| columns.unfit(&format!("{LABEL}{name}"), "a scalar"))?;
                    statement.values.push(((*name).to_owned(), value));
                }
            }
            statement.values.sort_by(|(a, _), (b, _)| a.cmp(b));
            Ok((prediction_id, statement))
        })
        .collect()
}

/// Cells of a batch by column name; a column that is not there is null.
struct Columns<'b> {
    batch: &'b RecordBatch,
}

impl<'b> Columns<'b> {
    fn valid(&self, name: &str, row: usize) -> Option<&'b dyn Array> {
        self.batch.column_by_name(name).map(AsRef::as_ref).filter(|array: &&dyn Array| array.is_valid(row))
    }

    fn text(&self, name: &str, row: usize) -> Result<Option<&'b str>, DecodeError> {
        let Some(array) = self.valid(name, row) else { return Ok(None) };
        let texts = array.as_string_opt::<i32>().ok_or_else(|| self.unfit(name, "Utf8"))?;
        Ok(Some(texts.value(row)))
    }

    fn int(&self, name: &str, row: usize) -> Result<Option<i32>, DecodeError> {
        let Some(array) = self.valid(name, row) else { return Ok(None) };
        let ints = array.as_primitive_opt::<Int32Type>().ok_or_else(|| self.unfit(name, "Int32"))?;
        Ok(Some(ints.value(row)))
    }

    /// A long or the microseconds of a timestamp.
    fn long(&self, name: &str, row: usize) -> Result<Option<i64>, DecodeError> {
        let Some(array) = self.valid(name, row) else { return Ok(None) };
        let long = array.as_primitive_opt::<Int64Type>().map(|longs| longs.value(row));
        let long = long.or_else(|| Some(array.as_primitive_opt::<TimestampMicrosecondType>()?.value(row)));
        Ok(Some(long.ok_or_else(|| self.unfit(name, "Int64 or Timestamp(µs)"))?))
    }

    fn texts(&self, name: &str, row: usize) -> Result<Vec<String>, DecodeError> {
        let Some(array) = self.valid(name, row) else { return Ok(Vec::new()) };
        let items = array.as_list_opt::<i32>().map(|lists| lists.value(row));
        let items = items.as_ref().and_then(|items| items.as_string_opt::<i32>());
        let items = items.ok_or_else(|| self.unfit(name, "List(Utf8)"))?;
        Ok(items.iter().flatten().map(str::to_owned).collect())
    }

    fn lacks(&self, name: &str) -> DecodeError {
        self.unfit(name, "a value in each row")
    }

    fn unfit(&self, name: &str, expected: &str) -> DecodeError {
        let found = self
            .batch
            .schema_ref()
            .field_with_name(name)
            .map_or("absent".to_owned(), |field| format!("{}, with something else in it", field.data_type()));
        DecodeError::Column { column: name.to_owned(), expected: expected.to_owned(), found }
    }
}

/// The scalar of a valid cell; none where no label has such a type.
pub(super) fn cell(array: &dyn Array, row: usize) -> Option<Scalar> {
    Some(match array.data_type() {
        DataType::Boolean => Scalar::Boolean(array.as_boolean_opt()?.value(row)),
        DataType::Int32 => Scalar::Int(array.as_primitive_opt::<Int32Type>()?.value(row)),
        DataType::Int64 => Scalar::Long(array.as_primitive_opt::<Int64Type>()?.value(row)),
        DataType::Float32 => Scalar::Float(array.as_primitive_opt::<Float32Type>()?.value(row)),
        DataType::Float64 => Scalar::Double(array.as_primitive_opt::<Float64Type>()?.value(row)),
        DataType::Decimal128(..) => Scalar::Decimal(array.as_primitive_opt::<Decimal128Type>()?.value(row)),
        DataType::Utf8 => Scalar::String(array.as_string_opt::<i32>()?.value(row).to_owned()),
        DataType::LargeBinary => Scalar::Bytes(array.as_binary_opt::<i64>()?.value(row).to_owned()),
        DataType::Date32 => Scalar::Date(array.as_primitive_opt::<Date32Type>()?.value(row)),
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            Scalar::Timestamp(array.as_primitive_opt::<TimestampMicrosecondType>()?.value(row))
        }
        _ => return None,
    })
}
