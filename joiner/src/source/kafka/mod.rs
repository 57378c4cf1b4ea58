//! Kafka as source.
//!
//! Three kinds of client, so that one thing that stands still stops no other:
//! - **Membership**: one consumer, on a thread of its own, subscribed to `<prefix>.*.predictions`. It only says which
//!   partitions are this process's; it reads nothing, its partitions are paused. Group offsets are committed through it, for
//!   displays of lag: nothing is ever read from them.
//! - **Feeds**: one consumer per model with partitions assigned by hand, at offsets that the tables know. Each partition has a
//!   queue of its own in librdkafka, so that an end, or an error, is known to be that partition's.
//! - **The appender**: one producer for tick records and rerouted records.
//!
//! Secrets and certificates stand in files ([`ClientOptions`]). Where one of these has another content, the source is at its
//! end, and is to be opened anew: every client of it was made with what the file said before.
//!
//! A broker that is away is no error of a feed: librdkafka connects again, and the feed goes on where it was. An offset that
//! is not there is one: `auto.offset.reset` is `error`.

mod error;
pub mod everywhere;
mod feed;
mod membership;
mod record;
mod side;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use flywheel_schemas::client_options::{ClientOptions, Values};
use flywheel_schemas::token;
use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::client::{Client, ClientContext, OAuthToken};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, StreamConsumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::FutureProducer;
use tokio::sync::mpsc;

use super::{SourceConfig, SourceError, SourceEvent};
use error::{named, refused, source_error};
pub use feed::Feed;
pub use side::SideFeed;

/// A question to the brokers waits so long for its answer.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// Opening waits so long for a first broker.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// An append that is not acknowledged by then is said to have failed; the caller may try again.
const APPEND_TIMEOUT: Duration = Duration::from_secs(10);
/// How long leaving the group may take.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);
/// How often the membership thread looks whether it is to end, and a feed serves its client's events.
const SERVE_INTERVAL: Duration = Duration::from_millis(100);

/// Options that exactly-once landing rests on, or that belong to this module; not to be set from outside.
const REFUSED: [&str; 18] = [
    "bootstrap.servers",
    "metadata.broker.list",
    "group.id",
    "group.instance.id",
    "group.protocol",
    "isolation.level",
    "enable.auto.commit",
    "auto.commit.enable",
    "enable.auto.offset.store",
    "auto.offset.reset",
    "enable.partition.eof",
    "partition.assignment.strategy",
    "allow.auto.create.topics",
    "enable.idempotence",
    "acks",
    "request.required.acks",
    "partitioner",
    "transactional.id",
];
/// Values that may be set otherwise.
const DEFAULTS: [(&str, &str); 3] = [
    ("client.id", "flywheel-joiner"),
    // A new model is found within that time.
    ("topic.metadata.refresh.interval.ms", "5000"),
    ("reconnect.backoff.max.ms", "1000"),
];
/// The same, for consumers alone.
const CONSUMER_DEFAULTS: [(&str, &str); 3] = [
    // Read ahead of the tables at most, per partition of each topic: about a turn's records.
    ("queued.max.messages.kbytes", "4096"),
    // Where that is reached, fetching goes on so soon after there is room.
    ("fetch.queue.backoff.ms", "50"),
    ("check.crcs", "true"),
];
const CONSUMER_FIXED: [(&str, &str); 4] = [
    ("isolation.level", "read_committed"),
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    ("allow.auto.create.topics", "false"),
];

/// The setting of a topic that says who gives the times of its records.
const TIMESTAMP_TYPE: &str = "message.timestamp.type";

type Membership = BaseConsumer<membership::Member>;

/// The log, as this process sees it.
pub struct Source {
    log: Arc<Log>,
    events: mpsc::UnboundedReceiver<SourceEvent>,
    thread: Option<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
}

/// What feeds are made of.
pub struct Log {
    consumer: ClientConfig,
    prefix: String,
    group: String,
    member: Option<String>,
    cluster_id: String,
    membership: Arc<Membership>,
    appender: FutureProducer<Quiet>,
    /// None with OAUTHBEARER: a client of this kind cannot be given a token.
    admin: Option<AdminClient<Quiet>>,
}

