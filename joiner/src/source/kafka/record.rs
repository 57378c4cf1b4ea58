//! From librdkafka's message to a record.

use bytes::Bytes;
use flywheel_schemas::partition;
use flywheel_schemas::wire::{self, Kind};
use rdkafka::message::{BorrowedMessage, Headers, Message, Timestamp};

use crate::source::Record;

/// `count`: the partitions of the topic, where they are known and records out of place are to be told.
pub(super) fn read(kind: Kind, partition: i32, count: Option<i32>, message: &BorrowedMessage<'_>) -> Record {
    let (time_ms, time_by_log) = match message.timestamp() {
        Timestamp::LogAppendTime(time_ms) => (time_ms, true),
        Timestamp::CreateTime(time_ms) => (time_ms, false),
        Timestamp::NotAvailable => (-1, false),
    };
    let mut record = Record {
        kind,
        partition,
        offset: message.offset(),
        time_ms,
        time_by_log,
        key: message.key().map(Bytes::copy_from_slice),
        value: message.payload().map(Bytes::copy_from_slice),
        producer_id: None,
        producer_seq: None,
        tick: false,
        gate: None,
        headers: Vec::new(),
    };
    let out_of_place = match (message.key(), count) {
        (Some(key), Some(count)) => partition::of(key, count) != partition,
        (Some(_), None) => true,
        (None, _) => false,
    };
    for header in message.headers().iter().flat_map(|headers| headers.iter()) {
        let text = || header.value.and_then(|value| std::str::from_utf8(value).ok());
        match header.key {
            wire::PRODUCER_ID => record.producer_id = text().map(str::to_string),
            wire::PRODUCER_SEQ => record.producer_seq = text().and_then(|text| text.parse().ok()),
            wire::TICK => record.tick = true,
            wire::GATE => record.gate = Some(header.value.map(Bytes::copy_from_slice).unwrap_or_default()),
            _ => {}
        }
        if out_of_place {
            record.headers.push((header.key.to_string(), header.value.map(Bytes::copy_from_slice)));
        }
    }
    record
}
