//! An Avro datum as JSON for a person, by the [`Layout`] of its schema (Avro 1.12 specification, "Binary Encoding").
//!
//! Values are written as a contract takes them: decimals as text, bytes as base64, dates and timestamps as ISO 8601 text, and
//! NaN and the infinities as text, which JSON has no numbers for. The sidecar and the joiner have faster ways.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Days, NaiveDate, SecondsFormat};
use serde_json::{Map, Value, json};

use crate::avro::{Layout, Shape};
use crate::types::Type;

/// Why a datum is not one of its schema.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DatumError {
    #[error("the datum ends within `{0}`")]
    Short(String),
    #[error("`{field}`: {fault}")]
    Value { field: String, fault: String },
    #[error("{0} bytes follow the datum")]
    Rest(usize),
}

/// The record as a JSON object, with all of its fields in order.
pub fn to_json(layout: &Layout, datum: &[u8]) -> Result<Value, DatumError> {
    let mut rest = datum;
    let value = record(layout, &mut rest)?;
    if rest.is_empty() { Ok(value) } else { Err(DatumError::Rest(rest.len())) }
}

fn record(layout: &Layout, rest: &mut &[u8]) -> Result<Value, DatumError> {
    let mut object = Map::new();
    for field in &layout.fields {
        let name = field.name.as_str();
        let is_null = match field.null_branch {
            None => false,
            Some(null) => match long(rest, name)? {
                branch @ (0 | 1) => branch == i64::from(null),
                branch => return Err(fault(name, format!("a union of two has no branch {branch}"))),
            },
        };
        let value = if is_null { Value::Null } else { shape(&field.shape, rest, name)? };
        object.insert(name.to_owned(), value);
    }
    Ok(Value::Object(object))
}

fn shape(shape: &Shape, rest: &mut &[u8], name: &str) -> Result<Value, DatumError> {
    match shape {
        Shape::Plain(Type::List(item)) => list(rest, name, |rest| plain(item, rest, name)),
        Shape::Plain(ty) => plain(ty, rest, name),
        Shape::Record(layout) => record(layout, rest),
        Shape::Records(layout) => list(rest, name, |rest| record(layout, rest)),
    }
}

fn plain(ty: &Type, rest: &mut &[u8], name: &str) -> Result<Value, DatumError> {
    Ok(match ty {
        Type::Boolean => match take(rest, 1, name)?[0] {
            0 => json!(false),
            1 => json!(true),
            byte => return Err(fault(name, format!("{byte} is no boolean"))),
        },
        Type::Int | Type::Long => json!(long(rest, name)?),
        Type::Float => {
            let value = f32::from_le_bytes(fixed(rest, name)?);
            // By its own digits, as it was given: 0.1 and not 0.10000000149011612.
            value.to_string().parse::<f64>().map_or(Value::Null, number)
        }
        Type::Double => number(f64::from_le_bytes(fixed(rest, name)?)),
        Type::Decimal { scale, .. } => json!(decimal(bytes(rest, name)?, *scale, name)?),
        Type::String | Type::Uuid => {
            let text = str::from_utf8(bytes(rest, name)?).map_err(|error| fault(name, error.to_string()))?;
            json!(text)
        }
        Type::Bytes => json!(STANDARD.encode(bytes(rest, name)?)),
        Type::Date => {
            let days = long(rest, name)?;
            let from = NaiveDate::default();
            let date = match u64::try_from(days) {
                Ok(days) => from.checked_add_days(Days::new(days)),
                Err(_) => from.checked_sub_days(Days::new(days.unsigned_abs())),
            };
            json!(date.ok_or_else(|| fault(name, format!("{days} days are no date")))?.to_string())
        }
        Type::Timestamp => {
            let us = long(rest, name)?;
            let time =
                DateTime::from_timestamp_micros(us).ok_or_else(|| fault(name, format!("{us} µs are no time")))?;
            json!(time.to_rfc3339_opts(SecondsFormat::AutoSi, true))
        }
        Type::List(item) => list(rest, name, |rest| plain(item, rest, name))?,
    })
}

fn number(value: f64) -> Value {
    match serde_json::Number::from_f64(value) {
        Some(number) => Value::Number(number),
        None if value.is_nan() => json!("NaN"),
        None if value > 0.0 => json!("Infinity"),
        None => json!("-Infinity"),
    }
}

/// The unscaled value with its point put in.
fn decimal(bytes: &[u8], scale: u8, name: &str) -> Result<String, DatumError> {
    if bytes.is_empty() || bytes.len() > 16 {
        return Err(fault(name, format!("a decimal of {} bytes", bytes.len())));
    }
    let sign = if bytes[0] & 0x80 == 0 { 0 } else { 0xff };
    let mut wide = [sign; 16];
    wide[16 - bytes.len()..].copy_from_slice(bytes);
    let unscaled = i128::from_be_bytes(wide);
    let scale = usize::from(scale);
    let digits = format!("{:0>width$}", unscaled.unsigned_abs(), width = scale + 1);
    let (whole, part) = digits.split_at(digits.len() - scale);
    let sign = if unscaled < 0 { "-" } else { "" };
    Ok(if scale == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{part}") })
}

/// Blocks of items, of which the last is empty.
fn list(
    rest: &mut &[u8],
    name: &str,
    mut item: impl FnMut(&mut &[u8]) -> Result<Value, DatumError>,
) -> Result<Value, DatumError> {
    let mut items = Vec::new();
    loop {
        let mut count = long(rest, name)?;
        if count == 0 {
            return Ok(Value::Array(items));
        }
        if count < 0 {
            // The length of the block in bytes follows.
            long(rest, name)?;
            count = count.checked_neg().unwrap_or(i64::MAX);
        }
        // Every item takes a byte at least.
        if usize::try_from(count).is_ok_and(|count| count > rest.len()) {
            return Err(DatumError::Short(name.to_owned()));
        }
        for _ in 0..count {
            items.push(item(rest)?);
        }
    }
}

fn bytes<'a>(rest: &mut &'a [u8], name: &str) -> Result<&'a [u8], DatumError> {
    let length = usize::try_from(long(rest, name)?).map_err(|_| fault(name, "a length below 0".to_owned()))?;
    take(rest, length, name)
}

