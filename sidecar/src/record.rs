//! What a spool record of the sidecar holds, and what the spool's cursor notes.
//!
//! Payload, integers little-endian:
//! ```text
//! format u8 = 1 | kind u8 | time_ms i64 | producer_id 16 bytes | producer_seq u64
//! | key length u32 | event id length u32 | traceparent length u32 (0: none) | key | event id | traceparent | datum
//! ```
//! The datum is an Avro record without a frame: the schema id is added on the way to Kafka, so that a missing registry
//! refuses nothing. The schema's text is known to the spool by the record's schema key.
//!
//! Note, what the cursor file says about the records that went before it:
//! ```text
//! format u8 = 1 | flags u8 (1: time, 2: predictions, 4: outcomes) | time_ms i64
//! | predictions: producer_id 16 bytes, producer_seq u64 | outcomes: the same
//! ```
//! All fields are always there; a flag says whether one holds something.

use flywheel_schemas::wire::Kind;

const FORMAT: u8 = 1;

/// The bytes before the key.
const HEAD_BYTES: usize = 2 + 8 + 16 + 8 + 3 * 4;

/// The bytes of a note.
const NOTE_BYTES: usize = 2 + 8 + 2 * 24;

/// What a record is.
#[repr(u8)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RecordKind {
    Prediction = 1,
    Outcome = 2,
    /// Replay only: time has come to `time_ms`, a multiple of 5 minutes. It goes as a tick record to every partition of
    /// both topics of the model; key and datum are empty.
    Time = 3,
    DeadLetter = 4,
    Ledger = 5,
    /// What a source of labels says; the datum is the text of the header. It goes to every partition of the outcomes.
    Gate = 6,
}

impl RecordKind {
    pub const ALL: [RecordKind; 6] = [
        RecordKind::Prediction,
        RecordKind::Outcome,
        RecordKind::Time,
        RecordKind::DeadLetter,
        RecordKind::Ledger,
        RecordKind::Gate,
    ];

    /// A word for logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            RecordKind::Prediction => "prediction",
            RecordKind::Outcome => "outcome",
            RecordKind::Time => "time",
            RecordKind::DeadLetter => "dead_letter",
            RecordKind::Ledger => "ledger",
            RecordKind::Gate => "gate",
        }
    }

    fn from_byte(byte: u8) -> Option<RecordKind> {
        RecordKind::ALL.into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// One record, before the spool and after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope<'a> {
    pub kind: RecordKind,
    /// Receipt, in milliseconds since the epoch; in a replay the append time.
    pub time_ms: i64,
    /// The start of the process that accepted it.
    pub producer_id: [u8; 16],
    /// Its number among those of its producer, model and kind, from 1; 0 where it has none.
    pub producer_seq: u64,
    /// The Kafka key: the prediction id as text.
    pub key: &'a [u8],
    /// The CloudEvents id: prediction id or event id, as text.
    pub event_id: &'a [u8],
    /// W3C trace context as it came; never empty.
    pub traceparent: Option<&'a [u8]>,
    /// An Avro record without a frame.
    pub datum: &'a [u8],
}

impl<'a> Envelope<'a> {
    /// The length of the payload.
    pub fn payload_bytes(&self) -> usize {
        let traceparent = self.traceparent.unwrap_or_default();
        HEAD_BYTES + self.key.len() + self.event_id.len() + traceparent.len() + self.datum.len()
    }

    /// Appends the payload to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        let traceparent = self.traceparent.unwrap_or_default();
        out.reserve(self.payload_bytes());
        out.extend_from_slice(&[FORMAT, self.kind as u8]);
        out.extend_from_slice(&self.time_ms.to_le_bytes());
        out.extend_from_slice(&self.producer_id);
        out.extend_from_slice(&self.producer_seq.to_le_bytes());
        for part in [self.key, self.event_id, traceparent] {
            // Intake bounds a part far below 4 GiB (a body has at most `limits.body_bytes`).
            out.extend_from_slice(&(part.len() as u32).to_le_bytes());
        }
        out.extend_from_slice(self.key);
        out.extend_from_slice(self.event_id);
        out.extend_from_slice(traceparent);
        out.extend_from_slice(self.datum);
    }

    /// Reads a payload; none where it is not one that this version knows.
    pub fn read(payload: &'a [u8]) -> Option<Envelope<'a>> {
        let mut rest = payload;
        let [format, kind] = take(&mut rest)?;
        if format != FORMAT {
            return None;
        }
        let kind = RecordKind::from_byte(kind)?;
        let time_ms = i64::from_le_bytes(take(&mut rest)?);
        let producer_id = take(&mut rest)?;
        let producer_seq = u64::from_le_bytes(take(&mut rest)?);
        let mut lengths = [0; 3];
        for length in &mut lengths {
            *length = u32::from_le_bytes(take(&mut rest)?) as usize;
        }
        let (key, rest) = rest.split_at_checked(lengths[0])?;
        let (event_id, rest) = rest.split_at_checked(lengths[1])?;
        let (traceparent, datum) = rest.split_at_checked(lengths[2])?;
        let traceparent = Some(traceparent).filter(|text| !text.is_empty());
        Some(Envelope { kind, time_ms, producer_id, producer_seq, key, event_id, traceparent, datum })
    }
}

