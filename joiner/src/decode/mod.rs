//! Avro datums into Arrow rows and statements, one message at a time and never half of one.
//!
//! A [`Decoder`] is compiled once from the [`Layout`] of a writer's schema. A message goes through it twice:
//! [`Decoder::check`] walks the whole datum, refuses it with a reason or gives the [`Keys`] that landing needs, and
//! builds nothing; [`Rows::push`] then walks it again and appends one row, which cannot fail any more. So a bad
//! message spoils neither the batch nor its neighbours.
//!
//! # Which field becomes which column
//! Fields are matched by name, in any order.
//!
//! | field of the writer | column |
//! |---|---|
//! | a system field at the top, such as `prediction_id` or `rank` | the same name |
//! | a field of the records `entity` `features` `prediction` `decision` `context` | [`Block::column`] |
//! | a field of the record `label` (outcomes) | `label_<name>` |
//! | `feature_provenance`, an array of records | the same name, a list of structs matched by name |
//!
//! A nullable field (union of null and one type, in either order) and a plain one give the same column. Columns of
//! the table that the writer lacks, and those of a record that is null, become null. `ingest_time`,
//! `kafka_partition`, `kafka_offset`, `producer_id` and `producer_seq` come from the [`Origin`] of the record and from
//! nowhere else. A plain field at the top that is none of these is walked over and named by [`Decoder::ignored`], as
//! Avro readers do with what they do not know.
//!
//! A schema is refused where a record could not be landed by it: no `prediction_id`, no `event_time`, no `event_id`
//! for outcomes, a system field of another type, a record or an array of records in an unknown place, two fields
//! for one column.
//!
//! # What a datum must be
//! Encoding of the Avro 1.12 specification, "Binary encoding". Refused: a varint longer than ten bytes or beyond 64
//! bits (32 for an int), a length or block count that is negative or beyond the remaining bytes, text that is not
//! UTF-8, a boolean other than 0 and 1, a union branch other than 0 and 1, a block whose byte size is not that of
//! its items, a decimal of more digits than its precision, bytes left over, a null where a row needs a value, a
//! time or date outside of the years 1 to 9999 (table engines stop there), an `op` other than assert and retract.
//! An array block with a negative count and a byte size is fine. Every item takes at least one byte, so the work is
//! bounded by the length of the datum, which is bounded by [`DATUM_BYTES_MAX`].

mod column;
mod cursor;
mod error;
mod labels;
mod plan;
mod rows;
mod statement;

#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;

use flywheel_schemas::avro::Layout;
use flywheel_schemas::wire::Kind;

pub use error::{DatumFault, DecodeError};
pub use labels::LabelColumns;
pub use rows::{ROWS_BYTES_MAX, Rows};
pub use statement::statements;

use crate::label::Op;
use cursor::Value;
use plan::{Plan, Role, Sink};

#[cfg(doc)]
use flywheel_schemas::contract::Block;

/// The longest datum that is taken, well above what a broker lets through (`message.max.bytes`, 1 MiB by default).
pub const DATUM_BYTES_MAX: usize = 64 << 20;

/// The first and the last microsecond of the years 1 to 9999.
const TIME_US: std::ops::RangeInclusive<i64> = -62_135_596_800_000_000..=253_402_300_799_999_999;

/// The same in days since the epoch.
const DAYS: std::ops::RangeInclusive<i32> = -719_162..=2_932_896;

/// Reads the datums of one writer's schema. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Decoder {
    plan: Arc<Plan>,
}

/// What landing needs of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys<'d> {
    pub prediction_id: &'d str,
    /// Microseconds since the epoch.
    pub event_time_us: i64,
    pub contract_version: Option<i32>,
    /// Predictions only.
    pub exposure: Option<&'d str>,
    /// Outcomes only, and always there.
    pub event_id: Option<&'d str>,
}

/// Where a record was found, and who wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin<'a> {
    /// When the log received it; milliseconds since the epoch.
    pub ingest_time_ms: i64,
    pub partition: i32,
    pub offset: i64,
    pub producer_id: Option<&'a str>,
    pub producer_seq: Option<i64>,
}

impl Decoder {
    /// A decoder for datums that were written by `layout` to a topic of `kind`.
    ///
    /// # Errors
    /// The schema cannot be landed by; the message names the field.
    pub fn compile(layout: &Layout, kind: Kind) -> Result<Decoder, DecodeError> {
        Ok(Decoder { plan: Arc::new(Plan::compile(layout, Some(kind))?) })
    }

    /// A decoder for records of no model, such as those of the ledger: every field at the top is the column of its
    /// name, and nothing comes from the [`Origin`].
    ///
    /// # Errors
    /// A field is a record or an array of records.
    pub fn plain(layout: &Layout) -> Result<Decoder, DecodeError> {
        Ok(Decoder { plan: Arc::new(Plan::compile(layout, None)?) })
    }

