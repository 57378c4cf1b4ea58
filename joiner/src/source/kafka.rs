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
//! A broker that is away is no error of a feed: librdkafka connects again, and the feed goes on where it was. An offset that
//! is not there is one: `auto.offset.reset` is `error`.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use flywheel_schemas::wire::{self, Kind};
use flywheel_schemas::{partition, token};
use futures::FutureExt;
use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance, StreamConsumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Header, Headers, Message, OwnedHeaders, Timestamp};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use super::{Record, SourceConfig, SourceError, SourceEvent, model_of};

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
/// How often at most a feed asks for the partitions of its topics while it does not know them.
const COUNT_INTERVAL: Duration = Duration::from_secs(5);

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
    // Read ahead of the tables at most, per model.
    ("queued.max.messages.kbytes", "16384"),
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

type Membership = BaseConsumer<Member>;

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
        let mut base = ClientConfig::new();
        for (name, value) in DEFAULTS {
            base.set(name, value);
        }
        for (name, value) in &config.librdkafka {
            if REFUSED.contains(&name.as_str()) {
                let what = format!("log.librdkafka: {name} is not to be set; the joiner's promises rest on its value");
                return Err(SourceError::Config { what });
            }
            base.set(name, value);
        }
        base.set("bootstrap.servers", servers);
        let appender = create_appender(&base)?;
        let admin = if by_token(&base) { None } else { Some(base.create_with_context(Quiet).map_err(refused)?) };
        let mut consumer = base;
        for (name, value) in CONSUMER_DEFAULTS {
            if !config.librdkafka.contains_key(name) {
                consumer.set(name, value);
            }
        }
        for (name, value) in CONSUMER_FIXED {
            consumer.set(name, value);
        }
        let (sender, events) = mpsc::unbounded_channel();
        let membership = create_membership(&consumer, config, sender.clone())?;
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
            .spawn(move || poll_membership(&polled, &sender, &stopped))
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

fn create_appender(base: &ClientConfig) -> Result<FutureProducer<Quiet>, SourceError> {
    let mut config = base.clone();
    config.set("enable.idempotence", "true");
    config.set("acks", "all");
    config.set("message.timeout.ms", APPEND_TIMEOUT.as_millis().to_string());
    config.set("linger.ms", "5");
    config.create_with_context(Quiet).map_err(refused)
}

fn create_membership(
    consumer: &ClientConfig,
    config: &SourceConfig,
    events: mpsc::UnboundedSender<SourceEvent>,
) -> Result<Arc<Membership>, SourceError> {
    let mut member = consumer.clone();
    member.set("group.id", &config.group);
    member.set("partition.assignment.strategy", "cooperative-sticky");
    // Nothing is read here; where it would begin to read is no matter.
    member.set("auto.offset.reset", "latest");
    member.set("queued.max.messages.kbytes", "1024");
    if let Some(name) = &config.member {
        member.set("group.instance.id", name);
    }
    let context = Member { prefix: config.prefix.clone(), events };
    member.create_with_context(context).map(Arc::new).map_err(refused)
}

/// The membership thread: serves the group until it is told to stop, then leaves it.
fn poll_membership(consumer: &Membership, events: &mpsc::UnboundedSender<SourceEvent>, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        match consumer.poll(SERVE_INTERVAL) {
            // What was fetched before the partitions were paused is dropped.
            None | Some(Ok(_)) => {}
            Some(Err(error)) => match source_error("membership of the consumer group", &error) {
                SourceError::Passing { cause, .. } => tracing::debug!(cause, "consumer group"),
                SourceError::OutOfRange { .. } | SourceError::UnknownTopic { .. } => {}
                error @ SourceError::Fatal { .. } => {
                    tracing::error!(%error, "membership of the consumer group is over");
                    let _ = events.send(SourceEvent::Failed(error));
                    return;
                }
                error => {
                    let _ = events.send(SourceEvent::Failed(error));
                }
            },
        }
    }
    consumer.unsubscribe();
    let end = std::time::Instant::now() + LEAVE_TIMEOUT;
    while std::time::Instant::now() < end && consumer.assignment().is_ok_and(|assignment| assignment.count() > 0) {
        let _ = consumer.poll(SERVE_INTERVAL);
    }
}

/// The context of the membership consumer.
struct Member {
    prefix: String,
    /// An event per model and rebalance; a process that does not take them is one that does nothing else either.
    events: mpsc::UnboundedSender<SourceEvent>,
}

