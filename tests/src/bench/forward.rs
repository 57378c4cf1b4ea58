//! Messages a second to a real broker: the forwarder ÷ a bare librdkafka producer.
//!
//! The broker has core 0, and the client that is measured core 1: all of its threads. Both clients are opened once and
//! warm, with the same settings, and send the same predictions of 100 features with the same keys and headers to the same
//! topic of 4 partitions; in each round they take turns, the first one by turns too. The forwarder begins with a filled
//! spool and ends with the last delivery and its cursor on disk; the bare producer begins with all values in memory and
//! ends with its last delivery. So the ratio is what reading, framing, the window and the cursor cost.

use std::error::Error;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use flywheel_schemas::contract::Contract;
use flywheel_schemas::id;
use flywheel_schemas::registry::{Registry, RegistryConfig};
use flywheel_schemas::topics::{self, IngestTime, TopicsConfig};
use flywheel_schemas::wire;
use flywheel_sidecar::forward::{Destination, Forwarder, LogConfig, Topics, Watcher};
use flywheel_sidecar::record::{Envelope, RecordKind};
use flywheel_sidecar::transcode::{Plan, Receipt, Scratch, prediction};
use flywheel_spool::{Options, Spool};
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};

use super::cores::bind_this_thread;
use super::transcode::{body, contract_text};
use super::{Area, Bar, Measure, median};
use crate::servers::Kafka;

pub const AREA: Area = Area {
    name: "forward",
    about: "messages a second to a real broker: spool and forwarder ÷ a bare librdkafka producer",
    run,
};

const ROUNDS: usize = 15;
/// About a second of work.
const RECORDS: u64 = 50_000;
/// Rounds that do not count: the broker compiles its code meanwhile.
const WARM_UP: usize = 3;
const MODEL: &str = "bench";
const PREFIX: &str = "flywheel";
const NOW_MS: i64 = 1_357_017_300_123;
const PRODUCER: [u8; 16] = [7; 16];
const DELIVERED_WITHIN: Duration = Duration::from_secs(120);

/// The settings of the forwarder's producer (`forward/kafka.rs`).
const SETTINGS: [(&str, &str); 9] = [
    ("client.id", "bare"),
    ("compression.type", "zstd"),
    ("linger.ms", "100"),
    ("queue.buffering.max.kbytes", "65536"),
    ("reconnect.backoff.max.ms", "1000"),
    ("enable.idempotence", "true"),
    ("acks", "all"),
    ("message.timeout.ms", "0"),
    ("partitioner", "murmur2_random"),
];

struct Nobody;

impl Watcher for Nobody {}

/// What is sent, by either side.
struct Load {
    schema: String,
    /// Ids and datums.
    rows: Vec<(String, Vec<u8>)>,
}

fn run() -> Result<Vec<Measure>, Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let kafka = Kafka::start(dir.path())?;
    bind_process(&kafka, 0)?;
    // Before any thread is made: they take the binding of the one that starts them.
    bind_this_thread(1)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let load = load()?;
    let measure = runtime.block_on(measure(dir.path(), kafka.address(), &load))?;
    Ok(vec![measure])
}

async fn measure(dir: &Path, servers: &str, load: &Load) -> Result<Measure, Box<dyn Error>> {
    let topics = TopicsConfig {
        brokers: servers.to_owned(),
        prefix: PREFIX.to_owned(),
        partitions: Some(4),
        replication: None,
        ingest_time: IngestTime::Broker,
        librdkafka: [].into(),
    };
    topics::ensure(&topics, MODEL).await?;
    let url = format!("file:{}", dir.join("registry").display());
    let registry = Registry::open(&RegistryConfig { url, ..RegistryConfig::default() })?;
    let config = LogConfig { url: format!("kafka://{servers}"), prefix: PREFIX.to_owned(), ..LogConfig::default() };
    let destination = Destination::open(&config).await?;
    let bare = Bare::open(servers)?;
    let bare_values = bare_values(load);

    let (mut ratios, mut our_rates, mut bare_rates) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..WARM_UP + ROUNDS {
        let spool = filled(&dir.join(format!("spool-{round}")), load).await?;
        let forwarder =
            Forwarder::new(spool, Topics::model(PREFIX, MODEL), registry.clone(), true, &destination, Arc::new(Nobody));
        let ours = async || -> Result<f64, Box<dyn Error>> {
            let start = Instant::now();
            let left = forwarder.run(std::future::ready(()), DELIVERED_WITHIN).await;
            match left.records {
                0 => Ok(RECORDS as f64 / start.elapsed().as_secs_f64()),
                records => Err(format!("{records} records were not forwarded").into()),
            }
        };
        let (our_rate, bare_rate) = if round % 2 == 0 {
            let our_rate = ours().await?;
            (our_rate, bare.send(&bare_values, load)?)
        } else {
            let bare_rate = bare.send(&bare_values, load)?;
            (ours().await?, bare_rate)
        };
        std::fs::remove_dir_all(dir.join(format!("spool-{round}")))?;
        if round >= WARM_UP {
            ratios.push(our_rate / bare_rate);
            our_rates.push(our_rate);
            bare_rates.push(bare_rate);
        }
    }
    let bytes = bare_values.first().map_or(0, Vec::len);
    let note = format!("{:.0}/s ÷ {:.0}/s; {bytes} B each", median(&mut our_rates), median(&mut bare_rates));
    Ok(Measure { name: "messages a second", ratios, bar: Bar::AtLeast(0.8), note })
}

