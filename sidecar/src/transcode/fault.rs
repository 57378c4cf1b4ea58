//! What is wrong with a body, and where.

use std::fmt;

use serde::{Serialize, Serializer};

/// Faults of one body that are listed; the scan ends with the last. More help nobody, and each costs memory.
pub const FAULTS_MAX: usize = 100;

/// Bytes of one key that a pointer repeats; the rest of a longer key is left out.
pub const KEY_BYTES_MAX: usize = 128;

/// One fault of a body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// RFC 6901; empty for the body itself.
    pub pointer: String,
    pub reason: Reason,
    /// A sentence for people. It holds no values of the body.
    pub detail: String,
}

impl Fault {
    /// The fault as text, without keys that the contract does not declare: a key that somebody made up can be anything,
    /// a private value too.
    pub(crate) fn without_unknown_keys(&self) -> String {
        let known = match self.reason {
            Reason::UnknownField | Reason::UnknownLabel => self.pointer.rsplit_once('/').map(|(known, _)| known),
            _ => None,
        };
        match known {
            Some(known) => format!("{known}/(undeclared): {}: {}", self.reason, self.detail),
            None => self.to_string(),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.pointer, self.reason, self.detail)
    }
}

/// Why a body was refused: a stable word, for programs and for the label of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    InvalidJson,
    InvalidUtf8,
    NotAnObject,
    TooDeep,
    TooLarge,
    UnknownField,
    DuplicateKey,
    MissingRequired,
    WrongType,
    /// A text that is not in the form of its type, such as a date of `2013-02-30`.
    InvalidValue,
    OutOfRange,
    InvalidId,
    IdTimeMismatch,
    EventTimeAhead,
    OpTimeAhead,
    NullLabel,
    UnknownLabel,
    /// Part of the interface, but not of this version.
    NotSupported,
}

impl Reason {
    pub const ALL: [Reason; 18] = [
        Reason::InvalidJson,
        Reason::InvalidUtf8,
        Reason::NotAnObject,
        Reason::TooDeep,
        Reason::TooLarge,
        Reason::UnknownField,
        Reason::DuplicateKey,
        Reason::MissingRequired,
        Reason::WrongType,
        Reason::InvalidValue,
        Reason::OutOfRange,
        Reason::InvalidId,
        Reason::IdTimeMismatch,
        Reason::EventTimeAhead,
        Reason::OpTimeAhead,
        Reason::NullLabel,
        Reason::UnknownLabel,
        Reason::NotSupported,
    ];

    pub fn word(self) -> &'static str {
        match self {
            Reason::InvalidJson => "invalid_json",
            Reason::InvalidUtf8 => "invalid_utf8",
            Reason::NotAnObject => "not_an_object",
            Reason::TooDeep => "too_deep",
            Reason::TooLarge => "too_large",
            Reason::UnknownField => "unknown_field",
            Reason::DuplicateKey => "duplicate_key",
            Reason::MissingRequired => "missing_required",
            Reason::WrongType => "wrong_type",
            Reason::InvalidValue => "invalid_value",
            Reason::OutOfRange => "out_of_range",
            Reason::InvalidId => "invalid_id",
            Reason::IdTimeMismatch => "id_time_mismatch",
            Reason::EventTimeAhead => "event_time_ahead",
            Reason::OpTimeAhead => "op_time_ahead",
            Reason::NullLabel => "null_label",
            Reason::UnknownLabel => "unknown_label",
            Reason::NotSupported => "not_supported",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.word())
    }
}

/// The scan ends here; why is in the list of faults already.
#[derive(Debug)]
pub(super) struct Stop;

/// Which part of the body is being read: where the pointers of its faults begin.
#[derive(Debug, Clone, Copy, Default)]
pub(super) enum Within {
    #[default]
    Body,
    Shared,
    Item(usize),
}

/// The faults found so far.
#[derive(Debug, Default)]
pub(super) struct Faults {
    list: Vec<Fault>,
    within: Within,
}

impl Faults {
    pub fn of(within: Within) -> Faults {
        Faults { list: Vec::new(), within }
    }

    /// Adds a fault at the place that `path` leads to.
    ///
    /// # Errors
    /// [`Stop`] when the list is full.
    #[cold]
    pub fn add(&mut self, path: &[&str], reason: Reason, detail: impl Into<String>) -> Result<(), Stop> {
        self.list.push(Fault { pointer: pointer(self.within, path), reason, detail: detail.into() });
        if self.list.len() < FAULTS_MAX { Ok(()) } else { Err(Stop) }
    }

    /// Adds the fault that ends the scan.
    #[cold]
    pub fn end(&mut self, reason: Reason, detail: impl Into<String>) -> Stop {
        self.list.push(Fault { pointer: pointer(self.within, &[]), reason, detail: detail.into() });
        Stop
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub fn into_list(self) -> Vec<Fault> {
        self.list
    }
}

fn pointer(within: Within, path: &[&str]) -> String {
    let mut pointer = match within {
        Within::Body => String::new(),
        Within::Shared => "/shared".to_owned(),
        Within::Item(place) => format!("/items/{place}"),
    };
    for key in path {
        pointer.push('/');
        let end = (0..=key.len().min(KEY_BYTES_MAX)).rev().find(|end| key.is_char_boundary(*end)).unwrap_or(0);
        for character in key[..end].chars() {
            match character {
                '~' => pointer.push_str("~0"),
                '/' => pointer.push_str("~1"),
                other => pointer.push(other),
            }
        }
    }
    pointer
}