impl Member {
    fn say(&self, partitions: &TopicPartitionList, event: fn(String, Vec<i32>) -> SourceEvent) {
        let mut models: BTreeMap<String, Vec<i32>> = BTreeMap::new();
        for element in partitions.elements() {
            if let Some(model) = model_of(element.topic(), &self.prefix) {
                models.entry(model.to_string()).or_default().push(element.partition());
            }
        }
        for (model, mut partitions) in models {
            partitions.sort_unstable();
            tracing::info!(model, ?partitions, "partitions assigned or revoked");
            let _ = self.events.send(event(model, partitions));
        }
    }
}

impl ClientContext for Member {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn error(&self, error: KafkaError, reason: &str) {
        Quiet.error(error, reason);
    }

    fn generate_oauth_token(&self, option: Option<&str>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        Quiet.generate_oauth_token(option)
    }
}

impl ConsumerContext for Member {
    fn pre_rebalance(&self, _consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Revoke(partitions) = rebalance {
            self.say(partitions, |model, partitions| SourceEvent::Revoked { model, partitions });
        }
    }

    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(partitions) => {
                if partitions.count() > 0
                    && let Err(error) = consumer.pause(partitions)
                {
                    // Then it reads for nothing, which costs and harms no more.
                    tracing::warn!(%error, "membership partitions not paused");
                }
                self.say(partitions, |model, partitions| SourceEvent::Assigned { model, partitions });
            }
            Rebalance::Error(error) => tracing::warn!(%error, "rebalance failed; the group tries again"),
            Rebalance::Revoke(_) => {}
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, _offsets: &TopicPartitionList) {
        if let Err(error) = result {
            tracing::debug!(%error, "group offsets not committed; only displays of lag are behind");
        }
    }
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
        blocking(move || count(&client, &topic)).await
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
                    tracing::info!(topic, "the topic's settings are not for this client to read; each record tells its own");
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
        let topic = |kind| wire::topic(&self.prefix, model, kind);
        Ok(Feed {
            log: self.clone(),
            topics: [topic(Kind::Predictions), topic(Kind::Outcomes)],
            counts: [None; 2],
            counted: None,
            partitions: BTreeMap::new(),
            turn: 0,
            ready: Arc::new(Notify::new()),
            consumer: Some(Arc::new(consumer)),
        })
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
        Ok(SideFeed { consumer: Some(Arc::new(consumer)), topic: topic.to_string(), polled: HashMap::new() })
    }
}

