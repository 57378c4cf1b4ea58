//! The bytes of a Kafka record: Confluent's frame around the value, and the names of topics, subjects and headers.
//!
//! Frame (Confluent wire format): a zero byte, the schema id as four bytes big-endian, the Avro datum.
//! Key: the prediction id as text. A tick record has a null value and the header [`TICK`]; it says only that time
//! has come this far in its partition.

/// Header: the UUID of the producing process start, as text. Absent from foreign producers.
pub const PRODUCER_ID: &str = "flywheel-producer-id";
/// Header: the record's number among those of its producer, model and kind, from 1, as decimal text.
pub const PRODUCER_SEQ: &str = "flywheel-producer-seq";
/// Header of a tick record; its value is empty.
pub const TICK: &str = "flywheel-tick";
/// Header of a gate record, see [`crate::gate`]; its value is empty.
pub const GATE: &str = "flywheel-gate";
/// Header: W3C trace context, passed on as it came.
pub const TRACEPARENT: &str = "traceparent";

/// The distance of the tick records that a replay writes, in milliseconds.
pub const REPLAY_TICK_MS: i64 = 300_000;

/// What a record is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    Predictions,
    Outcomes,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Predictions => "predictions",
            Kind::Outcomes => "outcomes",
        }
    }
}

/// The topic of a model: `<prefix>.<model>.predictions`, the prefix being `flywheel` unless configured.
pub fn topic(prefix: &str, model: &str, kind: Kind) -> String {
    format!("{prefix}.{model}.{}", kind.name())
}

/// The topic of the ledgers of all models, one partition.
pub fn ledger_topic(prefix: &str) -> String {
    format!("{prefix}.ledger")
}

/// The topic of refused bodies of all models, one partition.
pub fn dead_letter_topic(prefix: &str) -> String {
    format!("{prefix}.deadletter")
}

/// The registry's subject of a topic's values.
pub fn subject(topic: &str) -> String {
    format!("{topic}-value")
}

/// The five bytes before a datum.
pub fn frame(schema_id: u32) -> [u8; 5] {
    let [a, b, c, d] = schema_id.to_be_bytes();
    [0, a, b, c, d]
}

/// Splits a value into schema id and datum; none where it is not framed.
pub fn unframe(value: &[u8]) -> Option<(u32, &[u8])> {
    match value {
        [0, a, b, c, d, datum @ ..] => Some((u32::from_be_bytes([*a, *b, *c, *d]), datum)),
        _ => None,
    }
}
