//! Gate records: what a label source, or a person, says about how far labels may be relied on.
//!
//! A gate record stands in every partition of a model's outcomes topic. Its value is empty; the header
//! [`GATE`](crate::wire::GATE) holds JSON, one of
//!
//! ```json
//! {"kind":"progress","source":"returns","complete_through_ms":1700000000000}
//! {"kind":"release","cause":"rate:clicked","through_ms":1700000000000}
//! ```
//!
//! Instants are milliseconds since the epoch. A cause is written as in the table `seal_log`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// No header is longer, in bytes: a name has at most 63 characters.
pub const HEADER_BYTES_MAX: usize = 256;

/// What a gate record says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum GateRecord {
    /// The source has sent, before this record, every outcome that happened before this instant.
    Progress { source: String, complete_through_ms: i64 },
    /// A person lets ticks through this instant be open, whatever the cause says.
    Release { cause: Cause, through_ms: i64 },
}

impl GateRecord {
    /// The text of the header.
    pub fn to_header(&self) -> String {
        // A tree of texts and numbers always has JSON.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads a header.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_header(header: &[u8]) -> Result<GateRecord, String> {
        if header.len() > HEADER_BYTES_MAX {
            return Err(format!("the gate record has {} bytes, more than {HEADER_BYTES_MAX}", header.len()));
        }
        let record: GateRecord = serde_json::from_slice(header).map_err(|error| format!("no gate record: {error}"))?;
        match &record {
            GateRecord::Progress { source, .. } if !is_name(source) => Err(format!("`{source}` names no source")),
            _ => Ok(record),
        }
    }
}

/// Why a gate bars ticks.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Cause {
    /// A source has not said that it is complete so far.
    Progress(String),
    /// Too few outcomes with this label.
    Rate(String),
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Progress(source) => write!(f, "progress:{source}"),
            Cause::Rate(label) => write!(f, "rate:{label}"),
        }
    }
}

impl FromStr for Cause {
    type Err = String;

    fn from_str(text: &str) -> Result<Cause, String> {
        let (kind, name) = text.split_once(':').unwrap_or_default();
        match kind {
            "progress" if is_name(name) => Ok(Cause::Progress(name.to_owned())),
            "rate" if is_name(name) => Ok(Cause::Rate(name.to_owned())),
            _ => Err(format!("`{text}` is no cause; write progress:SOURCE or rate:LABEL")),
        }
    }
}

impl From<Cause> for String {
    fn from(cause: Cause) -> String {
        cause.to_string()
    }
}

impl TryFrom<String> for Cause {
    type Error = String;

    fn try_from(text: String) -> Result<Cause, String> {
        text.parse()
    }
}

/// As contracts name things.
fn is_name(text: &str) -> bool {
    text.len() <= 63
        && text.starts_with(|first: char| first.is_ascii_lowercase())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_written_as_documented_and_come_back() {
        let progress = GateRecord::Progress { source: "returns".to_owned(), complete_through_ms: 1_700_000_000_000 };
        let release = GateRecord::Release { cause: Cause::Rate("clicked".to_owned()), through_ms: -1 };
        assert_eq!(
            progress.to_header(),
            r#"{"kind":"progress","source":"returns","complete_through_ms":1700000000000}"#
        );
        assert_eq!(release.to_header(), r#"{"kind":"release","cause":"rate:clicked","through_ms":-1}"#);
        for record in [progress, release] {
            assert_eq!(GateRecord::from_header(record.to_header().as_bytes()), Ok(record));
        }
    }

    #[test]
    fn what_is_no_record_is_refused() {
        let long = format!(r#"{{"kind":"progress","source":"{}","complete_through_ms":1}}"#, "a".repeat(300));
        for (text, fault) in [
            ("", "no gate record"),
            (r#"{"kind":"progress","source":"Returns","complete_through_ms":1}"#, "names no source"),
            (r#"{"kind":"progress","source":"","complete_through_ms":1}"#, "names no source"),
            (r#"{"kind":"progress","source":"a","complete_through_ms":1.5}"#, "no gate record"),
            (r#"{"kind":"progress","source":"a","complete_through_ms":1,"more":2}"#, "unknown field"),
            (r#"{"kind":"release","cause":"gap","through_ms":1}"#, "is no cause"),
            (r#"{"kind":"release","cause":"rate:","through_ms":1}"#, "is no cause"),
            (&long, "more than 256"),
        ] {
            let found = GateRecord::from_header(text.as_bytes()).unwrap_err();
            assert!(found.contains(fault), "{text}: {found}");
        }
    }
}