/// How many partitions a topic has. Blocks.
fn count<C: ConsumerContext>(client: &BaseConsumer<C>, topic: &str) -> Result<i32, SourceError> {
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

/// One partition that is assigned.
struct Assigned {
    queue: PartitionQueue<Quiet>,
    /// The next offset to hand out, where it is known.
    next: Option<i64>,
    at_end: bool,
    paused: bool,
    failed: Option<SourceError>,
}

/// The reader of one model's topics.
pub struct Feed {
    log: Arc<Log>,
    topics: [String; 2],
    /// Partitions of the topics, where they are known.
    counts: [Option<i32>; 2],
    counted: Option<Instant>,
    partitions: BTreeMap<(Kind, i32), Assigned>,
    /// Which partition comes first at the next poll.
    turn: usize,
    /// A queue has become non-empty.
    ready: Arc<Notify>,
    /// There until the feed is dropped.
    consumer: Option<Arc<BaseConsumer<Quiet>>>,
}

impl Feed {
    fn topic(&self, kind: Kind) -> &str {
        &self.topics[usize::from(kind == Kind::Outcomes)]
    }

    fn consumer(&self) -> Result<&Arc<BaseConsumer<Quiet>>, SourceError> {
        let closed = || SourceError::Fatal { what: "reading".to_string(), cause: "the feed is closed".to_string() };
        self.consumer.as_ref().ok_or_else(closed)
    }

    pub fn assign(&mut self, kind: Kind, partition: i32, next_offset: i64) -> Result<(), SourceError> {
        self.stop(kind, partition);
        let topic = self.topic(kind).to_string();
        let consumer = self.consumer()?.clone();
        let queue = match self.partitions.remove(&(kind, partition)) {
            Some(assigned) => assigned.queue,
            None => {
                let queue = consumer.split_partition_queue(&topic, partition);
                let mut queue = queue.ok_or_else(|| SourceError::UnknownTopic { topic: topic.clone() })?;
                let ready = self.ready.clone();
                queue.set_nonempty_callback(move || ready.notify_one());
                queue
            }
        };
        let offset = if next_offset < 0 { Offset::Beginning } else { Offset::Offset(next_offset) };
        let mut list = TopicPartitionList::with_capacity(1);
        list.add_partition_offset(&topic, partition, offset).map_err(|error| source_error("assigning", &error))?;
        consumer.incremental_assign(&list).map_err(|error| source_error("assigning", &error))?;
        let next = (next_offset >= 0).then_some(next_offset);
        self.partitions.insert((kind, partition), Assigned { queue, next, at_end: false, paused: false, failed: None });
        Ok(())
    }

    pub fn unassign(&mut self, partition: i32) {
        for kind in [Kind::Predictions, Kind::Outcomes] {
            self.stop(kind, partition);
            self.partitions.remove(&(kind, partition));
        }
    }

    pub fn pause(&mut self, kind: Kind, partition: i32) {
        self.stop(kind, partition);
        if let Some(assigned) = self.partitions.get_mut(&(kind, partition)) {
            assigned.paused = true;
        }
    }

    /// Takes a partition that is read from the consumer's assignment.
    fn stop(&self, kind: Kind, partition: i32) {
        if self.partitions.get(&(kind, partition)).is_none_or(|assigned| assigned.paused) {
            return;
        }
        let mut list = TopicPartitionList::with_capacity(1);
        list.add_partition(self.topic(kind), partition);
        if let Err(error) = self.consumer.as_ref().map_or(Ok(()), |consumer| consumer.incremental_unassign(&list)) {
            tracing::warn!(%error, topic = self.topic(kind), partition, "partition not unassigned");
        }
    }

    pub async fn poll(&mut self, records_max: usize, wait: Duration) -> Result<Vec<Record>, SourceError> {
        let until = Instant::now() + wait;
        self.count_partitions().await;
        loop {
            let records = self.take(records_max)?;
            if !records.is_empty() {
                return Ok(records);
            }
            self.find_failure().await?;
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Vec::new());
            }
            let _ = tokio::time::timeout(left.min(SERVE_INTERVAL), self.ready.notified()).await;
        }
    }

    /// Asks for the partitions of both topics once, so that records out of place can be told.
    async fn count_partitions(&mut self) {
        if self.counts.iter().all(Option::is_some)
            || self.counted.is_some_and(|asked| asked.elapsed() < COUNT_INTERVAL)
            || self.partitions.is_empty()
        {
            return;
        }
        self.counted = Some(Instant::now());
        for index in 0..self.topics.len() {
            // Where it is not known all headers are kept, which costs a little and loses nothing.
            self.counts[index] = self.log.partition_count(&self.topics[index]).await.ok();
        }
    }

    /// What is there: from each partition its share, and more from those that have more.
    fn take(&mut self, records_max: usize) -> Result<Vec<Record>, SourceError> {
        // Serves the client's events; records come by the queues of the partitions.
        if let Some(Err(error)) = self.consumer()?.poll(Duration::ZERO) {
            match source_error("reading", &error) {
                SourceError::Passing { cause, .. } => tracing::debug!(cause, "Kafka consumer"),
                error @ (SourceError::Denied { .. } | SourceError::Fatal { .. }) => return Err(error),
                error => tracing::warn!(%error, "Kafka consumer"),
            }
        }
        let (topics, counts) = (&self.topics, &self.counts);
        let mut active: Vec<_> =
            self.partitions.iter_mut().filter(|(_, it)| !it.paused && it.failed.is_none()).collect();
        if active.is_empty() {
            return Ok(Vec::new());
        }
        let first = self.turn % active.len();
        active.rotate_left(first);
        self.turn = self.turn.wrapping_add(1);
        let share = (records_max / active.len()).max(1);
        let mut records = Vec::new();
        loop {
            let before = records.len();
            for ((kind, number), assigned) in &mut active {
                let index = usize::from(*kind == Kind::Outcomes);
                let room = share.min(records_max.saturating_sub(records.len()));
                assigned.take(*kind, *number, &topics[index], counts[index], room, &mut records);
            }
            if records.len() == before || records.len() >= records_max {
                return Ok(records);
            }
        }
    }

    /// The failure of a partition, if there is one. One that stays is said at each poll until the partition is assigned anew.
    async fn find_failure(&mut self) -> Result<(), SourceError> {
        let failed = self.partitions.iter().find_map(|(key, it)| Some((*key, it.failed.clone()?)));
        let Some(((kind, partition), failure)) = failed else { return Ok(()) };
        match failure {
            SourceError::OutOfRange { topic, partition, offset, .. } => {
                let (low, end) = self.offsets(kind, partition).await.unwrap_or((-1, -1));
                Err(SourceError::OutOfRange { topic, partition, offset, low, end })
            }
            failure => {
                // librdkafka goes on trying, and says it again.
                if let Some(assigned) = self.partitions.get_mut(&(kind, partition)) {
                    assigned.failed = None;
                }
                Err(failure)
            }
        }
    }

    pub fn at_end(&self) -> bool {
        self.partitions.values().filter(|assigned| !assigned.paused).all(|assigned| assigned.at_end)
    }

    pub async fn append_tick(&self, kind: Kind, partition: i32) -> Result<(), SourceError> {
        let headers = OwnedHeaders::new_with_capacity(1).insert(Header { key: wire::TICK, value: Some(b"") });
        let record: FutureRecord<'_, [u8], [u8]> =
            FutureRecord::to(self.topic(kind)).partition(partition).headers(headers);
        self.append(record).await
    }

    pub async fn reroute(&self, record: &Record, partition: i32) -> Result<(), SourceError> {
        let mut headers = OwnedHeaders::new_with_capacity(record.headers.len());
        for (key, value) in &record.headers {
            headers = headers.insert(Header { key, value: value.as_deref() });
        }
        let mut copy: FutureRecord<'_, [u8], [u8]> =
            FutureRecord::to(self.topic(record.kind)).partition(partition).headers(headers);
        copy.key = record.key.as_deref();
        copy.payload = record.value.as_deref();
        copy.timestamp = (!record.time_by_log).then_some(record.time_ms);
        self.append(copy).await
    }

    async fn append(&self, record: FutureRecord<'_, [u8], [u8]>) -> Result<(), SourceError> {
        let topic = record.topic.to_string();
        match self.log.appender.send(record, APPEND_TIMEOUT).await {
            Ok(_) => Ok(()),
            Err((error, _)) => Err(named(source_error("appending to the log", &error), &topic)),
        }
    }

    pub fn landed(&mut self, kind: Kind, partition: i32, next_offset: i64) {
        let mut list = TopicPartitionList::with_capacity(1);
        let added = list.add_partition_offset(self.topic(kind), partition, Offset::Offset(next_offset));
        if let Err(error) = added.and_then(|()| self.log.membership.commit(&list, CommitMode::Async)) {
            tracing::debug!(%error, "group offsets not committed; only displays of lag are behind");
        }
    }

    pub async fn offsets(&self, kind: Kind, partition: i32) -> Result<(i64, i64), SourceError> {
        let (client, topic) = (self.consumer()?.clone(), self.topic(kind).to_string());
        blocking(move || {
            let found = client.fetch_watermarks(&topic, partition, ASK_TIMEOUT);
            found.map_err(|error| named(source_error("asking for offsets", &error), &topic))
        })
        .await
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        let queues = std::mem::take(&mut self.partitions);
        drop_aside((queues, self.consumer.take()));
    }
}

