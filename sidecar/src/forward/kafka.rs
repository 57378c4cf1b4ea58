//! The Kafka producer: one librdkafka client for all forwarders of the process.
//!
//! It is idempotent, waits for all in-sync replicas and never gives a record up by time: a broker that is away costs
//! waiting, not records. Its queue is bounded; a full one hands the record back. librdkafka repeats what can be repeated
//! and keeps the order within a partition meanwhile; what it cannot repeat comes back as a [`Failure`], whose kind is
//! decided in `client` and whose consequence in [`policy`](super::policy).
//!
//! After a fatal error the client is made anew, once for all forwarders: each notices by its failed records. The same is
//! done where a file of a secret or a certificate has another content, and each forwarder gets a report that says so; what
//! is on its way through the old client is sent again through the new one.
//!
//! Whether the brokers answer, and let this client in, is known to [`Brokers`]: they are away when the client says that
//! none is connected, and back with the next report or answer. A task, which ends with the producer, asks them every
//! second while they are away, since without records nothing else would; and it looks at the files.
//!
//! SASL and TLS: what librdkafka's options say, some of them out of files ([`ClientOptions`]), and for OAUTHBEARER the file
//! that [`flywheel_schemas::token`] describes.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use flywheel_schemas::client_options::{ClientOptions, ClientOptionsError, Stamp};
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

mod client;

use client::{Client, Delivery, create, failure, fatal};

use super::brokers::Brokers;
use super::policy::{Failure, FailureKind};
use super::{DestinationError, LogConfig, Message, Place, Report, SendError};

/// What the promises rest on; not to be set from outside. Aliases included.
const FIXED: [(&str, &str); 4] = [
    ("enable.idempotence", "true"),
    ("acks", "all"),
    // Never: a record leaves the queue when it is delivered, or cannot be.
    ("message.timeout.ms", "0"),
    ("partitioner", "murmur2_random"),
];
/// Other names of the above, and what contradicts them.
const REFUSED: [&str; 5] =
    ["bootstrap.servers", "metadata.broker.list", "request.required.acks", "delivery.timeout.ms", "transactional.id"];
/// Values that may be set otherwise.
const DEFAULTS: [(&str, &str); 6] = [
    ("client.id", "flywheel-sidecar"),
    ("compression.type", "zstd"),
    ("linger.ms", "100"),
    // The memory that a broker's absence costs, at most.
    ("queue.buffering.max.kbytes", "65536"),
    ("reconnect.backoff.max.ms", "1000"),
    ("topic.metadata.refresh.interval.ms", "60000"),
];
/// A question about topics waits so long for its answer.
const METADATA_TIMEOUT: Duration = Duration::from_secs(5);
/// The same answer, or its absence, serves all forwarders for so long; so often at most a missing topic is looked for.
const METADATA_AGE: Duration = Duration::from_secs(1);

/// How often brokers that are away are asked whether they are back, and files of secrets are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// No record has this token.
const NO_TOKEN: u64 = u64::MAX;

/// The producer of the process. Clones are the same one.
#[derive(Clone)]
pub struct Producer {
    shared: Arc<Shared>,
}

struct Shared {
    /// What stands in no file.
    config: ClientConfig,
    options: ClientOptions,
    /// The number of the current client: who holds another one is to go over.
    newest: watch::Sender<u64>,
    replay: bool,
    brokers: Arc<Brokers>,
    current: Mutex<Generation>,
    /// Held while topics are asked for, so that one question is under way at a time.
    topics: tokio::sync::Mutex<Topics>,
}

#[derive(Clone)]
struct Generation {
    number: u64,
    client: Client,
    /// Of the files that it was made with.
    stamp: Stamp,
    /// Whether it was replaced.
    is_over: Arc<AtomicBool>,
}

#[derive(Default)]
struct Topics {
    /// Partitions by topic, as of the last answer.
    counts: HashMap<String, i32>,
    /// What the last question came to where it was not answered.
    failed: Option<Failure>,
    asked: Option<Instant>,
}

