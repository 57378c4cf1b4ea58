//! What a body says, found out another way: JSON by serde_json, the rules of each type written down again from the table of
//! types. A body that the transcoder takes must hold these values, and one that it refuses must have a reason to.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::*;

/// JSON with all of its keys, the double ones too.
#[derive(Debug, Clone)]
pub enum Json {
    Null,
    Boolean(bool),
    Integer(i128),
    Number(f64),
    Text(String),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Json, D::Error> {
        struct AnyJson;
        impl<'de> Visitor<'de> for AnyJson {
            type Value = Json;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }

            fn visit_unit<E>(self) -> Result<Json, E> {
                Ok(Json::Null)
            }

            fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
                Ok(Json::Boolean(value))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
                Ok(Json::Integer(value.into()))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
                Ok(Json::Integer(value.into()))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
                Ok(Json::Number(value))
            }

            fn visit_str<E>(self, value: &str) -> Result<Json, E> {
                Ok(Json::Text(value.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = items.next_element()? {
                    list.push(item);
                }
                Ok(Json::List(list))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Json, A::Error> {
                let mut object = Vec::new();
                while let Some(member) = members.next_entry()? {
                    object.push(member);
                }
                Ok(Json::Object(object))
            }
        }
        deserializer.deserialize_any(AnyJson)
    }
}

/// `text` with the tokens that JSON does not have, where they stand as values, in the form that `as_text` gives them.
pub fn without_tokens(text: &str, as_text: impl Fn(&str) -> String) -> String {
    let mut out = String::new();
    let mut rest = text;
    let mut is_string = false;
    'next: while let Some(first) = rest.chars().next() {
        if !is_string {
            for token in ["NaN", "Infinity", "-Infinity"] {
                if let Some(after) = rest.strip_prefix(token) {
                    // The spaces keep it apart from what stands beside it.
                    out += &format!(" {} ", as_text(token));
                    rest = after;
                    continue 'next;
                }
            }
        }
        let length = if is_string && first == '\\' {
            1 + rest[1..].chars().next().map_or(0, char::len_utf8)
        } else {
            is_string ^= first == '"';
            first.len_utf8()
        };
        out += &rest[..length];
        rest = &rest[length..];
    }
    out
}

