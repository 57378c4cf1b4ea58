//! Prediction ids as they are held in memory, where there are hundreds of thousands of them.

use std::borrow::Cow;

use uuid::Uuid;

/// A minted id is 16 bytes in place of a text of 36, and needs no allocation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Id {
    Uuid([u8; 16]),
    Text(Box<str>),
}

impl Id {
    pub fn of(text: &str) -> Id {
        // Of another spelling the text could not be told again.
        let uuid = Uuid::try_parse(text).ok();
        let uuid = uuid.filter(|uuid| *uuid.hyphenated().encode_lower(&mut [0; 36]) == *text);
        uuid.map_or_else(|| Id::Text(text.into()), |uuid| Id::Uuid(uuid.into_bytes()))
    }

    pub fn text(&self) -> Cow<'_, str> {
        match self {
            Id::Uuid(bytes) => Cow::Owned(Uuid::from_bytes(*bytes).hyphenated().to_string()),
            Id::Text(text) => Cow::Borrowed(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_is_told_again_and_none_is_taken_for_another() {
        let texts = [
            "018f0000-0000-7000-8000-000000000001",
            "018F0000-0000-7000-8000-000000000001",
            "018f000000007000800000000000000001",
            "018f0000000070008000000000000001",
            "{018f0000-0000-7000-8000-000000000001}",
            "urn:uuid:018f0000-0000-7000-8000-000000000001",
            "order 7",
            "",
        ];
        let ids = texts.map(Id::of);
        for (text, id) in texts.iter().zip(&ids) {
            assert_eq!(id.text(), *text);
        }
        assert_eq!(std::collections::HashSet::from(ids).len(), texts.len());
        assert!(matches!(Id::of(texts[0]), Id::Uuid(_)) && matches!(Id::of(texts[1]), Id::Text(_)));
    }
}