impl Producer {
    /// Makes the client; no broker need be there. `servers` is `host:port,host:port`.
    pub fn open(servers: &str, config: &LogConfig) -> Result<Producer, DestinationError> {
        let options = ClientOptions::new(config.librdkafka.clone());
        for name in options.names() {
            if REFUSED.contains(&name) || FIXED.iter().any(|(fixed, _)| *fixed == name) {
                let what =
                    format!("log.librdkafka: {name} is not to be set; what is accepted must not be lost or moved");
                return Err(DestinationError::Config { what });
            }
        }
        let mut fixed = ClientConfig::new();
        for (name, value) in FIXED {
            fixed.set(name, value);
        }
        fixed.set("bootstrap.servers", servers);
        let brokers = Arc::new(Brokers::default());
        let first = Generation::make(0, &fixed, &options, &brokers)
            .map_err(|error| DestinationError::Config { what: error.to_string() })?;
        let shared = Arc::new(Shared {
            config: fixed,
            options,
            newest: watch::Sender::new(0),
            replay: config.replay,
            brokers,
            current: Mutex::new(first),
            topics: tokio::sync::Mutex::default(),
        });
        tokio::spawn(look(Arc::downgrade(&shared)));
        Ok(Producer { shared })
    }

    /// What is known of the brokers; outlives the producer.
    pub fn brokers(&self) -> Arc<Brokers> {
        self.shared.brokers.clone()
    }

    /// A lane for one forwarder.
    pub fn lane(&self) -> Lane {
        let (sender, reports) = mpsc::unbounded_channel();
        let newest = self.shared.newest.subscribe();
        Lane { current: self.current(), producer: self.clone(), newest, topics: HashMap::new(), sender, reports }
    }

    fn current(&self) -> Generation {
        lock(&self.shared.current).clone()
    }

    /// Makes a new client where `failed` is the current one, and gives the current one.
    fn renew(&self, failed: u64) -> Result<Generation, MakeError> {
        let mut current = lock(&self.shared.current);
        if current.number == failed {
            let Shared { config, options, brokers, newest, .. } = &*self.shared;
            let next = Generation::make(failed + 1, config, options, brokers)?;
            current.is_over.store(true, Ordering::Relaxed);
            brokers.forget();
            *current = next;
            newest.send_replace(current.number);
            tracing::warn!("Kafka producer made anew; records are sent again from the cursor");
        }
        Ok(current.clone())
    }

    /// Makes a new client where files say something else than when the current one was made.
    fn look_at_files(&self) -> Result<(), MakeError> {
        let Generation { number, stamp, .. } = self.current();
        if self.shared.options.read()?.stamp != stamp {
            tracing::info!("a file of a Kafka secret or certificate has changed");
            self.renew(number)?;
        }
        Ok(())
    }

    /// How many partitions a topic has. All topics are asked for, since a broker may make a topic that is asked for by
    /// name, with partitions and times that are not those of the contract.
    async fn partitions(&self, topic: &str) -> Result<i32, Failure> {
        let topics = self.ask().await?;
        topics.counts.get(topic).copied().filter(|count| *count > 0).ok_or_else(|| {
            let cause = format!(
                "topic {topic} is not there, or not to be seen by this user: register the model's contract, which makes \
                 its topics, and allow this user to describe and write them"
            );
            Failure::new(FailureKind::UnknownTopic, cause)
        })
    }

