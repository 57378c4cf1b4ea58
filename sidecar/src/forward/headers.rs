//! The headers of a record: where it comes from, CloudEvents in binary mode, and the trace it belongs to.
//!
//! CloudEvents 1.0, Kafka protocol binding, binary mode: attributes as headers `ce_…`, the media type of the value as
//! `content-type`. `ce_time` is receipt (RFC 3339, UTC, milliseconds).

use std::io::Write;

use flywheel_schemas::wire;
use uuid::Uuid;

use super::topics::Target;
use crate::record::Envelope;

/// Headers of one record, borrowed from it and from a [`Texts`].
pub type Header<'a> = (&'a str, Option<&'a [u8]>);

/// Calls `send` with the headers of a tick record.
pub const TICK: [Header<'static>; 1] = [(wire::TICK, Some(b""))];

/// Buffers for the headers that are made of numbers, reused from record to record.
#[derive(Default)]
pub struct Texts {
    producer_id: Vec<u8>,
    producer_seq: Vec<u8>,
    time: Vec<u8>,
}

impl Texts {
    /// The headers of a record that goes to `target`.
    pub fn headers<'a>(&'a mut self, envelope: &Envelope<'a>, source: &'a str, target: &'a Target) -> Vec<Header<'a>> {
        self.producer_id.clear();
        self.producer_seq.clear();
        self.time.clear();
        let mut id = Uuid::encode_buffer();
        let id = Uuid::from_bytes(envelope.producer_id).hyphenated().encode_lower(&mut id);
        self.producer_id.extend_from_slice(id.as_bytes());
        // Writing to a vector cannot fail.
        let _ = write!(self.producer_seq, "{}", envelope.producer_seq);
        write_rfc3339(&mut self.time, envelope.time_ms);
        let mut headers: Vec<Header<'a>> = Vec::with_capacity(9);
        headers.push((wire::PRODUCER_ID, Some(&self.producer_id)));
        if envelope.producer_seq > 0 {
            headers.push((wire::PRODUCER_SEQ, Some(&self.producer_seq)));
        }
        headers.extend([
            ("ce_specversion", Some(&b"1.0"[..])),
            ("ce_id", Some(envelope.event_id)),
            ("ce_source", Some(source.as_bytes())),
            ("ce_type", Some(target.event.as_bytes())),
            ("ce_time", Some(&self.time[..])),
            ("content-type", Some(&b"application/avro"[..])),
        ]);
        if let Some(traceparent) = envelope.traceparent {
            headers.push((wire::TRACEPARENT, Some(traceparent)));
        }
        headers
    }
}

/// Appends a time as RFC 3339 in UTC, with milliseconds.
///
/// The date is computed as in Howard Hinnant's "chrono-compatible low-level date algorithms" (days to civil).
pub(crate) fn write_rfc3339(out: &mut Vec<u8>, time_ms: i64) {
    const DAY_MS: i64 = 86_400_000;
    let (days, ms) = (time_ms.div_euclid(DAY_MS), time_ms.rem_euclid(DAY_MS));
    // Days are counted from 0000-03-01, in eras of 400 years, so that a leap day is the last of its year.
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    let (hour, minute, second) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1_000 % 60);
    let ms = ms % 1_000;
    // Writing to a vector cannot fail.
    let _ = write!(out, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forward::topics::Topics;
    use crate::record::RecordKind;

    #[test]
    fn times_are_rfc_3339() {
        for (time_ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_357_034_400_123, "2013-01-01T10:00:00.123Z"),
            (4_107_542_399_999, "2100-02-28T23:59:59.999Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            let mut out = Vec::new();
            write_rfc3339(&mut out, time_ms);
            assert_eq!(String::from_utf8(out).unwrap(), text);
        }
    }

    #[test]
    fn a_record_says_who_sent_it() {
        let topics = Topics::model("flywheel", "m");
        let envelope = Envelope {
            kind: RecordKind::Outcome,
            time_ms: 0,
            producer_id: [0x11; 16],
            producer_seq: 42,
            key: b"p",
            event_id: b"e",
            traceparent: Some(b"00-1-2-01"),
            datum: b"",
        };
        let mut texts = Texts::default();
        let headers = texts.headers(&envelope, topics.source(), topics.target(RecordKind::Outcome).unwrap());
        let value = |name| headers.iter().find(|header| header.0 == name).and_then(|header| header.1);
        assert_eq!(value(wire::PRODUCER_ID), Some(&b"11111111-1111-1111-1111-111111111111"[..]));
        assert_eq!(value(wire::PRODUCER_SEQ), Some(&b"42"[..]));
        assert_eq!(value("ce_id"), Some(&b"e"[..]));
        assert_eq!(value("ce_source"), Some(&b"/flywheel/m"[..]));
        assert_eq!(value("ce_type"), Some(&b"flywheel.outcome.v1"[..]));
        assert_eq!(value("traceparent"), Some(&b"00-1-2-01"[..]));
    }
}
