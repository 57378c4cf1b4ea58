//! Prediction ids: UUIDv7 whose time is the prediction's event time, so that the same id has the same event time and
//! a re-sent record is recognised however late it comes.
//!
//! In text they are lower-case and hyphenated, 36 bytes, everywhere: in answers, keys, data and tables.

use uuid::{Builder, Uuid, Variant};

/// The last millisecond that the 48 bits of a UUIDv7 can hold (year 10889).
pub const TIME_MS_MAX: i64 = (1 << 48) - 1;

/// A new id for a prediction made at `event_time_ms` (milliseconds since the epoch).
pub fn mint(event_time_ms: i64) -> Uuid {
    from_parts(event_time_ms, Uuid::new_v4().into_bytes()[6..].try_into().unwrap_or_default())
}

/// The id of `event_time_ms` and 74 of the 80 bits given: for clients that derive their ids from a key of their own.
pub fn from_parts(event_time_ms: i64, bits: [u8; 10]) -> Uuid {
    Builder::from_unix_timestamp_millis(event_time_ms.clamp(0, TIME_MS_MAX).unsigned_abs(), &bits).into_uuid()
}

/// The event time, in milliseconds since the epoch, that a prediction id holds; none where `id` is no UUIDv7.
pub fn time_ms(id: &Uuid) -> Option<i64> {
    let bytes = id.as_bytes();
    (id.get_version_num() == 7 && id.get_variant() == Variant::RFC4122)
        .then(|| bytes[..6].iter().fold(0, |time, byte| (time << 8) | i64::from(*byte)))
}

/// The same of an id's text, in whatever spelling.
pub fn time_ms_of(text: &str) -> Option<i64> {
    Uuid::try_parse(text).ok().as_ref().and_then(time_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minted_id_holds_its_time() {
        for time in [0, 1, 1_357_034_400_123, TIME_MS_MAX] {
            assert_eq!(time_ms(&mint(time)), Some(time));
        }
        assert_ne!(mint(5), mint(5));
    }

    #[test]
    fn other_versions_hold_none() {
        assert_eq!(time_ms(&Uuid::new_v4()), None);
        assert_eq!(time_ms(&Uuid::nil()), None);
    }
}
