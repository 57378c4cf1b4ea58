//! Scalar values in a contract (label defaults), in the JSON form of their type.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, NaiveDate};
use serde_json::{Value, json};

use super::Scalar;
use crate::types::Type;

/// Reads `text` as a value of `ty`. `bare`: it was written without quotes.
///
/// # Errors
/// What to write instead.
pub(super) fn read(ty: &Type, text: &str, bare: bool) -> Result<Scalar, String> {
    let wrong = |form: &str| Err(format!("`{text}` is no {ty}; write {form}"));
    let value = match ty {
        Type::Boolean => match text {
            "true" if bare => Some(Scalar::Boolean(true)),
            "false" if bare => Some(Scalar::Boolean(false)),
            _ => return wrong("true or false"),
        },
        Type::Int => text.parse().ok().filter(|_| bare).map(Scalar::Int),
        Type::Long => text.parse().ok().filter(|_| bare).map(Scalar::Long),
        Type::Float => float(text).map(Scalar::Float),
        Type::Double => float(text).map(Scalar::Double),
        Type::Decimal { precision, scale } => decimal(text, *precision, *scale).map(Scalar::Decimal),
        Type::String => Some(Scalar::String(text.to_owned())),
        Type::Bytes => STANDARD.decode(text).ok().map(Scalar::Bytes),
        Type::Date => text
            .parse::<NaiveDate>()
            .ok()
            .and_then(|date| i32::try_from(date.signed_duration_since(NaiveDate::default()).num_days()).ok())
            .map(Scalar::Date),
        Type::Timestamp if bare && text.parse::<i64>().is_ok() => text.parse().ok().map(Scalar::Timestamp),
        Type::Timestamp => {
            DateTime::parse_from_rfc3339(text).ok().map(|time| Scalar::Timestamp(time.timestamp_micros()))
        }
        Type::Uuid => {
            text.parse::<uuid::Uuid>().ok().filter(|_| text.len() == 36).map(|uuid| Scalar::Uuid(uuid.to_string()))
        }
        Type::List(_) => None,
    };
    value.map_or_else(
        || {
            wrong(match ty {
                Type::Int => "a whole number of 32 bits",
                Type::Long => "a whole number of 64 bits",
                Type::Float | Type::Double => "a number, NaN, Infinity or -Infinity",
                Type::Decimal { .. } => "a number in quotes that fits precision and scale, such as \"12.50\"",
                Type::Bytes => "padded base64",
                Type::Date => "a day such as 2013-01-31",
                Type::Timestamp => "RFC 3339, such as 2013-01-31T12:00:00Z, or whole microseconds since the epoch",
                Type::Uuid => "a hyphenated UUID",
                _ => "no default",
            })
        },
        Ok,
    )
}

/// The value as [`read`] takes it back.
pub(super) fn write(ty: &Type, value: &Scalar) -> Value {
    let number = |number: f64, text: String| if number.is_finite() { super::json::number(number) } else { json!(text) };
    match value {
        Scalar::Boolean(value) => json!(value),
        Scalar::Int(value) | Scalar::Date(value) if !matches!(ty, Type::Date) => json!(value),
        Scalar::Int(days) | Scalar::Date(days) => {
            let day = NaiveDate::default().checked_add_signed(chrono::TimeDelta::days(i64::from(*days)));
            json!(day.unwrap_or_default().to_string())
        }
        Scalar::Long(value) | Scalar::Timestamp(value) => json!(value),
        // By way of its own text, so that 0.1 stays 0.1 and comes back as the same 32 bits.
        Scalar::Float(value) => number(value.to_string().parse().unwrap_or(f64::NAN), token(f64::from(*value))),
        Scalar::Double(value) => number(*value, token(*value)),
        Scalar::Decimal(unscaled) => json!(decimal_text(*unscaled, ty)),
        Scalar::String(text) | Scalar::Uuid(text) => json!(text),
        Scalar::Bytes(bytes) => json!(STANDARD.encode(bytes)),
    }
}

fn token(value: f64) -> String {
    match value {
        value if value.is_nan() => "NaN",
        value if value > 0.0 => "Infinity",
        _ => "-Infinity",
    }
    .to_owned()
}