/// How deep the brackets of `text` are nested at most, those in strings left out.
pub fn depth(text: &str) -> u32 {
    let (mut depth, mut deepest, mut is_string, mut is_escape) = (0_u32, 0, false, false);
    for byte in text.bytes() {
        match byte {
            _ if is_escape => is_escape = false,
            b'\\' if is_string => is_escape = true,
            b'"' => is_string = !is_string,
            b'[' | b'{' if !is_string => depth += 1,
            b']' | b'}' if !is_string => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

/// Whether the scanner and serde_json agree that `text` is JSON, but for the three tokens.
///
/// # Errors
/// What the two say, where they do not.
pub fn check_json(text: &str) -> Result<(), String> {
    let mut scanner = scanner::Scanner::new(text);
    scanner.space();
    let ours = scanner.skip().map_err(|broken| broken.reason).and_then(|()| {
        scanner.space();
        if scanner.is_at_end() { Ok(()) } else { Err(Reason::InvalidJson) }
    });
    let theirs = serde_json::from_str::<serde::de::IgnoredAny>(&without_tokens(text, |_| "0".to_owned()));
    let agree = match ours {
        // It gives up where nobody else does.
        Err(Reason::TooDeep) => depth(text) > scanner::DEPTH_MAX,
        _ => ours.is_ok() == theirs.is_ok(),
    };
    if agree { Ok(()) } else { Err(format!("{text:?}: ours {ours:?}, theirs {theirs:?}")) }
}

/// What stands for a token in the oracle's JSON; no text that it is compared with has this character.
const TOKEN: char = '\u{f8ff}';

/// What a value of a type is.
enum Verdict {
    Right(Value),
    Wrong,
    /// Only to be compared where it was taken.
    IfTaken(Value),
}

/// A contract with a field of every type, as `f0`, `f1`, …, and a list of each as `l0`, `l1`, ….
pub fn every_type() -> Plan {
    let lists = scalars().into_iter().enumerate();
    let lists = lists.map(|(place, ty)| field(&format!("l{place}"), Type::List(Box::new(ty))));
    let fields = scalars().into_iter().enumerate().map(|(place, ty)| field(&format!("f{place}"), ty));
    plan(Contract {
        entity: vec![],
        features: fields.chain(lists).collect(),
        prediction: vec![],
        decision: vec![],
        ..flights()
    })
}

pub fn scalars() -> Vec<Type> {
    vec![
        Type::Boolean,
        Type::Int,
        Type::Long,
        Type::Float,
        Type::Double,
        Type::Decimal { precision: 5, scale: 2 },
        Type::Decimal { precision: 38, scale: 0 },
        Type::Decimal { precision: 38, scale: 38 },
        Type::String,
        Type::Bytes,
        Type::Date,
        Type::Timestamp,
        Type::Uuid,
    ]
}

/// Reads `features` as the object of that name, with a plan of [`every_type`].
///
/// # Errors
/// Where the transcoder takes what it should not, or something else than what was said, or refuses what is right.
pub fn check_features(plan: &Plan, scratch: &mut Scratch, features: &str) -> Result<(), String> {
    let body = format!(r#"{{"model_version":"1","event_time":0,"features":{features}}}"#);
    let mut out = Vec::new();
    let ours = prediction(plan, scratch, body.as_bytes(), &RECEIPT, &mut out);
    let marked = without_tokens(features, |token| format!("\"{TOKEN}{token}\""));
    let said = serde_json::from_str::<Json>(&marked).map_err(|error| error.to_string());
    let said = said.and_then(|said| features_of(plan, &said));
    let (expected, is_sure) = match said {
        Ok(said) => said,
        Err(why) if ours.is_err() => {
            let _: String = why;
            return if out.is_empty() { Ok(()) } else { Err(format!("{features}: refused, and written")) };
        }
        // The text may break out of its place; then it is not the object that is compared here.
        Err(_)
            if serde_json::from_str::<serde::de::IgnoredAny>(&without_tokens(features, |_| "0".to_owned()))
                .is_err() =>
        {
            return Ok(());
        }
        Err(why) => return Err(format!("{features}: taken, though {why}")),
    };
    match ours {
        Err(faults) if is_sure => Err(format!("{features}: refused, though it is right: {faults:?}")),
        Err(_) => Ok(()),
        Ok(_) => {
            let found = at(&decode(plan.prediction_schema(), &out), "features");
            let same = same(&found, &expected);
            if same { Ok(()) } else { Err(format!("{features}: {found:?} instead of {expected:?}")) }
        }
    }
}

/// The record that the features should be, and whether it is certain that they must be taken.
fn features_of(plan: &Plan, said: &Json) -> Result<(Value, bool), String> {
    let members = match said {
        Json::Null => return Ok((Value::Null, true)),
        Json::Object(members) => members,
        _ => return Err("it is no object".to_owned()),
    };
    let contract = plan.contract();
    let mut seen = std::collections::BTreeSet::new();
    for (key, _) in members {
        if !contract.features.iter().any(|field| field.name == *key) {
            return Err(format!("there is no field {key}"));
        }
        if !seen.insert(key) {
            return Err(format!("{key} stands twice"));
        }
    }
    let mut is_sure = true;
    let mut record = Vec::new();
    for field in &contract.features {
        let said = members.iter().find(|(key, _)| *key == field.name).map_or(&Json::Null, |(_, said)| said);
        let value = match said {
            Json::Null => Value::Union(0, Box::new(Value::Null)),
            said => match verdict(&field.ty, said) {
                Verdict::Right(value) => Value::Union(1, Box::new(value)),
                Verdict::IfTaken(value) => {
                    is_sure = false;
                    Value::Union(1, Box::new(value))
                }
                Verdict::Wrong => return Err(format!("{} is no {}", field.name, field.ty)),
            },
        };
        record.push((field.name.clone(), value));
    }
    Ok((Value::Record(record), is_sure))
}

fn verdict(ty: &Type, said: &Json) -> Verdict {
    let right = |value: Option<Value>| value.map_or(Verdict::Wrong, Verdict::Right);
    match (ty, said) {
        (Type::Boolean, Json::Boolean(value)) => Verdict::Right(Value::Boolean(*value)),
        (Type::Int, Json::Integer(value)) => right(i32::try_from(*value).ok().map(Value::Int)),
        (Type::Long, Json::Integer(value)) => right(i64::try_from(*value).ok().map(Value::Long)),
        // serde_json does not tell -0 from -0.0.
        (Type::Int, Json::Number(value)) if is_minus_zero(*value) => Verdict::IfTaken(Value::Int(0)),
        (Type::Long, Json::Number(value)) if is_minus_zero(*value) => Verdict::IfTaken(Value::Long(0)),
        (Type::Timestamp, Json::Number(value)) if is_minus_zero(*value) => Verdict::IfTaken(Value::TimestampMicros(0)),
        (Type::Double, Json::Integer(value)) => Verdict::Right(Value::Double(*value as f64)),
        (Type::Double, Json::Number(value)) => Verdict::Right(Value::Double(*value)),
        (Type::Double, Json::Text(text)) => right(token(text).map(Value::Double)),
        (Type::Float, Json::Integer(value)) => Verdict::Right(Value::Float(*value as f32)),
        // The f32 nearest to the text and that nearest to the f64 nearest to it can differ; `same` knows.
        (Type::Float, Json::Number(value)) if (value.abs() - f64::from(f32::MAX)).abs() < 1e32 => {
            Verdict::IfTaken(Value::Double(*value))
        }
        (Type::Float, Json::Number(value)) if value.abs() > f64::from(f32::MAX) => Verdict::Wrong,
        (Type::Float, Json::Number(value)) => Verdict::Right(Value::Double(*value)),
        (Type::Float, Json::Text(text)) => right(token(text).map(|value| Value::Float(value as f32))),
        (_, Json::Text(text)) if text.starts_with(TOKEN) => Verdict::IfTaken(Value::String(text.clone())),
        (Type::String, Json::Text(text)) => Verdict::Right(Value::String(text.clone())),
        (Type::Uuid, Json::Text(text)) => {
            let is_hyphenated = text.len() == 36 && [8, 13, 18, 23].iter().all(|at| text.as_bytes()[*at] == b'-');
            let digits: String = text.chars().filter(|c| *c != '-').collect();
            let value = u128::from_str_radix(&digits, 16).ok().filter(|_| is_hyphenated && digits.len() == 32);
            let value = value.filter(|_| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
            right(value.map(|value| Value::Uuid(uuid::Uuid::from_u128(value))))
        }
        (Type::Decimal { precision, scale }, Json::Text(text)) => right(decimal(text, *precision, *scale)),
        (Type::Bytes, Json::Text(text)) => right(base64(text).map(Value::Bytes)),
        (Type::Date, Json::Text(text)) => right(day(text).map(Value::Date)),
        (Type::Timestamp, Json::Integer(value)) => {
            let micros = i64::try_from(*value).ok().filter(|value| time::MICROS.contains(value));
            right(micros.map(Value::TimestampMicros))
        }
        // Its text is compared in the tests of `time`.
        (Type::Timestamp, Json::Text(_)) => match time_of(said) {
            Some(value) => Verdict::IfTaken(Value::TimestampMicros(value)),
            None => Verdict::Wrong,
        },
        (Type::List(item), Json::List(items)) => {
            let mut values = Vec::new();
            let mut is_sure = true;
            for said in items {
                match verdict(item, said) {
                    Verdict::Right(value) => values.push(value),
                    Verdict::IfTaken(value) => {
                        is_sure = false;
                        values.push(value);
                    }
                    Verdict::Wrong => return Verdict::Wrong,
                }
            }
            if is_sure { Verdict::Right(Value::Array(values)) } else { Verdict::IfTaken(Value::Array(values)) }
        }
        _ => Verdict::Wrong,
    }
}

fn is_minus_zero(value: f64) -> bool {
    value.to_bits() == (-0.0_f64).to_bits()
}

fn token(text: &str) -> Option<f64> {
    match text.strip_prefix(TOKEN)? {
        "NaN" => Some(f64::NAN),
        "Infinity" => Some(f64::INFINITY),
        _ => Some(f64::NEG_INFINITY),
    }
}

/// By digits as text: those before the point without leading zeros, those after it filled up to the scale.
fn decimal(text: &str, precision: u8, scale: u8) -> Option<Value> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    if whole.is_empty() || fraction.is_empty() || !(whole.to_owned() + fraction).bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let (scale, fraction) = (usize::from(scale), fraction.trim_end_matches('0'));
    if fraction.len() > scale {
        return None;
    }
    let unscaled = format!("{whole}{fraction:0<scale$}");
    let unscaled = unscaled.trim_start_matches('0');
    if unscaled.len() > usize::from(precision) {
        return None;
    }
    let value = format!("0{unscaled}").parse::<i128>().ok()?;
    let value = if text.starts_with('-') { -value } else { value };
    let width = (1..16).find(|width| (value << (128 - 8 * width)) >> (128 - 8 * width) == value).unwrap_or(16);
    Some(Value::Decimal(value.to_be_bytes()[16 - width..].to_vec().into()))
}

/// Four characters for three bytes, padded, with no bits left over (RFC 4648, section 4).
fn base64(text: &str) -> Option<Vec<u8>> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    if !text.len().is_multiple_of(4) {
        return None;
    }
    let digits = text.trim_end_matches('=');
    let padding = text.len() - digits.len();
    let mut bytes = Vec::new();
    let (mut bits, mut count) = (0_u32, 0);
    for digit in digits.bytes() {
        bits = (bits << 6) | u32::try_from(DIGITS.iter().position(|other| *other == digit)?).ok()?;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    (padding <= 2 && bits == 0 && count == [0, 2, 4][padding]).then_some(bytes)
}

fn day(text: &str) -> Option<i32> {
    let bytes = text.as_bytes();
    let is_form = bytes.len() == 10
        && bytes
            .iter()
            .enumerate()
            .all(|(at, byte)| if at == 4 || at == 7 { *byte == b'-' } else { byte.is_ascii_digit() });
    if !is_form {
        return None;
    }
    let (year, month, day): (i32, u32, u32) =
        (text[..4].parse().ok()?, text[5..7].parse().ok()?, text[8..].parse().ok()?);
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let lengths = [31, if is_leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let length = *lengths.get((month as usize).checked_sub(1)?)?;
    (year > 0 && (1..=length).contains(&day)).then(|| differential::time_days(year, month, day))
}

/// The instant of RFC 3339 text that begins with a day and a time; what else is wrong with it is not looked at.
fn time_of(said: &Json) -> Option<i64> {
    let Json::Text(text) = said else { return None };
    let days = i64::from(day(text.get(..10)?)?);
    let number = |from: usize| text.get(from..from + 2)?.parse::<u8>().ok().map(i64::from);
    let seconds = number(11)? * 3600 + number(14)? * 60 + number(17)?;
    let rest = text.get(19..)?;
    let digits = rest.strip_prefix('.').map_or("", |rest| &rest[..rest.bytes().take_while(u8::is_ascii_digit).count()]);
    let micros = format!("{digits:0<6}").get(..6)?.parse::<i64>().ok()?;
    let offset = match rest.len().checked_sub(6).and_then(|at| rest.get(at..)) {
        Some(offset) if offset.starts_with(['+', '-']) => {
            let minutes = offset.get(1..3)?.parse::<i64>().ok()? * 60 + offset.get(4..6)?.parse::<i64>().ok()?;
            if offset.starts_with('-') { -minutes } else { minutes }
        }
        _ => 0,
    };
    let offset = if text.ends_with(['Z', 'z']) { 0 } else { offset };
    Some((days * 86_400 + seconds - offset * 60) * 1_000_000 + micros)
}

/// Equal to the bit. Where a float is expected by way of a double, either neighbour will do if the double lies between
/// two floats in the very middle: the text may have been on either side.
fn same(found: &Value, expected: &Value) -> bool {
    match (found, expected) {
        (Value::Union(left, found), Value::Union(right, expected)) => left == right && same(found, expected),
        (Value::Record(found), Value::Record(expected)) => {
            found.len() == expected.len()
                && found.iter().zip(expected).all(|(one, other)| one.0 == other.0 && same(&one.1, &other.1))
        }
        (Value::Array(found), Value::Array(expected)) => {
            found.len() == expected.len() && found.iter().zip(expected).all(|(one, other)| same(one, other))
        }
        (Value::Double(found), Value::Double(expected)) => found.to_bits() == expected.to_bits(),
        (Value::Float(found), Value::Float(expected)) => found.to_bits() == expected.to_bits(),
        (Value::Float(found), Value::Double(expected)) => {
            let by_double = *expected as f32;
            let middle = (f64::from(by_double) + f64::from(*found)) / 2.0;
            by_double.to_bits() == found.to_bits()
                || (middle == *expected && by_double.to_bits().abs_diff(found.to_bits()) == 1)
        }
        _ => found == expected,
    }
}