fn load() -> Result<Load, Box<dyn Error>> {
    let contract = Contract::parse(&contract_text())
        .map_err(|faults| faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))?;
    let plan = Plan::compile(Arc::new(contract))?;
    let mut scratch = Scratch::default();
    let receipt = Receipt { now_ms: NOW_MS, trace_id: None };
    let mut rows = Vec::new();
    for number in 0..RECORDS {
        let mut datum = Vec::new();
        prediction(&plan, &mut scratch, body(number, false).as_bytes(), &receipt, &mut datum)
            .map_err(|faults| faults[0].to_string())?;
        let mut random = [7; 10];
        random[2..].copy_from_slice(&number.to_be_bytes());
        rows.push((id::from_parts(NOW_MS, random).to_string(), datum));
    }
    Ok(Load { schema: plan.prediction_schema().to_string(), rows })
}

/// A spool with everything in it, nothing of it forwarded.
async fn filled(dir: &Path, load: &Load) -> Result<Spool, Box<dyn Error>> {
    let spool = Spool::open(dir, Options::default())?;
    let schema = spool.add_schema(&load.schema)?;
    for (number, (id, datum)) in (1..).zip(&load.rows) {
        let envelope = Envelope {
            kind: RecordKind::Prediction,
            time_ms: NOW_MS,
            producer_id: PRODUCER,
            producer_seq: number,
            key: id.as_bytes(),
            event_id: id.as_bytes(),
            traceparent: None,
            datum,
        };
        let pending = spool.append(schema, |_, out| envelope.write(out))?;
        // The queue of the writer is bounded.
        if number % 1_000 == 0 || number == RECORDS {
            pending.await?;
        }
    }
    spool.sync().await?;
    Ok(spool)
}

/// Framed, as they go to the topic; the schema's id has the same length whichever it is.
fn bare_values(load: &Load) -> Vec<Vec<u8>> {
    load.rows.iter().map(|(_, datum)| [&wire::frame(1)[..], datum].concat()).collect()
}

struct Bare {
    client: ThreadedProducer<Count>,
    topic: String,
    delivered: Arc<AtomicU64>,
}

struct Count {
    delivered: Arc<AtomicU64>,
}

impl ClientContext for Count {}

impl ProducerContext for Count {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if result.is_ok() {
            self.delivered.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Bare {
    fn open(servers: &str) -> Result<Bare, Box<dyn Error>> {
        let delivered = Arc::new(AtomicU64::new(0));
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", servers);
        for (name, value) in SETTINGS {
            config.set(name, value);
        }
        let client = config.create_with_context(Count { delivered: delivered.clone() })?;
        let topic = wire::topic(PREFIX, MODEL, wire::Kind::Predictions);
        Ok(Bare { client, topic, delivered })
    }

    /// Sends everything and gives its messages a second.
    fn send(&self, values: &[Vec<u8>], load: &Load) -> Result<f64, Box<dyn Error>> {
        let start = Instant::now();
        let before = self.delivered.load(Ordering::Relaxed);
        for (number, (value, (id, _))) in (1_u64..).zip(values.iter().zip(&load.rows)) {
            let sequence = number.to_string();
            let mut headers = OwnedHeaders::new_with_capacity(8);
            for (key, value) in [
                (wire::PRODUCER_ID, "07070707-0707-0707-0707-070707070707"),
                (wire::PRODUCER_SEQ, sequence.as_str()),
                ("ce_specversion", "1.0"),
                ("ce_id", id.as_str()),
                ("ce_source", "/flywheel/bench"),
                ("ce_type", "flywheel.prediction.v1"),
                ("ce_time", "2013-01-01T05:15:00.123Z"),
                ("content-type", "application/avro"),
            ] {
                headers = headers.insert(Header { key, value: Some(value) });
            }
            let mut record = BaseRecord::to(&self.topic).key(id).payload(value).headers(headers);
            while let Err((error, back)) = self.client.send(record) {
                if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                    return Err(error.into());
                }
                record = back;
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        // The client's own way to wait: it also ends the lingering.
        self.client.flush(DELIVERED_WITHIN)?;
        match self.delivered.load(Ordering::Relaxed) - before {
            RECORDS => Ok(RECORDS as f64 / start.elapsed().as_secs_f64()),
            delivered => Err(format!("{delivered} of {RECORDS} records were delivered").into()),
        }
    }
}

/// Binds every thread of the broker to a core; those that it makes later follow.
fn bind_process(kafka: &Kafka, core: usize) -> Result<(), Box<dyn Error>> {
    let pid = std::fs::read_to_string(kafka.dir().join("pid"))?;
    let mut taskset = Command::new("taskset");
    let status = taskset.args(["-acp", &core.to_string(), pid.trim()]).stdout(Stdio::null()).status()?;
    if status.success() { Ok(()) } else { Err(format!("taskset does not bind to core {core}; two are needed").into()) }
}