impl Assigned {
    fn take(
        &mut self,
        kind: Kind,
        number: i32,
        topic: &str,
        count: Option<i32>,
        room: usize,
        records: &mut Vec<Record>,
    ) {
        let full = records.len() + room;
        while records.len() < full && self.failed.is_none() {
            match self.queue.poll(Duration::ZERO) {
                None => return,
                Some(Ok(message)) => {
                    self.at_end = false;
                    // A record of before a seek would be handed out twice.
                    if self.next.is_some_and(|next| message.offset() < next) {
                        continue;
                    }
                    self.next = Some(message.offset() + 1);
                    records.push(read(kind, number, count, &message));
                }
                Some(Err(KafkaError::PartitionEOF(_))) => self.at_end = true,
                Some(Err(error)) => match source_error("reading", &error) {
                    SourceError::Passing { cause, .. } => tracing::debug!(cause, topic, number, "Kafka consumer"),
                    SourceError::OutOfRange { .. } => {
                        let (topic, offset) = (topic.to_string(), self.next.unwrap_or(-1));
                        let (low, end) = (-1, -1);
                        self.failed = Some(SourceError::OutOfRange { topic, partition: number, offset, low, end });
                    }
                    error => self.failed = Some(named(error, topic)),
                },
            }
        }
    }
}

