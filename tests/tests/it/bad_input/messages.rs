//! Messages that stand on a topic though no sidecar of ours wrote them.

use std::time::Duration;

use apache_avro::Schema;
use apache_avro::types::Value as Avro;
use apache_avro::writer::datum::GenericDatumWriter;
use flywheel_schemas::contract::Contract;
use flywheel_schemas::{avro, id, partition, wire};
use rdkafka::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord};
use uuid::Uuid;

/// Puts values where it is told to, as they are.
pub struct Foreign {
    producer: FutureProducer,
}

impl Foreign {
    pub fn new(brokers: &str) -> Foreign {
        Foreign { producer: ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap() }
    }

    /// The offset.
    pub async fn put(&self, topic: &str, partition: i32, key: Option<&str>, value: Option<&[u8]>) -> i64 {
        let mut record: FutureRecord<'_, str, [u8]> = FutureRecord::to(topic).partition(partition);
        (record.key, record.payload) = (key, value);
        self.producer.send(record, Duration::from_secs(60)).await.unwrap().offset
    }
}

/// An id of `time_ms` whose home is `partition` of `count`.
pub fn id_at_home(time_ms: i64, home: i32, count: i32) -> Uuid {
    std::iter::repeat_with(|| id::mint(time_ms))
        .find(|id| partition::of(id.to_string().as_bytes(), count) == home)
        .unwrap()
}

/// The datum of a prediction, written by apache-avro.
pub fn datum(contract: &Contract, id: &str, event_time_us: i64, features: &[(&str, Avro)]) -> Vec<u8> {
    let schema = Schema::parse_str(&avro::prediction_schema(contract)).unwrap();
    let text = |text: &str| Avro::String(text.to_owned());
    let record = |fields: &[(&str, Avro)]| {
        Avro::Record(fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect())
    };
    let record = record(&[
        ("prediction_id", text(id)),
        ("event_time", Avro::Long(event_time_us)),
        ("contract_version", Avro::Int(contract.version)),
        ("model_version", text("foreign")),
        ("features", record(features)),
        ("prediction", record(&[("score", Avro::Double(0.5))])),
    ]);
    let resolved = record.resolve(&schema).unwrap();
    let mut datum = Vec::new();
    GenericDatumWriter::builder(&schema).build().unwrap().write_value_ref(&mut datum, &resolved).unwrap();
    datum
}

/// Confluent's frame around it.
pub fn framed(schema_id: u32, datum: &[u8]) -> Vec<u8> {
    [&wire::frame(schema_id), datum].concat()
}
