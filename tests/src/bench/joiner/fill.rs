//! Real topics full of records, for comparisons with other programs that read them.
//!
//! Event times begin three hours ago, on a tick of the joiner's grid, and advance by [`RATE`] predictions a second; a
//! fifth of the predictions have an outcome within half of their window. The records carry their own times, which are
//! the event times, so that nobody has to wait for a window to close: `end` moves the time of every partition on by an
//! hour, with tick records and with one more prediction and outcome for who does not know tick records.

use std::collections::BinaryHeap;
use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flywheel_schemas::register;
use flywheel_schemas::registry::{Registry, RegistryConfig};
use flywheel_schemas::topics::{self, IngestTime, TopicsConfig};
use flywheel_schemas::wire::{self, Kind};
use flywheel_sidecar::transcode::Scratch;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::{ClientConfig, error::KafkaError};

use super::{MINUTE_MS, MODEL, Times, Writer};
use crate::bench::transcode::Random;

/// Predictions a second of event time.
const RATE: i64 = 10_000;
const TIMES: Times = Times { window: "30s", lateness: "10m", grid: "5m", drain: "10m" };
const WINDOW_MS: u64 = 30_000;
const GRID_MS: i64 = 5 * MINUTE_MS;
const AGE_MS: i64 = 180 * MINUTE_MS;
const END_MS: i64 = 60 * MINUTE_MS;
/// Shorter than the silence that would bar ticks.
const TICK_MS: i64 = 4 * MINUTE_MS;
const DELIVERED_WITHIN: Duration = Duration::from_secs(120);

/// Of [`Phase::Live`], which nobody wants to wait for.
const LIVE_TIMES: Times = Times { window: "30s", lateness: "10s", grid: "30s", drain: "30s" };
const LIVE_RATE: u64 = 200;
/// An outcome comes so long after its prediction at most.
const LIVE_DELAY_MS: u64 = 10_000;

type Client = ThreadedProducer<DefaultProducerContext>;

#[derive(PartialEq)]
enum Phase {
    Rows,
    End,
    Live,
}

/// Does what the arguments say, and answers with JSON.
pub fn run(arguments: &[String]) -> Result<String, Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (phase, rest) = match arguments.as_slice() {
        ["topic", brokers, topic] => return runtime.block_on(make_topic(brokers, topic)),
        ["rows", rest @ ..] => (Phase::Rows, rest),
        ["end", rest @ ..] => (Phase::End, rest),
        ["live", rest @ ..] => (Phase::Live, rest),
        _ => return Err("what is to be filled? See fill.rs".into()),
    };
    let [brokers, prefix, dir, partitions, amount] = rest else { return Err("five arguments follow".into()) };
    let fill = runtime.block_on(Fill::open(&phase, brokers, prefix, Path::new(dir), partitions.parse()?))?;
    match phase {
        Phase::Rows => fill.rows(amount.parse()?),
        Phase::Live => fill.live(amount.parse()?),
        Phase::End => fill.end(),
    }
}

async fn make_topic(brokers: &str, topic: &str) -> Result<String, Box<dyn Error>> {
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new().set("bootstrap.servers", brokers).create()?;
    let made =
        admin.create_topics(&[NewTopic::new(topic, 1, TopicReplication::Fixed(1))], &AdminOptions::new()).await?;
    made.into_iter().collect::<Result<Vec<_>, _>>().map_err(|(topic, code)| format!("{topic}: {code}"))?;
    Ok("{}".to_owned())
}

struct Fill {
    writer: Writer,
    client: Client,
    topics: [String; 2],
    partitions: i32,
    start_ms: i64,
}

impl Fill {
    async fn open(
        phase: &Phase,
        brokers: &str,
        prefix: &str,
        dir: &Path,
        partitions: i32,
    ) -> Result<Fill, Box<dyn Error>> {
        let is_live = *phase == Phase::Live;
        let config = TopicsConfig {
            brokers: brokers.to_owned(),
            prefix: prefix.to_owned(),
            partitions: Some(partitions),
            replication: None,
            ingest_time: if is_live { IngestTime::Broker } else { IngestTime::Record },
            librdkafka: [].into(),
        };
        topics::ensure(&config, MODEL).await?;
        std::fs::create_dir_all(dir)?;
        let url = format!("file:{}", dir.join("registry").display());
        let registry = Registry::open(&RegistryConfig { url, ..RegistryConfig::default() })?;
        let contract = super::contract(if is_live { &LIVE_TIMES } else { &TIMES })?;
        let registration = register::register(&contract, &registry, prefix).await?;
        let writer = Writer::new(Arc::new(contract), [registration.subjects[0].id, registration.subjects[1].id])?;
        std::fs::write(dir.join("predictions.avsc"), writer.plan.prediction_schema().as_bytes())?;
        std::fs::write(dir.join("outcomes.avsc"), writer.plan.outcome_schema().as_bytes())?;
        // Both phases are of one start.
        let started = dir.join("start");
        let now_ms = now_ms()?;
        let start_ms = match std::fs::read_to_string(&started) {
            Ok(text) => text.parse()?,
            Err(_) => (now_ms - AGE_MS).div_euclid(GRID_MS) * GRID_MS + 1,
        };
        std::fs::write(started, start_ms.to_string())?;
        let client = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("enable.idempotence", "true")
            .set("compression.type", "zstd")
            .set("linger.ms", "50")
            .set("partitioner", "murmur2_random")
            .create()?;
        let topics = [Kind::Predictions, Kind::Outcomes].map(|kind| wire::topic(prefix, MODEL, kind));
        Ok(Fill { writer, client, topics, partitions, start_ms })
    }

