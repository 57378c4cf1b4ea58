//! Ids as they stand in answers, keys and data.

use std::fmt;
use std::ops::Deref;

use uuid::Uuid;

/// An id as text, held in place.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Id {
    length: u8,
    bytes: [u8; Id::BYTES_MAX],
}

impl Id {
    /// The longest id that a caller may bring.
    pub const BYTES_MAX: usize = 128;

    /// None where `text` is empty or too long.
    pub fn from_text(text: &str) -> Option<Id> {
        let length =
            u8::try_from(text.len()).ok().filter(|length| (1..=Id::BYTES_MAX).contains(&usize::from(*length)))?;
        let mut bytes = [0; Id::BYTES_MAX];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        Some(Id { length, bytes })
    }

    /// The lower-case hyphenated text of `uuid`.
    pub fn from_uuid(uuid: &Uuid) -> Id {
        let mut bytes = [0; Id::BYTES_MAX];
        uuid.hyphenated().encode_lower(&mut bytes);
        Id { length: 36, bytes }
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }

    pub fn as_str(&self) -> &str {
        // Both ways of making one start from text.
        str::from_utf8(self.as_bytes()).unwrap_or_default()
    }
}

impl Deref for Id {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Reads hyphenated text of either case; no other notation of a UUID is taken.
pub(super) fn uuid_of(text: &str) -> Option<Uuid> {
    if text.len() == 36 { Uuid::try_parse(text).ok() } else { None }
}
