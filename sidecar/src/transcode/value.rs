//! One value of a declared type: from its JSON to its Avro bytes.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flywheel_schemas::types::Type;

use super::avro::{put_bytes, put_decimal, put_length, put_long};
use super::fault::Reason;
use super::identity::uuid_of;
use super::number::Token;
use super::scanner::{Broken, Scanner, unescape};
use super::{decimal, time};

/// Why a value could not be written.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The body cannot be read further.
    Broken(Broken),
    /// The value is at fault; the scanner is behind it.
    Fault(Reason, Cow<'static, str>),
}

impl From<Broken> for Trouble {
    fn from(broken: Broken) -> Trouble {
        Trouble::Broken(broken)
    }
}

/// The range of `expect` or of a keep rule, in the forms in which numbers are compared with it. Both ends belong to it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    min: f64,
    max: f64,
    min_long: i64,
    max_long: i64,
}

impl Bounds {
    pub fn new(min: Option<f64>, max: Option<f64>) -> Bounds {
        let min = min.unwrap_or(f64::NEG_INFINITY);
        let max = max.unwrap_or(f64::INFINITY);
        // The casts saturate: a bound beyond 64 bits bounds nothing.
        Bounds { min, max, min_long: min.ceil() as i64, max_long: max.floor() as i64 }
    }

    pub fn holds_double(&self, value: f64) -> bool {
        self.min <= value && value <= self.max
    }

    pub fn holds_float(&self, value: f32) -> bool {
        self.min as f32 <= value && value <= self.max as f32
    }

    pub fn holds_long(&self, value: i64) -> bool {
        self.min_long <= value && value <= self.max_long
    }
}

/// Reads one value that is no list and not null, and appends it to `out`; on an error `out` may have grown.
#[inline]
pub(super) fn write(
    scanner: &mut Scanner<'_>,
    ty: &Type,
    bounds: Option<&Bounds>,
    text: &mut String,
    out: &mut Vec<u8>,
) -> Result<(), Trouble> {
    match ty {
        Type::Double => {
            expect(scanner, ty, is_number(scanner.peek()))?;
            let number = scanner.number()?;
            let value = number.double(scanner);
            if value.is_infinite() && number.token == Token::None {
                return Err(fault(Reason::OutOfRange, "the number is beyond those of a double"));
            }
            if bounds.is_some_and(|bounds| !bounds.holds_double(value)) {
                return Err(outside(value.is_nan()));
            }
            out.extend_from_slice(&value.to_le_bytes());
        }
        Type::Float => {
            expect(scanner, ty, is_number(scanner.peek()))?;
            let number = scanner.number()?;
            let value = number.float(scanner);
            if value.is_infinite() && number.token == Token::None {
                return Err(fault(Reason::OutOfRange, "the number is beyond those of a float"));
            }
            if bounds.is_some_and(|bounds| !bounds.holds_float(value)) {
                return Err(outside(value.is_nan()));
            }
            out.extend_from_slice(&value.to_le_bytes());
        }
        Type::Long => put_long(out, integer(scanner, ty, bounds, i64::MIN, i64::MAX)?),
        Type::Int => put_long(out, integer(scanner, ty, bounds, i32::MIN.into(), i32::MAX.into())?),
        Type::Boolean => {
            let first = scanner.peek();
            expect(scanner, ty, matches!(first, b't' | b'f'))?;
            scanner.literal(if first == b't' { "true" } else { "false" })?;
            out.push(u8::from(first == b't'));
        }
        Type::String => put_bytes(out, read_text(scanner, ty, text)?.as_bytes()),
        Type::Uuid => {
            let uuid = uuid_of(read_text(scanner, ty, text)?)
                .ok_or_else(|| fault(Reason::InvalidValue, "not the hyphenated text of a UUID"))?;
            put_bytes(out, uuid.hyphenated().encode_lower(&mut [0; 36]).as_bytes());
        }
        Type::Decimal { precision, scale } => {
            let text = read_text(scanner, ty, text)?;
            let value =
                decimal::unscaled(text, *precision, *scale).map_err(|(reason, detail)| fault(reason, detail))?;
            // Rust reads every decimal as f64.
            if bounds.is_some_and(|bounds| !bounds.holds_double(text.parse().unwrap_or(f64::NAN))) {
                return Err(outside(false));
            }
            put_decimal(out, value);
        }
        Type::Bytes => {
            let text = read_text(scanner, ty, text)?;
            let padding = text.bytes().rev().take(2).take_while(|byte| *byte == b'=').count();
            put_length(out, (text.len() / 4 * 3).saturating_sub(padding));
            STANDARD
                .decode_vec(text, out)
                .map_err(|_| fault(Reason::InvalidValue, "not padded base64 (RFC 4648, section 4)"))?;
        }
        Type::Date => {
            let days = time::days(read_text(scanner, ty, text)?)
                .ok_or_else(|| fault(Reason::InvalidValue, "no day of the calendar; a date is \"YYYY-MM-DD\""))?;
            put_long(out, days.into());
        }
        Type::Timestamp => put_long(out, timestamp(scanner, text)?),
        // A list of lists is no type of a contract.
        Type::List(_) => {
            scanner.skip()?;
            return Err(fault(Reason::WrongType, "a list holds no lists"));
        }
    }
    Ok(())
}