    fn rows(&self, predictions: u64) -> Result<String, Box<dyn Error>> {
        let (mut scratch, mut random) = (Scratch::default(), Random(1));
        let (mut bytes, mut outcomes, mut labelled) = (0, 0_u64, 0_u64);
        // Outcomes that have not happened yet, the next one on top.
        let mut later: BinaryHeap<std::cmp::Reverse<(i64, String, bool)>> = BinaryHeap::new();
        for number in 0..predictions {
            let event_ms = self.start_ms + number as i64 * 1000 / RATE;
            while let Some(next) = later.peek().filter(|next| next.0.0 <= event_ms).cloned() {
                later.pop();
                self.state(&mut scratch, next.0)?;
            }
            let (id, value) = self.writer.prediction(&mut scratch, number, event_ms)?;
            bytes += value.len();
            if random.next() % 5 == 0 {
                let is_good = random.next() & 1 == 0;
                let outcome_ms = event_ms + 50 + (random.next() % (WINDOW_MS / 2)) as i64;
                later.push(std::cmp::Reverse((outcome_ms, id.clone(), is_good)));
                outcomes += 1;
                labelled += u64::from(is_good);
            }
            self.send(Kind::Predictions, &id, value, event_ms)?;
        }
        while let Some(next) = later.pop() {
            self.state(&mut scratch, next.0)?;
        }
        self.client.flush(DELIVERED_WITHIN)?;
        let bytes = bytes as u64 / predictions;
        Ok(serde_json::json!({ "bytes": bytes, "outcomes": outcomes, "labelled": labelled }).to_string())
    }

    /// As time goes by, for so many seconds.
    fn live(&self, seconds: u64) -> Result<String, Box<dyn Error>> {
        let (mut scratch, mut random) = (Scratch::default(), Random(2));
        let mut later: BinaryHeap<std::cmp::Reverse<(i64, String, bool)>> = BinaryHeap::new();
        let start_ms = now_ms()?;
        let predictions = seconds * LIVE_RATE;
        let mut number = 0;
        while number < predictions || !later.is_empty() {
            let now_ms = now_ms()?;
            while number < predictions && start_ms + (number * 1000 / LIVE_RATE) as i64 <= now_ms {
                let (id, value) = self.writer.prediction(&mut scratch, number, now_ms)?;
                self.send(Kind::Predictions, &id, value, now_ms)?;
                later.push(std::cmp::Reverse((now_ms + (random.next() % LIVE_DELAY_MS) as i64, id, number % 2 == 0)));
                number += 1;
            }
            while let Some(next) = later.peek().filter(|next| next.0.0 <= now_ms).cloned() {
                later.pop();
                self.state(&mut scratch, next.0)?;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        self.client.flush(DELIVERED_WITHIN)?;
        Ok(serde_json::json!({ "predictions": predictions }).to_string())
    }

    fn state(&self, scratch: &mut Scratch, (time_ms, id, is_good): (i64, String, bool)) -> Result<(), Box<dyn Error>> {
        let value = self.writer.outcome(scratch, &id, is_good, time_ms)?;
        self.send(Kind::Outcomes, &id, value, time_ms)
    }

    fn end(&self) -> Result<String, Box<dyn Error>> {
        let end_ms = self.start_ms + END_MS;
        for time_ms in (self.start_ms + TICK_MS..end_ms).step_by(TICK_MS as usize) {
            for (topic, partition) in self.topics.iter().flat_map(|topic| (0..self.partitions).map(move |p| (topic, p)))
            {
                let headers = OwnedHeaders::new().insert(Header { key: wire::TICK, value: Some("") });
                let record = BaseRecord::<[u8], [u8]>::to(topic).partition(partition).headers(headers);
                self.put(record.timestamp(time_ms))?;
            }
        }
        let mut scratch = Scratch::default();
        let mut left: Vec<i32> = (0..self.partitions).collect();
        for number in (0..).map(|number| u64::MAX - number) {
            let (id, value) = self.writer.prediction(&mut scratch, number, end_ms)?;
            let home = flywheel_schemas::partition::of(id.as_bytes(), self.partitions);
            if left.contains(&home) {
                left.retain(|partition| *partition != home);
                self.send(Kind::Predictions, &id, value, end_ms)?;
                self.state(&mut scratch, (end_ms, id, false))?;
            }
            if left.is_empty() {
                break;
            }
        }
        self.client.flush(DELIVERED_WITHIN)?;
        Ok("{}".to_owned())
    }

    fn send(&self, kind: Kind, id: &str, value: Bytes, time_ms: i64) -> Result<(), Box<dyn Error>> {
        let topic = &self.topics[usize::from(kind == Kind::Outcomes)];
        let headers = OwnedHeaders::new_with_capacity(2)
            .insert(Header { key: wire::PRODUCER_ID, value: Some("07070707-0707-0707-0707-070707070707") })
            .insert(Header { key: wire::PRODUCER_SEQ, value: Some("1") });
        let record = BaseRecord::<[u8], [u8]>::to(topic).key(id.as_bytes()).payload(&value).headers(headers);
        self.put(record.timestamp(time_ms))
    }

    fn put(&self, mut record: BaseRecord<'_, [u8], [u8]>) -> Result<(), Box<dyn Error>> {
        loop {
            match self.client.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err((error, _)) => return Err(error.into()),
            }
        }
    }
}

fn now_ms() -> Result<i64, Box<dyn Error>> {
    Ok(std::time::UNIX_EPOCH.elapsed()?.as_millis() as i64)
}