/// A place in the sequence of one producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducerSeq {
    pub producer_id: [u8; 16],
    pub producer_seq: u64,
}

/// What the cursor says about the records before it, so that a start knows its predecessor although its records are
/// gone from the spool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Note {
    /// The time of the last record, of whichever kind.
    pub time_ms: Option<i64>,
    /// The last prediction.
    pub predictions: Option<ProducerSeq>,
    /// The last outcome.
    pub outcomes: Option<ProducerSeq>,
}

impl Note {
    /// The last record of a kind.
    pub fn place(&self, kind: Kind) -> Option<ProducerSeq> {
        match kind {
            Kind::Predictions => self.predictions,
            Kind::Outcomes => self.outcomes,
        }
    }

    pub fn set(&mut self, kind: Kind, place: ProducerSeq) {
        match kind {
            Kind::Predictions => self.predictions = Some(place),
            Kind::Outcomes => self.outcomes = Some(place),
        }
    }

    /// Takes up one more record.
    pub fn pass(&mut self, record: &Envelope<'_>) {
        self.time_ms = Some(record.time_ms);
        let place = ProducerSeq { producer_id: record.producer_id, producer_seq: record.producer_seq };
        match record.kind {
            RecordKind::Prediction => self.set(Kind::Predictions, place),
            RecordKind::Outcome => self.set(Kind::Outcomes, place),
            RecordKind::Time | RecordKind::DeadLetter | RecordKind::Ledger | RecordKind::Gate => {}
        }
    }

    pub fn encode(&self) -> Vec<u8> {
        let flags = u8::from(self.time_ms.is_some())
            | u8::from(self.predictions.is_some()) << 1
            | u8::from(self.outcomes.is_some()) << 2;
        let mut out = Vec::with_capacity(NOTE_BYTES);
        out.extend_from_slice(&[FORMAT, flags]);
        out.extend_from_slice(&self.time_ms.unwrap_or_default().to_le_bytes());
        for place in [self.predictions, self.outcomes] {
            let place = place.unwrap_or(ProducerSeq { producer_id: [0; 16], producer_seq: 0 });
            out.extend_from_slice(&place.producer_id);
            out.extend_from_slice(&place.producer_seq.to_le_bytes());
        }
        out
    }

    /// Reads a note. An empty one, as in a new spool, and one of a later version say nothing.
    pub fn decode(note: &[u8]) -> Note {
        Note::read(note).unwrap_or_default()
    }

    fn read(mut note: &[u8]) -> Option<Note> {
        let [format, flags] = take(&mut note)?;
        if format != FORMAT {
            return None;
        }
        let time_ms = i64::from_le_bytes(take(&mut note)?);
        let mut places = [None; 2];
        for (index, place) in places.iter_mut().enumerate() {
            let producer_id = take(&mut note)?;
            let producer_seq = u64::from_le_bytes(take(&mut note)?);
            *place = (flags >> (index + 1) & 1 == 1).then_some(ProducerSeq { producer_id, producer_seq });
        }
        let [predictions, outcomes] = places;
        Some(Note { time_ms: (flags & 1 == 1).then_some(time_ms), predictions, outcomes })
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk()?;
    *rest = tail;
    Some(*head)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope() -> Envelope<'static> {
        Envelope {
            kind: RecordKind::Outcome,
            time_ms: 1_357_034_400_123,
            producer_id: *b"0123456789abcdef",
            producer_seq: 7,
            key: b"0190-key",
            event_id: b"0190-event",
            traceparent: Some(b"00-aa-bb-01"),
            datum: b"datum",
        }
    }

    #[test]
    fn an_envelope_comes_back() {
        for envelope in [
            envelope(),
            Envelope { traceparent: None, ..envelope() },
            Envelope { kind: RecordKind::Time, key: b"", event_id: b"", traceparent: None, datum: b"", ..envelope() },
        ] {
            let mut payload = Vec::new();
            envelope.write(&mut payload);
            assert_eq!(payload.len(), envelope.payload_bytes());
            assert_eq!(Envelope::read(&payload), Some(envelope));
        }
    }

    #[test]
    fn a_cut_head_or_another_format_is_none() {
        let mut payload = Vec::new();
        Envelope { datum: b"", ..envelope() }.write(&mut payload);
        for end in 0..payload.len() {
            assert_eq!(Envelope::read(&payload[..end]), None, "cut at {end}");
        }
        payload[0] = 2;
        assert_eq!(Envelope::read(&payload), None);
    }

    #[test]
    fn a_note_comes_back_and_an_unknown_one_says_nothing() {
        let mut note = Note::default();
        assert_eq!(Note::decode(&note.encode()), note);
        note.pass(&envelope());
        assert_eq!(note.predictions, None);
        assert_eq!(note.outcomes.map(|place| place.producer_seq), Some(7));
        assert_eq!(Note::decode(&note.encode()), note);
        note.pass(&Envelope { kind: RecordKind::Prediction, time_ms: -1, producer_seq: 9, ..envelope() });
        assert_eq!(note.time_ms, Some(-1));
        assert_eq!(Note::decode(&note.encode()), note);
        assert_eq!(Note::decode(b""), Note::default());
        assert_eq!(Note::decode(b"\x02\x07junk"), Note::default());
    }
}
