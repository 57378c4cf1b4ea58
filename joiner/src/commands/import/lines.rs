//! Lines of a file, and the ids of the statements that they hold.

use std::collections::BTreeMap;
use std::io::{BufRead, Read as _};

use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use uuid::{Builder, Uuid};

use crate::commands::body::with_members;

/// A longer line is refused unread: no sidecar takes a larger body.
const LINE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What a file holds next.
pub(super) enum Line {
    Text(String),
    Refused(&'static str),
    End,
}

/// The next line, without its end. A bounded part of a line that is too long is in memory at a time.
pub(super) fn next(from: &mut impl BufRead) -> std::io::Result<Line> {
    let mut bytes = Vec::new();
    let bound = LINE_BYTES_MAX as u64 + 1;
    if from.by_ref().take(bound).read_until(b'\n', &mut bytes)? == 0 {
        return Ok(Line::End);
    }
    if bytes.len() > LINE_BYTES_MAX && bytes.last() != Some(&b'\n') {
        // Ends with the line or the file.
        loop {
            bytes.clear();
            let read = from.by_ref().take(bound).read_until(b'\n', &mut bytes)?;
            if read == 0 || bytes.last() == Some(&b'\n') {
                return Ok(Line::Refused("the line is longer than 16 MiB, which no sidecar takes"));
            }
        }
    }
    Ok(String::from_utf8(bytes).map_or(Line::Refused("the line is not UTF-8"), Line::Text))
}

/// The statement with an `event_id` that follows from what it says, unless it brings its own: the same row, imported again,
/// is a copy. The rest stays as it is written, so that numbers keep every bit.
pub(super) fn with_event_id(statement: &str) -> String {
    let statement = statement.trim();
    let parsed: Option<Map<String, Value>> = serde_json::from_str(statement).ok();
    let id = match &parsed {
        Some(members) => match members.get("event_id") {
            Some(id) if !id.is_null() => return statement.to_owned(),
            _ => id_of(&canonical(members)),
        },
        // NaN is no JSON, but a sidecar takes it. What is no object at all is for the sidecar to refuse.
        None if statement.starts_with('{') => id_of(statement),
        None => return statement.to_owned(),
    };
    with_members(statement, parsed, &[("event_id", Value::String(id.to_string()))])
}

/// The members in the order of their names, without those that are null: neither makes another statement.
fn canonical(members: &Map<String, Value>) -> String {
    let sorted: BTreeMap<&String, String> = members
        .iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(name, value)| {
            let text = value.as_object().map_or_else(|| value.to_string(), canonical);
            (name, text)
        })
        .collect();
    format!("{sorted:?}")
}

/// A UUIDv8 (RFC 9562: bits of our own) of a text.
fn id_of(text: &str) -> Uuid {
    let digest = Sha256::digest(text.as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    Builder::from_custom_bytes(bytes).into_uuid()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(statement: &str) -> String {
        let text = with_event_id(statement);
        let members: Map<String, Value> = serde_json::from_str(&text).unwrap();
        members["event_id"].as_str().unwrap().to_owned()
    }

    #[test]
    fn the_id_follows_from_what_is_said() {
        let one = r#"{"prediction_id":"p","labels":{"a":1,"b":0.1},"event_time":5}"#;
        assert_eq!(with_event_id(one), format!("{{\"event_id\":\"{}\",{}", id(one), &one[1..]));
        assert_eq!(id(one).as_bytes()[14], b'8');
        // Neither order nor nulls nor space make another one.
        assert_eq!(
            id(
                " {\"event_time\": 5, \"labels\": {\"b\": 0.1, \"a\": 1}, \"source\": null, \"prediction_id\": \"p\"}\r"
            ),
            id(one)
        );
        for other in [
            r#"{"prediction_id":"q","labels":{"a":1,"b":0.1},"event_time":5}"#,
            r#"{"prediction_id":"p","labels":{"a":2,"b":0.1},"event_time":5}"#,
            r#"{"prediction_id":"p","labels":{"a":1},"b":0.1,"event_time":5}"#,
            r#"{"prediction_id":"p","labels":{"a":1,"b":0.1},"event_time":5,"revision":1}"#,
            r#"{"prediction_id":"p","labels":{"a":1,"b":0.1},"event_time":5,"op":"retract"}"#,
            r#"{"prediction_id":"p","labels":{"a":1,"b":0.1},"event_time":5,"outcome_id":"o"}"#,
        ] {
            assert_ne!(id(other), id(one), "{other}");
        }
    }

    #[test]
    fn an_id_that_is_brought_stays() {
        let brought = r#"{"event_id":"x","prediction_id":"p"}"#;
        assert_eq!(with_event_id(brought), brought);
        let null = r#"{"event_id":null,"prediction_id":"p"}"#;
        assert_eq!(id(null), id(r#"{"prediction_id":"p"}"#));
        assert_eq!(with_event_id(null).matches("event_id").count(), 1);
    }

    #[test]
    fn what_is_no_json_is_left_to_the_sidecar() {
        assert!(with_event_id(r#"{"labels":{"x":NaN}}"#).ends_with(r#"","labels":{"x":NaN}}"#));
        assert_eq!(with_event_id("{}").matches(',').count(), 0);
        assert_eq!(with_event_id("[1]"), "[1]");
        assert_eq!(with_event_id("x"), "x");
    }

    #[test]
    fn lines_are_read_one_by_one_and_bounded() {
        let long = vec![b'x'; LINE_BYTES_MAX + 5];
        let file = [b"a\n\xff\n".as_slice(), &long, b"\nb"].concat();
        let mut from = std::io::BufReader::new(file.as_slice());
        let mut said = Vec::new();
        loop {
            match next(&mut from).unwrap() {
                Line::Text(text) => said.push(text),
                Line::Refused(why) => said.push(why.split(' ').nth(3).unwrap().to_owned()),
                Line::End => break,
            }
        }
        assert_eq!(said, ["a\n", "not", "longer", "b"]);
    }
}