fn fixed<const N: usize>(rest: &mut &[u8], name: &str) -> Result<[u8; N], DatumError> {
    let (head, tail) = rest.split_first_chunk().ok_or_else(|| DatumError::Short(name.to_owned()))?;
    *rest = tail;
    Ok(*head)
}

fn take<'a>(rest: &mut &'a [u8], length: usize, name: &str) -> Result<&'a [u8], DatumError> {
    let (head, tail) = rest.split_at_checked(length).ok_or_else(|| DatumError::Short(name.to_owned()))?;
    *rest = tail;
    Ok(head)
}

/// Zig-zag, seven bits a byte, least first.
fn long(rest: &mut &[u8], name: &str) -> Result<i64, DatumError> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let [byte] = fixed(rest, name)?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed());
        }
    }
    Err(fault(name, "a number of more than ten bytes".to_owned()))
}

fn fault(field: &str, fault: String) -> DatumError {
    DatumError::Value { field: field.to_owned(), fault }
}

#[cfg(test)]
mod tests {
    use apache_avro::types::Value as Avro;
    use apache_avro::{Decimal, Schema};

    use super::*;

    const SCHEMA: &str = r#"{"type": "record", "name": "r", "fields": [
        {"name": "yes", "type": "boolean"},
        {"name": "count", "type": ["null", "long"]},
        {"name": "none", "type": ["null", "long"]},
        {"name": "small", "type": ["int", "null"]},
        {"name": "ratio", "type": "float"},
        {"name": "exact", "type": "double"},
        {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
        {"name": "name", "type": "string"},
        {"name": "raw", "type": "bytes"},
        {"name": "day", "type": {"type": "int", "logicalType": "date"}},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "many", "type": {"type": "array", "items": "double"}},
        {"name": "part", "type": ["null", {"type": "record", "name": "p", "fields": [{"name": "x", "type": "int"}]}]},
        {"name": "views", "type": {"type": "array", "items":
            {"type": "record", "name": "v", "fields": [{"name": "view", "type": "string"}]}}}
    ]}"#;

    fn datum() -> Vec<u8> {
        let some = |branch, value| Avro::Union(branch, Box::new(value));
        let text = |text: &str| Avro::String(text.to_owned());
        let record = |fields: Vec<(&str, Avro)>| {
            Avro::Record(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
        };
        let value = record(vec![
            ("yes", Avro::Boolean(true)),
            ("count", some(1, Avro::Long(i64::MIN))),
            ("none", some(0, Avro::Null)),
            ("small", some(0, Avro::Int(-7))),
            ("ratio", Avro::Float(0.1)),
            ("exact", Avro::Double(f64::NEG_INFINITY)),
            ("price", Avro::Decimal(Decimal::from((-5_i64).to_be_bytes()))),
            ("name", text("Zoë")),
            ("raw", Avro::Bytes(vec![0, 255])),
            ("day", Avro::Date(-1)),
            ("at", Avro::TimestampMicros(1_357_034_400_123_456)),
            ("many", Avro::Array(vec![Avro::Double(1.5), Avro::Double(f64::NAN)])),
            ("part", some(1, record(vec![("x", Avro::Int(3))]))),
            ("views", Avro::Array(vec![record(vec![("view", text("a"))])])),
        ]);
        let schema = Schema::parse_str(SCHEMA).unwrap();
        apache_avro::writer::datum::GenericDatumWriter::builder(&schema)
            .build()
            .unwrap()
            .write_value_to_vec(value)
            .unwrap()
    }

    #[test]
    fn what_the_reference_writes_is_shown_as_it_was_given() {
        let expected = json!({
            "yes": true, "count": i64::MIN, "none": null, "small": -7, "ratio": 0.1, "exact": "-Infinity", "price": "-0.05",
            "name": "Zoë", "raw": "AP8=", "day": "1969-12-31", "at": "2013-01-01T10:00:00.123456Z", "many": [1.5, "NaN"],
            "part": {"x": 3}, "views": [{"view": "a"}],
        });
        let layout = Layout::parse(SCHEMA).unwrap();
        let shown = to_json(&layout, &datum()).unwrap();
        assert_eq!(shown, expected);
        assert!(
            shown.as_object().unwrap().keys().eq(expected.as_object().unwrap().keys()),
            "in the order of the schema"
        );
    }

    #[test]
    fn what_is_cut_or_follows_is_a_fault_and_nothing_panics() {
        let (layout, whole) = (Layout::parse(SCHEMA).unwrap(), datum());
        for length in 0..whole.len() {
            assert!(to_json(&layout, &whole[..length]).is_err(), "cut at {length}");
        }
        let longer = [whole.as_slice(), &[0]].concat();
        assert_eq!(to_json(&layout, &longer), Err(DatumError::Rest(1)));
        for bit in 0..whole.len() * 8 {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            // It may be another datum; it may not be a panic.
            let _ = to_json(&layout, &damaged);
        }
    }
}