    /// The topics that there are; asks for them unless that was just done.
    async fn ask(&self) -> Result<tokio::sync::MutexGuard<'_, Topics>, Failure> {
        let mut topics = self.shared.topics.lock().await;
        if topics.asked.is_none_or(|asked| asked.elapsed() >= METADATA_AGE) {
            let client = self.current().client;
            let answer = tokio::task::spawn_blocking(move || {
                let metadata = client.client().fetch_metadata(None, METADATA_TIMEOUT)?;
                let counts = metadata.topics().iter().filter(|topic| topic.error().is_none());
                Ok(counts.map(|topic| (topic.name().to_string(), topic.partitions().len() as i32)).collect())
            });
            let answer: Result<_, KafkaError> =
                answer.await.map_err(|error| Failure::new(FailureKind::Passing, error.to_string()))?;
            topics.asked = Some(Instant::now());
            topics.failed = None;
            match answer {
                Ok(counts) => {
                    topics.counts = counts;
                    self.shared.brokers.answered();
                }
                Err(error) => {
                    topics.failed = Some(match self.shared.brokers.refusal() {
                        Some(reason) => Failure::new(FailureKind::Denied, reason),
                        None => failure(&error),
                    });
                }
            }
        }
        if let Some(failure) = &topics.failed {
            return Err(failure.clone());
        }
        Ok(topics)
    }
}

impl Generation {
    fn make(
        number: u64,
        fixed: &ClientConfig,
        options: &ClientOptions,
        brokers: &Arc<Brokers>,
    ) -> Result<Generation, MakeError> {
        let values = options.read()?;
        let mut config = ClientConfig::new();
        let given = values.options.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let fixed = fixed.config_map().into_iter();
        for (name, value) in DEFAULTS.into_iter().chain(given).chain(fixed) {
            config.set(name, value);
        }
        let is_over = Arc::new(AtomicBool::new(false));
        Ok(Generation { number, client: create(&config, brokers, &is_over)?, stamp: values.stamp, is_over })
    }
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
enum MakeError {
    #[error("log.librdkafka: {0}")]
    Options(#[from] ClientOptionsError),
    #[error("log: librdkafka refuses its configuration: {0}")]
    Refused(#[from] KafkaError),
}

/// Asks brokers that are away whether they are back, and looks at the files; ends with the producer.
async fn look(shared: Weak<Shared>) {
    loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        let Some(shared) = shared.upgrade() else { return };
        let producer = Producer { shared };
        let looked = producer.clone();
        match tokio::task::spawn_blocking(move || looked.look_at_files()).await {
            Ok(Ok(())) => {}
            // A file that is being replaced, or one that does not go with another yet: the old client goes on.
            Ok(Err(error)) => {
                producer.shared.brokers.complained("files", &error.to_string());
            }
            Err(error) => tracing::debug!(%error, "files of secrets not looked at"),
        }
        let brokers = &producer.shared.brokers;
        if (brokers.are_away() || brokers.refusal().is_some())
            && let Err(failure) = producer.ask().await
        {
            tracing::debug!(%failure, "Kafka does not answer");
        }
    }
}

/// One forwarder's way to the producer.
pub struct Lane {
    producer: Producer,
    current: Generation,
    newest: watch::Receiver<u64>,
    /// Partitions of the topics that were found.
    topics: HashMap<String, i32>,
    /// Reports of this lane's records: as many at most as the forwarder's window has in flight.
    sender: mpsc::UnboundedSender<Report>,
    reports: mpsc::UnboundedReceiver<Report>,
}

impl Lane {
    /// How many partitions the topic has.
    pub async fn partitions(&mut self, topic: &str) -> Result<i32, Failure> {
        if let Some(count) = self.topics.get(topic) {
            return Ok(*count);
        }
        let count = self.producer.partitions(topic).await?;
        self.topics.insert(topic.to_string(), count);
        Ok(count)
    }