/// Reads RFC 3339 text or integer microseconds, as microseconds since the epoch.
pub(super) fn timestamp(scanner: &mut Scanner<'_>, text: &mut String) -> Result<i64, Trouble> {
    let micros = if scanner.peek() != b'"' {
        integer(scanner, &Type::Timestamp, None, i64::MIN, i64::MAX)?
    } else {
        time::micros(read_text(scanner, &Type::Timestamp, text)?).ok_or_else(|| {
            fault(
                Reason::InvalidValue,
                "no instant in RFC 3339 with an offset and at most six digits of a second, such as \
                 \"2013-01-31T05:15:00.25Z\"",
            )
        })?
    };
    // As a rule one beyond them was meant in nanoseconds; a single one makes a table unreadable for some engines.
    if !time::MICROS.contains(&micros) {
        return Err(fault(Reason::OutOfRange, "the instant is not in the years 1 to 9999; integers are microseconds"));
    }
    Ok(micros)
}

/// Reads an integer from `min` to `max`.
pub(super) fn integer(
    scanner: &mut Scanner<'_>,
    ty: &Type,
    bounds: Option<&Bounds>,
    min: i64,
    max: i64,
) -> Result<i64, Trouble> {
    expect(scanner, ty, is_number(scanner.peek()))?;
    let number = scanner.number()?;
    if !number.is_integer {
        return Err(Trouble::Fault(
            Reason::WrongType,
            format!("{} takes an integer without point and exponent", notation(ty)).into(),
        ));
    }
    match number.long().filter(|value| (min..=max).contains(value)) {
        None => Err(fault(Reason::OutOfRange, "the integer has too many bits for its type")),
        Some(value) if bounds.is_some_and(|bounds| !bounds.holds_long(value)) => Err(outside(false)),
        Some(value) => Ok(value),
    }
}

/// Reads a string; without escapes it is that of the body, else it is written over `text`.
#[inline]
pub(super) fn read_text<'t, 'b: 't>(
    scanner: &mut Scanner<'b>,
    ty: &Type,
    text: &'t mut String,
) -> Result<&'t str, Trouble> {
    expect(scanner, ty, scanner.peek() == b'"')?;
    scanner.at += 1;
    let raw = scanner.string()?;
    if !raw.has_escapes {
        return Ok(raw.text);
    }
    if unescape(raw, text) {
        Ok(text)
    } else {
        Err(fault(Reason::InvalidUtf8, "half a surrogate pair is no character"))
    }
}

pub(super) fn fault(reason: Reason, detail: &'static str) -> Trouble {
    Trouble::Fault(reason, Cow::Borrowed(detail))
}

#[cold]
fn outside(is_nan: bool) -> Trouble {
    let detail = if is_nan {
        "NaN is outside every expected range; send null where there is no value"
    } else {
        "the number is outside the range that the contract expects"
    };
    fault(Reason::OutOfRange, detail)
}

fn is_number(first: u8) -> bool {
    matches!(first, b'0'..=b'9' | b'-' | b'N' | b'I')
}

/// Unless `is_met`, passes the value and says that it is of the wrong type.
#[inline]
fn expect(scanner: &mut Scanner<'_>, ty: &Type, is_met: bool) -> Result<(), Trouble> {
    if is_met { Ok(()) } else { Err(mismatch(scanner, ty)) }
}

/// Passes a value of the wrong type.
#[cold]
pub(super) fn mismatch(scanner: &mut Scanner<'_>, ty: &Type) -> Trouble {
    let detail = format!("{} takes {}, found {}", notation(ty), wanted(ty), scanner.found());
    match scanner.skip() {
        Ok(()) => Trouble::Fault(Reason::WrongType, detail.into()),
        Err(broken) => Trouble::Broken(broken),
    }
}

fn notation(ty: &Type) -> String {
    format!("`{ty}`")
}

fn wanted(ty: &Type) -> &'static str {
    match ty {
        Type::Boolean => "true or false",
        Type::Int | Type::Long => "an integer",
        Type::Float | Type::Double => "a number",
        Type::Timestamp => "RFC 3339 text or integer microseconds",
        Type::List(_) => "an array",
        Type::Decimal { .. } | Type::String | Type::Bytes | Type::Date | Type::Uuid => "a string",
    }
}
