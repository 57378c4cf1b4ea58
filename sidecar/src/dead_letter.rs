//! Refused bodies on their way to the dead letter topic: a spool of their own, so that a flood of them takes no room
//! from what is good.
//!
//! The datum is written here by hand, by the fixed schema of `flywheel_schemas::avro::dead_letter_schema`.

use std::sync::Arc;

use flywheel_schemas::avro::dead_letter_schema;
use flywheel_spool::{AppendError, Pending, SchemaKey, Spool, SpoolError};
use uuid::Uuid;

use crate::metrics::Metrics;
use crate::record::{Envelope, RecordKind};
use crate::transcode::avro::{close_array, put_bytes, put_long};

/// The directory of the spool; no model has this name.
pub(crate) const SPOOL: &str = "_deadletter";

/// So much of a refused body is kept: enough to see what was wrong with it.
pub(crate) const BODY_BYTES_KEPT: usize = 64 << 10;

/// Faults and body together stay below this; the faults of one body are at most 100 short sentences.
pub(crate) const RECORD_BYTES_MAX: usize = 256 << 10;

/// One refused body.
pub(crate) struct Letter<'a> {
    pub(crate) model: &'a str,
    /// `predictions` or `outcomes`.
    pub(crate) kind: &'a str,
    /// The first fault's word.
    pub(crate) reason: &'a str,
    pub(crate) faults: &'a [String],
    /// None where the contract keeps private fields out of sight.
    pub(crate) body: Option<&'a [u8]>,
    /// Of the whole body.
    pub(crate) body_bytes: usize,
    pub(crate) received_ms: i64,
}

pub(crate) struct DeadLetters {
    spool: Spool,
    schema: SchemaKey,
    producer_id: [u8; 16],
    metrics: Arc<Metrics>,
}

impl DeadLetters {
    pub(crate) fn new(spool: Spool, producer_id: [u8; 16], metrics: Arc<Metrics>) -> Result<DeadLetters, SpoolError> {
        let schema = spool.add_schema(&dead_letter_schema())?;
        Ok(DeadLetters { spool, schema, producer_id, metrics })
    }

    /// Appends a letter, and counts it either way. A client's answer does not wait for it.
    pub(crate) fn keep(&self, letter: &Letter<'_>) -> Result<Pending, AppendError> {
        let id = flywheel_schemas::id::mint(letter.received_ms);
        let mut datum = Vec::new();
        write(&id, letter, &mut datum);
        let mut text = Uuid::encode_buffer();
        let key = id.hyphenated().encode_lower(&mut text).as_bytes();
        let appended = self.spool.append(self.schema, |_, out| {
            let envelope = Envelope {
                kind: RecordKind::DeadLetter,
                time_ms: letter.received_ms,
                producer_id: self.producer_id,
                producer_seq: 0,
                key,
                event_id: key,
                traceparent: None,
                datum: &datum,
            };
            envelope.write(out);
        });
        match &appended {
            Ok(_) => self.metrics.dead_letter_kept(),
            Err(error) => self.metrics.dead_letter_lost(letter.model, error),
        }
        appended
    }
}

/// Branch of a union with null first that holds something.
const SOME: i64 = 1;
const NULL: i64 = 0;

/// The fields in the order of the schema.
fn write(id: &Uuid, letter: &Letter<'_>, out: &mut Vec<u8>) {
    put_bytes(out, id.hyphenated().to_string().as_bytes());
    put_long(out, SOME);
    put_bytes(out, letter.model.as_bytes());
    put_long(out, SOME);
    put_bytes(out, letter.kind.as_bytes());
    put_bytes(out, letter.reason.as_bytes());
    put_long(out, SOME);
    let start = out.len();
    for fault in letter.faults {
        put_bytes(out, fault.as_bytes());
    }
    close_array(out, start, letter.faults.len());
    match letter.body {
        Some(body) => {
            put_long(out, SOME);
            put_bytes(out, &body[..body.len().min(BODY_BYTES_KEPT)]);
        }
        None => put_long(out, NULL),
    }
    put_long(out, SOME);
    put_long(out, i64::try_from(letter.body_bytes).unwrap_or(i64::MAX));
    put_long(out, letter.received_ms.saturating_mul(1000));
}

#[cfg(test)]
mod tests {
    use flywheel_schemas::avro::{Layout, Shape};
    use flywheel_schemas::types::Type;

    use super::*;

    #[test]
    fn the_schema_has_the_fields_that_are_written() {
        let layout = Layout::parse(&dead_letter_schema()).unwrap();
        let list = Type::List(Box::new(Type::String));
        let fields = [
            ("dead_letter_id", Type::String, None),
            ("model", Type::String, Some(0)),
            ("kind", Type::String, Some(0)),
            ("reason", Type::String, None),
            ("faults", list, Some(0)),
            ("body", Type::Bytes, Some(0)),
            ("body_bytes", Type::Long, Some(0)),
            ("received_at", Type::Timestamp, None),
        ];
        let found: Vec<_> =
            layout.fields.into_iter().map(|field| (field.name, field.shape, field.null_branch)).collect();
        assert_eq!(found, fields.map(|(name, ty, null)| (name.to_owned(), Shape::Plain(ty), null)));
    }
}