impl Source {
    pub async fn open(servers: &str, config: &SourceConfig) -> Result<Source, SourceError> {
        let Base { config: base, options, values } = Base::read(servers, config)?;
        let appender = create_appender(&base)?;
        let admin = if by_token(&base) { None } else { Some(base.create_with_context(Quiet).map_err(refused)?) };
        let mut consumer = base;
        for (name, value) in CONSUMER_DEFAULTS {
            if !values.options.contains_key(name) {
                consumer.set(name, value);
            }
        }
        for (name, value) in CONSUMER_FIXED {
            consumer.set(name, value);
        }
        let (sender, events) = mpsc::unbounded_channel();
        let membership = membership::create(&consumer, config, sender.clone())?;
        let asked = membership.clone();
        let cluster_id = blocking(move || {
            // A token, where one is needed, is brought when the client is served, which else begins only later.
            let _ = asked.poll(SERVE_INTERVAL);
            asked.fetch_metadata(None, OPEN_TIMEOUT).map_err(|error| source_error("connecting to Kafka", &error))?;
            asked.client().fetch_cluster_id(ASK_TIMEOUT).ok_or_else(|| SourceError::Passing {
                what: "connecting to Kafka".to_string(),
                cause: "no broker says the id of its cluster".to_string(),
            })
        })
        .await?;
        let topics = format!("^{}\\..*\\.predictions$", config.prefix.replace('.', "\\."));
        membership.subscribe(&[&topics]).map_err(|error| source_error("joining the group", &error))?;
        let stop = Arc::new(AtomicBool::new(false));
        let (polled, stopped) = (membership.clone(), stop.clone());
        let thread = std::thread::Builder::new()
            .name("kafka-membership".to_string())
            .spawn(move || membership::poll(&polled, &sender, &stopped, &options, values.stamp))
            .map_err(|error| SourceError::Passing { what: "joining the group".into(), cause: error.to_string() })?;
        let log = Log {
            consumer,
            prefix: config.prefix.clone(),
            group: config.group.clone(),
            member: config.member.clone(),
            cluster_id,
            membership,
            appender,
            admin,
        };
        Ok(Source { log: Arc::new(log), events, thread: Some(thread), stop })
    }

    pub fn log(&self) -> &Arc<Log> {
        &self.log
    }

    pub async fn next(&mut self) -> SourceEvent {
        match self.events.recv().await {
            Some(event) => event,
            // After a fatal error, which was said, there is nothing more to come.
            None => std::future::pending().await,
        }
    }

    pub async fn close(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let left = tokio::time::timeout(LEAVE_TIMEOUT, tokio::task::spawn_blocking(move || thread.join())).await;
            if left.is_err() {
                tracing::warn!(
                    "the consumer group was not left in time; its other members wait for the session to end"
                );
            }
        }
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// What all clients have in common.
struct Base {
    config: ClientConfig,
    options: ClientOptions,
    /// As the files said when they were read.
    values: Values,
}

impl Base {
    fn read(servers: &str, config: &SourceConfig) -> Result<Base, SourceError> {
        let mut base = ClientConfig::new();
        for (name, value) in DEFAULTS {
            base.set(name, value);
        }
        let options = ClientOptions::new(config.librdkafka.clone());
        if let Some(name) = options.names().find(|name| REFUSED.contains(name)) {
            let what = format!("log.librdkafka: {name} is not to be set; the joiner's promises rest on its value");
            return Err(SourceError::Config { what });
        }
        let values = options.read();
        let values = values.map_err(|error| SourceError::Config { what: format!("log.librdkafka: {error}") })?;
        for (name, value) in &values.options {
            base.set(name, value);
        }
        base.set("bootstrap.servers", servers);
        Ok(Base { config: base, options, values })
    }
}

fn create_appender(base: &ClientConfig) -> Result<FutureProducer<Quiet>, SourceError> {
    let mut config = base.clone();
    config.set("enable.idempotence", "true");
    config.set("acks", "all");
    config.set("message.timeout.ms", APPEND_TIMEOUT.as_millis().to_string());
    config.set("linger.ms", "5");
    config.create_with_context(Quiet).map_err(refused)
}

/// The context of all other clients.
#[derive(Clone)]
struct Quiet;

impl ClientContext for Quiet {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn error(&self, error: KafkaError, reason: &str) {
        // Ends of partitions come this way as well; what matters comes back from a call.
        if !matches!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::PartitionEOF)) {
            tracing::debug!(%error, reason, "Kafka client");
        }
    }

    fn generate_oauth_token(&self, option: Option<&str>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        // Nobody else says why no connection comes about.
        let token = token::read(option).inspect_err(|error| tracing::warn!(%error, "no token for Kafka"))?;
        Ok(OAuthToken { token: token.text, principal_name: token.principal, lifetime_ms: token.until_ms })
    }
}

impl ConsumerContext for Quiet {}