/// A JSON number or one of Python's three tokens; Rust's own further spellings are not taken.
fn float<T: std::str::FromStr>(text: &str) -> Option<T> {
    match text {
        "NaN" | "Infinity" | "-Infinity" => text.parse().ok(),
        _ if text.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte)) => text.parse().ok(),
        _ => None,
    }
}

/// The unscaled value of a decimal text; none where a digit would be lost.
fn decimal(text: &str, precision: u8, scale: u8) -> Option<i128> {
    let (sign, digits) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let scale = usize::from(scale);
    let digits_only = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits_only(whole) || !digits_only(fraction) || fraction.len() > scale {
        return None;
    }
    if digits.ends_with('.') {
        return None;
    }
    let significant = format!("{whole}{fraction:0<scale$}");
    let significant = significant.trim_start_matches('0');
    match significant.len() {
        0 => Some(0),
        length if length <= usize::from(precision) => significant.parse::<i128>().ok().map(|value| sign * value),
        _ => None,
    }
}

fn decimal_text(unscaled: i128, ty: &Type) -> String {
    let scale = match ty {
        Type::Decimal { scale, .. } => usize::from(*scale),
        _ => 0,
    };
    let sign = if unscaled < 0 { "-" } else { "" };
    let digits = format!("{:0>width$}", unscaled.unsigned_abs(), width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    if scale == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decimal_type(precision: u8, scale: u8) -> Type {
        Type::Decimal { precision, scale }
    }

    #[test]
    fn what_is_written_is_read_back() {
        for (ty, value) in [
            (Type::Boolean, Scalar::Boolean(false)),
            (Type::Int, Scalar::Int(i32::MIN)),
            (Type::Long, Scalar::Long(i64::MAX)),
            (Type::Float, Scalar::Float(0.1)),
            (Type::Float, Scalar::Float(f32::MAX)),
            (Type::Double, Scalar::Double(f64::MIN_POSITIVE)),
            (Type::Double, Scalar::Double(-3.0)),
            (Type::Double, Scalar::Double(f64::NEG_INFINITY)),
            (decimal_type(10, 2), Scalar::Decimal(-5)),
            (decimal_type(38, 0), Scalar::Decimal(10_i128.pow(38) - 1)),
            (Type::String, Scalar::String("12".to_owned())),
            (Type::Bytes, Scalar::Bytes(vec![0, 255])),
            (Type::Date, Scalar::Date(-1)),
            (Type::Timestamp, Scalar::Timestamp(-1)),
            (Type::Uuid, Scalar::Uuid("01890a5d-ac96-774b-bcce-b302099a8057".to_owned())),
        ] {
            let (text, bare) = match write(&ty, &value) {
                Value::String(text) => (text, false),
                other => (other.to_string(), true),
            };
            assert_eq!(read(&ty, &text, bare), Ok(value), "{ty} {text}");
        }
    }

    #[test]
    fn decimals_lose_no_digit() {
        let ty = decimal_type(5, 2);
        assert_eq!(read(&ty, "12.5", false), Ok(Scalar::Decimal(1250)));
        assert_eq!(read(&ty, "-000.01", false), Ok(Scalar::Decimal(-1)));
        for text in ["12.345", "1234", "1234.00", "", ".5", "5.", "1e2", "--1", "-"] {
            assert!(read(&ty, text, false).is_err(), "{text}");
        }
    }

    #[test]
    fn a_value_of_another_type_is_refused() {
        for (ty, text, bare) in [
            (Type::Boolean, "true", false),
            (Type::Boolean, "yes", true),
            (Type::Int, "2147483648", true),
            (Type::Int, "1", false),
            (Type::Long, "1.0", true),
            (Type::Double, "inf", true),
            (Type::Date, "2013-02-30", false),
            (Type::Timestamp, "2013-01-31 12:00", false),
            (Type::Uuid, "01890a5dac96774bbcceb302099a8057", false),
        ] {
            assert!(read(&ty, text, bare).is_err(), "{ty} {text}");
        }
    }
}