    pub fn send(&mut self, token: u64, message: &Message<'_>) -> Result<(), SendError> {
        let mut headers = OwnedHeaders::new_with_capacity(message.headers.len());
        for (key, value) in message.headers {
            headers = headers.insert(Header { key, value: *value });
        }
        let opaque = Box::new(Delivery { token, reports: self.sender.clone() });
        let mut record: BaseRecord<'_, [u8], [u8], Box<Delivery>> =
            BaseRecord::with_opaque_to(message.topic, opaque).headers(headers);
        record.key = message.key;
        record.payload = message.value;
        record.timestamp = self.producer.shared.replay.then_some(message.time_ms);
        record.partition = match message.place {
            Place::Key => None,
            Place::Partition(partition) => Some(partition),
        };
        match self.current.client.send(record) {
            Ok(()) => Ok(()),
            Err((error, _)) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) => Err(SendError::Full),
            Err((error, _)) => {
                let mut failure = failure(&error);
                // Said here, and not by a broker, it is about this record alone.
                if failure.kind == FailureKind::BatchTooLarge {
                    failure.kind = FailureKind::TooLarge;
                }
                Err(SendError::Failed(self.note(failure)))
            }
        }
    }

    /// The next report; waits for ever where nothing is on its way. Dropping the future loses none.
    pub async fn report(&mut self) -> Report {
        let Lane { current, newest, reports, .. } = self;
        let report = tokio::select! {
            biased;
            // The lane holds a sender itself, so the channel does not end.
            Some(report) = reports.recv() => report,
            () = replaced(newest, current.number) => Report {
                token: NO_TOKEN,
                result: Err(Failure::new(FailureKind::Dropped, "the producer was made anew")),
            },
        };
        Report { token: report.token, result: report.result.map_err(|failure| self.note(failure)) }
    }

    /// Why the brokers do not let this client in.
    pub fn refusal(&self) -> Option<String> {
        self.producer.shared.brokers.refusal()
    }

    /// After a failure that says so, topics are looked for again; of a client at its end it is told why.
    fn note(&mut self, failure: Failure) -> Failure {
        match failure.kind {
            FailureKind::UnknownTopic => {
                self.topics.clear();
                failure
            }
            FailureKind::Fatal => fatal(&self.current.client).unwrap_or(failure),
            _ => failure,
        }
    }

    /// Goes over to a new client, made by this lane or by another one before it.
    pub async fn renew(&mut self) -> Result<(), Failure> {
        let (producer, failed) = (self.producer.clone(), self.current.number);
        let renewed = tokio::task::spawn_blocking(move || producer.renew(failed)).await;
        let renewed = renewed.map_err(|error| Failure::new(FailureKind::Passing, error.to_string()))?;
        let renewed = renewed.map_err(|error| Failure::new(FailureKind::Denied, error.to_string()))?;
        let old = std::mem::replace(&mut self.current, renewed);
        // What the old client still reports goes nowhere. Letting go of it may wait for its thread.
        (self.sender, self.reports) = mpsc::unbounded_channel();
        tokio::task::spawn_blocking(move || drop(old));
        Ok(())
    }
}

/// Waits until the client with this number is not the current one.
async fn replaced(newest: &mut watch::Receiver<u64>, number: u64) {
    if newest.wait_for(|newest| *newest != number).await.is_err() {
        // The producer, which the lane holds, has the sender.
        std::future::pending::<()>().await;
    }
}

/// A lock whose holder panicked guards plain values that are whole between statements.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_the_promises_rest_on_is_not_to_be_set() {
        for name in ["acks", "enable.idempotence", "delivery.timeout.ms", "bootstrap.servers"] {
            let librdkafka = [(name.to_string(), "1".to_string())].into();
            let config = LogConfig { librdkafka, ..LogConfig::default() };
            let error = Producer::open("127.0.0.1:1", &config).err().unwrap().to_string();
            assert!(error.contains(name), "{error}");
        }
    }

    #[tokio::test]
    async fn an_unknown_option_is_said_at_the_start() {
        let librdkafka = [("no.such.option".to_string(), "1".to_string())].into();
        let config = LogConfig { librdkafka, ..LogConfig::default() };
        let error = Producer::open("127.0.0.1:1", &config).err().unwrap().to_string();
        assert!(error.contains("no.such.option"), "{error}");
    }
}