/// Whether the client signs in with a token.
fn by_token(config: &ClientConfig) -> bool {
    let mechanism = config.get("sasl.mechanism").or_else(|| config.get("sasl.mechanisms"));
    mechanism.is_some_and(|mechanism| mechanism.eq_ignore_ascii_case("OAUTHBEARER"))
}

impl Log {
    pub fn cluster_id(&self) -> &str {
        &self.cluster_id
    }

    pub async fn partition_count(&self, topic: &str) -> Result<i32, SourceError> {
        let (client, topic) = (self.membership.clone(), topic.to_string());
        blocking(move || count(client.client(), &topic)).await
    }

    /// Whether the broker sets the times of the topic, where that can be asked; each record tells its own besides.
    pub async fn check_times(&self, topic: &str) -> Result<(), SourceError> {
        let what = "asking for the settings of the topic";
        let Some(admin) = &self.admin else { return Ok(()) };
        let options = AdminOptions::new().request_timeout(Some(ASK_TIMEOUT));
        let found = admin.describe_configs([&ResourceSpecifier::Topic(topic)], &options).await;
        let found = found.map_err(|error| named(source_error(what, &error), topic))?;
        for resource in found {
            let settings = match resource {
                Ok(settings) => settings,
                Err(RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::ClusterAuthorizationFailed) => {
                    tracing::info!(
                        topic,
                        "the topic's settings are not for this client to read; each record tells its own"
                    );
                    return Ok(());
                }
                Err(code) => return Err(named(source_error(what, &KafkaError::AdminOp(code)), topic)),
            };
            let Some(by) = settings.get(TIMESTAMP_TYPE).and_then(|entry| entry.value.clone()) else { continue };
            if by != "LogAppendTime" {
                return Err(SourceError::ProducerTimes { topic: topic.to_string(), found: by });
            }
        }
        Ok(())
    }

    pub fn feed(self: &Arc<Log>, model: &str) -> Result<Feed, SourceError> {
        let mut config = self.consumer.clone();
        // Assignment by hand wants a group's name; nothing is committed under it from here.
        config.set("group.id", &self.group);
        config.set("auto.offset.reset", "error");
        config.set("enable.partition.eof", "true");
        let consumer: BaseConsumer<Quiet> = config.create_with_context(Quiet).map_err(refused)?;
        Ok(Feed::new(self.clone(), model, consumer))
    }

    pub fn side_feed(self: &Arc<Log>, topic: &str) -> Result<SideFeed, SourceError> {
        let mut config = self.consumer.clone();
        config.set("group.id", format!("{}-{topic}", self.group));
        config.set("partition.assignment.strategy", "cooperative-sticky");
        // The group's first start; what is out of retention later is gone in any case.
        config.set("auto.offset.reset", "earliest");
        if let Some(member) = &self.member {
            config.set("group.instance.id", member);
        }
        let consumer: StreamConsumer<Quiet> = config.create_with_context(Quiet).map_err(refused)?;
        consumer.subscribe(&[topic]).map_err(|error| source_error("joining the group", &error))?;
        Ok(SideFeed::new(consumer, topic))
    }
}

/// How many partitions a topic has. Blocks.
fn count<C: ClientContext>(client: &Client<C>, topic: &str) -> Result<i32, SourceError> {
    let unknown = || SourceError::UnknownTopic { topic: topic.to_string() };
    let metadata = client.fetch_metadata(Some(topic), ASK_TIMEOUT);
    let metadata = metadata.map_err(|error| named(source_error("asking for the topic", &error), topic))?;
    let found = metadata.topics().iter().find(|found| found.name() == topic).ok_or_else(unknown)?;
    match found.error() {
        None if found.partitions().is_empty() => Err(unknown()),
        None => Ok(found.partitions().len() as i32),
        Some(error) => {
            Err(named(source_error("asking for the topic", &KafkaError::MetadataFetch(error.into())), topic))
        }
    }
}

/// Runs what blocks beside the runtime.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SourceError> + Send + 'static,
) -> Result<T, SourceError> {
    let failed = |error: tokio::task::JoinError| SourceError::Passing {
        what: "asking Kafka".to_string(),
        cause: error.to_string(),
    };
    tokio::task::spawn_blocking(work).await.map_err(failed)?
}

/// Closing a client waits for its threads, which must not hold up the runtime.
fn drop_aside<T: Send + 'static>(client: T) {
    // Without a thread it is closed here, by the closure that was not run.
    let thread = std::thread::Builder::new().name("kafka-close".to_string()).spawn(move || drop(client));
    if thread.is_err() {
        tracing::debug!("no thread to close a Kafka client on");
    }
}