/// The reader of a topic of all models, by a group of its own.
pub struct SideFeed {
    /// There until the feed is dropped.
    consumer: Option<Arc<StreamConsumer<Quiet>>>,
    topic: String,
    /// By partition: the offset after the last record handed out and not committed.
    polled: HashMap<i32, i64>,
}

impl SideFeed {
    pub async fn poll(&mut self, max: usize, wait: Duration) -> Result<Vec<Record>, SourceError> {
        let Some(consumer) = self.consumer.clone() else { return Ok(Vec::new()) };
        let until = Instant::now() + wait;
        let mut records: Vec<Record> = Vec::new();
        while records.len() < max {
            let next = if records.is_empty() {
                tokio::time::timeout_at(until, consumer.recv()).await.ok()
            } else {
                consumer.recv().now_or_never()
            };
            match next {
                None => break,
                Some(Ok(message)) => {
                    self.polled.insert(message.partition(), message.offset() + 1);
                    records.push(read(Kind::Predictions, message.partition(), None, &message));
                }
                Some(Err(error)) => match source_error("reading", &error) {
                    SourceError::Passing { cause, .. } => tracing::debug!(cause, "Kafka consumer"),
                    // The topic is made with the first model's.
                    SourceError::UnknownTopic { .. } => {}
                    error if records.is_empty() => return Err(named(error, &self.topic)),
                    error => {
                        tracing::warn!(%error, topic = self.topic, "Kafka consumer");
                        break;
                    }
                },
            }
        }
        Ok(records)
    }

    pub async fn commit(&mut self) -> Result<(), SourceError> {
        let Some(consumer) = self.consumer.clone().filter(|_| !self.polled.is_empty()) else { return Ok(()) };
        let mut list = TopicPartitionList::with_capacity(self.polled.len());
        for (partition, next) in &self.polled {
            let added = list.add_partition_offset(&self.topic, *partition, Offset::Offset(*next));
            added.map_err(|error| source_error("committing offsets", &error))?;
        }
        blocking(move || {
            consumer.commit(&list, CommitMode::Sync).map_err(|error| source_error("committing offsets", &error))
        })
        .await?;
        self.polled.clear();
        Ok(())
    }
}

impl Drop for SideFeed {
    fn drop(&mut self) {
        drop_aside(self.consumer.take());
    }
}

/// `count`: the partitions of the topic, where they are known and records out of place are to be told.
fn read(kind: Kind, partition: i32, count: Option<i32>, message: &BorrowedMessage<'_>) -> Record {
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
            _ => {}
        }
        if out_of_place {
            record.headers.push((header.key.to_string(), header.value.map(Bytes::copy_from_slice)));
        }
    }
    record
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

fn refused(error: KafkaError) -> SourceError {
    SourceError::Config { what: format!("log: librdkafka refuses its configuration: {error}") }
}

/// Puts the topic's name where an error has none.
fn named(error: SourceError, topic: &str) -> SourceError {
    match error {
        SourceError::UnknownTopic { .. } => SourceError::UnknownTopic { topic: topic.to_string() },
        SourceError::Passing { what, cause } => SourceError::Passing { what: format!("{what} ({topic})"), cause },
        SourceError::Denied { what, cause } => SourceError::Denied { what: format!("{what} ({topic})"), cause },
        error => error,
    }
}

/// What is to be done about each of librdkafka's errors: the one table. What is not named is passing, since librdkafka itself
/// goes on trying.
fn source_error(what: &str, error: &KafkaError) -> SourceError {
    use RDKafkaErrorCode as Code;
    let (what, cause) = (what.to_string(), error.to_string());
    if let KafkaError::MessageConsumptionFatal(_) = error {
        return SourceError::Fatal { what, cause };
    }
    match error.rdkafka_error_code() {
        Some(Code::AutoOffsetReset | Code::OffsetOutOfRange | Code::NoOffset | Code::LogTruncation) => {
            SourceError::OutOfRange { topic: String::new(), partition: -1, offset: -1, low: -1, end: -1 }
        }
        Some(Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition | Code::InvalidTopic) => {
            SourceError::UnknownTopic { topic: String::new() }
        }
        Some(
            Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::SaslAuthenticationFailed
            | Code::Authentication
            | Code::SSL,
        ) => SourceError::Denied { what, cause },
        Some(Code::Fatal | Code::FencedInstanceId | Code::UnsupportedVersion | Code::InconsistentGroupProtocol) => {
            SourceError::Fatal { what, cause }
        }
        _ => SourceError::Passing { what, cause },
    }
}