    /// The fields that the schema has and no table takes.
    pub fn ignored(&self) -> &[String] {
        &self.plan.ignored
    }

    /// Walks the whole datum.
    ///
    /// # Errors
    /// [`DecodeError::Datum`]: which field, at which byte, and what is wrong. It holds nothing of the datum itself.
    pub fn check<'d>(&self, datum: &'d [u8]) -> Result<Keys<'d>, DecodeError> {
        let mut found = Found::of(&self.plan);
        self.walk(datum, &mut found)?;
        found.keys()
    }

    /// Walks the whole datum of a [plain](Decoder::plain) decoder; every timestamp in it must be one that table
    /// engines know.
    ///
    /// # Errors
    /// As [`Decoder::check`].
    pub fn check_plain(&self, datum: &[u8]) -> Result<(), DecodeError> {
        let mut times = Times { strange: None };
        self.walk(datum, &mut times)?;
        match times.strange.and_then(|leaf| self.plan.leaves[leaf].column.as_deref()) {
            Some(column) => Err(DecodeError::datum(column, 0, DatumFault::Time)),
            None => Ok(()),
        }
    }

    fn walk<'d>(&self, datum: &'d [u8], sink: &mut impl Sink<'d>) -> Result<(), DecodeError> {
        if datum.len() > DATUM_BYTES_MAX {
            return Err(DecodeError::datum("", 0, DatumFault::TooLong));
        }
        self.plan.walk(datum, sink)
    }
}

/// Whether it is a time outside of the years that table engines know.
fn is_strange(value: &Value<'_>) -> bool {
    match value {
        Value::Timestamp(time) => !TIME_US.contains(time),
        Value::Date(days) => !DAYS.contains(days),
        _ => false,
    }
}

/// Looks for a time outside of the years that tables hold.
struct Times {
    strange: Option<usize>,
}

impl<'d> Sink<'d> for Times {
    fn scalar(&mut self, leaf: usize, value: Value<'d>) {
        if is_strange(&value) {
            self.strange = Some(leaf);
        }
    }
}

/// Collects the keys.
struct Found<'p, 'd> {
    plan: &'p Plan,
    prediction_id: Option<&'d str>,
    event_time_us: Option<i64>,
    contract_version: Option<i32>,
    exposure: Option<&'d str>,
    event_id: Option<&'d str>,
    op: Option<&'d str>,
    /// A leaf with a time that would make its table unreadable for some engines.
    strange: Option<usize>,
}

impl<'p, 'd> Found<'p, 'd> {
    fn of(plan: &'p Plan) -> Self {
        Found {
            plan,
            prediction_id: None,
            event_time_us: None,
            contract_version: None,
            exposure: None,
            event_id: None,
            op: None,
            strange: None,
        }
    }

    fn keys(self) -> Result<Keys<'d>, DecodeError> {
        let lacks = |field| DecodeError::datum(field, 0, DatumFault::Null);
        let prediction_id = self.prediction_id.ok_or_else(|| lacks("prediction_id"))?;
        let event_time_us = self.event_time_us.ok_or_else(|| lacks("event_time"))?;
        if !TIME_US.contains(&event_time_us) {
            return Err(DecodeError::datum("event_time", 0, DatumFault::Time));
        }
        if let Some(column) = self.strange.and_then(|leaf| self.plan.leaves[leaf].column.as_deref()) {
            return Err(DecodeError::datum(column, 0, DatumFault::Time));
        }
        if self.plan.kind == Some(Kind::Outcomes) && self.event_id.is_none() {
            return Err(lacks("event_id"));
        }
        if self.op.is_some_and(|op| Op::parse(op).is_none()) {
            return Err(DecodeError::datum("op", 0, DatumFault::Op));
        }
        Ok(Keys {
            prediction_id,
            event_time_us,
            contract_version: self.contract_version,
            exposure: self.exposure,
            event_id: self.event_id,
        })
    }
}

impl<'d> Sink<'d> for Found<'_, 'd> {
    fn scalar(&mut self, leaf: usize, value: Value<'d>) {
        if is_strange(&value) {
            self.strange = Some(leaf);
        }
        match (self.plan.leaves[leaf].role, value) {
            (Role::PredictionId, Value::Text(id)) => self.prediction_id = Some(id),
            (Role::EventTime, Value::Timestamp(time)) => self.event_time_us = Some(time),
            (Role::ContractVersion, Value::Int(version)) => self.contract_version = Some(version),
            (Role::Exposure, Value::Text(exposure)) => self.exposure = Some(exposure),
            (Role::EventId, Value::Text(id)) => self.event_id = Some(id),
            (Role::Op, Value::Text(op)) => self.op = Some(op),
            _ => {}
        }
    }

    fn item(&mut self, leaf: usize, value: Value<'d>) {
        if is_strange(&value) {
            self.strange = Some(leaf);
        }
    }

    fn item_field(&mut self, leaf: usize, _field: usize, value: Value<'d>) {
        self.item(leaf, value);
    }
}
