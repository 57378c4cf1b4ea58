//! The topics of a model and of the service, created or verified.
//!
//! | topic | partitions | `message.timestamp.type` | retention |
//! |---|---|---|---|
//! | `<prefix>.<model>.predictions`, `…outcomes` | the same number for both | LogAppendTime | the broker's |
//! | the same, `ingest_time: record` | the same number for both | CreateTime, old times accepted | none |
//! | `<prefix>.ledger`, `<prefix>.deadletter` | 1 | LogAppendTime | the broker's |
//!
//! All: `cleanup.policy=delete`, and `min.insync.replicas=2` where there are replicas. What exists is never changed:
//! each setting that differs is told with what it should be, since only the owner of the cluster can weigh a change.
//!
//! SASL is what librdkafka's options say, but for OAUTHBEARER: the client that makes topics cannot be given a token.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{DeliveryResult, Producer, ProducerContext, ThreadedProducer};

use crate::wire::{self, Kind};

pub const PARTITIONS_DEFAULT: i32 = 4;
/// Replicas of a new topic unless told otherwise, where there are as many brokers.
const REPLICATION_DEFAULT: i32 = 3;
const CALL_TIMEOUT: Duration = Duration::from_secs(20);
/// A controller tells its brokers of a new topic within a second; until then they do not know it.
const APPEAR_TIMEOUT: Duration = Duration::from_secs(20);
const APPEAR_POLL: Duration = Duration::from_millis(100);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IngestTime {
    /// The broker stamps each record when it appends it.
    Broker,
    /// The records bring their times: replays by one trusted writer.
    Record,
}

// No Debug: the options may hold a password.
#[derive(Clone)]
pub struct TopicsConfig {
    /// `host:port,…`
    pub brokers: String,
    pub prefix: String,
    /// Of a model's two topics; none: as many as there are, or [`PARTITIONS_DEFAULT`].
    pub partitions: Option<i32>,
    /// None: 3, or as many as there are brokers.
    pub replication: Option<i32>,
    pub ingest_time: IngestTime,
    /// Further options of librdkafka, such as those of TLS and SASL.
    pub librdkafka: BTreeMap<String, String>,
}

/// What was found or made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    pub name: String,
    pub partitions: i32,
    pub created: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum TopicsError {
    #[error("Kafka: {0}")]
    Kafka(#[from] KafkaError),
    /// With what the client said while it tried.
    #[error("Kafka: {error}: {reason}")]
    Unreachable { error: KafkaError, reason: String },
    #[error(
        "topics cannot be set up over OAUTHBEARER: use a listener with SCRAM or TLS certificates for this, or make the \
         topics with your cluster's own tools and register without --kafka"
    )]
    Token,
    #[error("topic {topic} was not created: {code}")]
    Create { topic: String, code: RDKafkaErrorCode },
    #[error("topic {topic} was created, but no broker shows it after {APPEAR_TIMEOUT:?}; run register again")]
    Invisible { topic: String },
    #[error("topic {topic} cannot be described: {code}")]
    Describe { topic: String, code: RDKafkaErrorCode },
    /// Every difference, each with what to do.
    #[error("the topics do not fit: {}", .0.join("; "))]
    Unfit(Vec<String>),
    #[error("the call was given up: {0}")]
    Abandoned(String),
}

type Admin = AdminClient<DefaultClientContext>;
type Asker = ThreadedProducer<Heard>;

/// Keeps what the client says last; the admin client itself tells nobody.
#[derive(Default)]
struct Heard {
    reason: Mutex<String>,
}

impl ClientContext for Heard {
    fn error(&self, error: KafkaError, reason: &str) {
        // That no broker is left follows from the reason before it.
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::AllBrokersDown) {
            *self.reason.lock().unwrap_or_else(PoisonError::into_inner) = reason.to_owned();
        }
    }

    fn log(&self, _level: RDKafkaLogLevel, _facility: &str, _message: &str) {}
}

impl ProducerContext for Heard {
    type DeliveryOpaque = ();

    fn delivery(&self, _result: &DeliveryResult<'_>, _opaque: ()) {}
}

/// What a topic must be.
struct Wanted {
    name: String,
    partitions: i32,
    /// Settings that a new topic gets.
    settings: Vec<(&'static str, &'static str)>,
    /// Those of them without which rows would be wrong or lost.
    demanded: Vec<(&'static str, &'static str)>,
}

/// Creates the topics of `model` and those of the service where they are missing, and verifies those that are there.
///
/// # Errors
/// `Unfit` with every difference of topics that exist; missing ones were created nevertheless.
pub async fn ensure(config: &TopicsConfig, model: &str) -> Result<Vec<Topic>, TopicsError> {
    let options = options(config)?;
    let asker: Arc<Asker> = Arc::new(options.create_with_context(Heard::default())?);
    let found = metadata(&asker).await?;
    let admin: Admin = options.create()?;
    let names = [Kind::Predictions, Kind::Outcomes].map(|kind| wire::topic(&config.prefix, model, kind));
    let existing = names.iter().filter_map(|name| found.partitions.get(name).copied()).max();
    let partitions = config.partitions.or(existing).unwrap_or(PARTITIONS_DEFAULT);
    let replication = config.replication.unwrap_or_else(|| found.brokers.clamp(1, REPLICATION_DEFAULT));
    let mut wanted = Vec::from(names.map(|name| model_topic(name, partitions, config.ingest_time)));
    wanted.extend(
        [wire::ledger_topic(&config.prefix), wire::dead_letter_topic(&config.prefix)]
            .map(|name| model_topic(name, 1, IngestTime::Broker)),
    );

    let mut topics = Vec::new();
    for wanted in &wanted {
        let created = !found.partitions.contains_key(&wanted.name) && create(&admin, wanted, replication).await?;
        topics.push(Topic { name: wanted.name.clone(), partitions: wanted.partitions, created });
    }
    let created: Vec<&str> = topics.iter().filter(|topic| topic.created).map(|topic| topic.name.as_str()).collect();
    let found = appeared(&asker, &created).await?;
    let mut faults = Vec::new();
    for (wanted, topic) in wanted.iter().zip(&mut topics) {
        topic.partitions = found.partitions.get(&wanted.name).copied().unwrap_or(wanted.partitions);
        if topic.partitions != wanted.partitions {
            faults.push(format!(
                "{} has {} partitions instead of {}; a model's two topics need the same number, and keys keep their \
                 partition only while it stays: give --partitions {} or make the topic anew",
                wanted.name, topic.partitions, wanted.partitions, topic.partitions
            ));
        }
        faults.extend(differences(&admin, wanted).await?);
    }
    if faults.is_empty() { Ok(topics) } else { Err(TopicsError::Unfit(faults)) }
}

fn model_topic(name: String, partitions: i32, ingest_time: IngestTime) -> Wanted {
    const LONG_MAX: &str = "9223372036854775807";
    let demanded = match ingest_time {
        IngestTime::Broker => vec![("cleanup.policy", "delete"), ("message.timestamp.type", "LogAppendTime")],
        IngestTime::Record => vec![
            ("cleanup.policy", "delete"),
            ("message.timestamp.type", "CreateTime"),
            // Else a broker deletes records of old times within minutes.
            ("retention.ms", "-1"),
            ("message.timestamp.before.max.ms", LONG_MAX),
            ("message.timestamp.after.max.ms", LONG_MAX),
        ],
    };
    Wanted { name, partitions, settings: demanded.clone(), demanded }
}

fn options(config: &TopicsConfig) -> Result<ClientConfig, TopicsError> {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", &config.brokers).set("client.id", "flywheel-schemas");
    for (key, value) in &config.librdkafka {
        if matches!(key.as_str(), "sasl.mechanism" | "sasl.mechanisms") && value.eq_ignore_ascii_case("OAUTHBEARER") {
            return Err(TopicsError::Token);
        }
        client.set(key, value);
    }
    Ok(client)
}

struct Found {
    brokers: i32,
    partitions: BTreeMap<String, i32>,
}

/// All topics, since asking for one by name may create it.
async fn metadata(asker: &Arc<Asker>) -> Result<Found, TopicsError> {
    let asking = Arc::clone(asker);
    let fetched = tokio::task::spawn_blocking(move || asking.client().fetch_metadata(None, CALL_TIMEOUT)).await;
    let metadata = fetched.map_err(|error| TopicsError::Abandoned(error.to_string()))?.map_err(|error| {
        let reason = asker.context().reason.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if reason.is_empty() { TopicsError::Kafka(error) } else { TopicsError::Unreachable { error, reason } }
    })?;
    let count = |length: usize| i32::try_from(length).unwrap_or(i32::MAX);
    Ok(Found {
        brokers: count(metadata.brokers().len()),
        partitions: metadata
            .topics()
            .iter()
            .filter(|topic| topic.error().is_none())
            .map(|topic| (topic.name().to_owned(), count(topic.partitions().len())))
            .collect(),
    })
}

/// Whether it was made here; another one may have been faster.
async fn create(admin: &Admin, wanted: &Wanted, replication: i32) -> Result<bool, TopicsError> {
    let mut topic = NewTopic::new(&wanted.name, wanted.partitions, TopicReplication::Fixed(replication));
    for (key, value) in &wanted.settings {
        topic = topic.set(key, value);
    }
    if replication > 1 {
        topic = topic.set("min.insync.replicas", "2");
    }
    let options = AdminOptions::new().request_timeout(Some(CALL_TIMEOUT)).operation_timeout(Some(CALL_TIMEOUT));
    for result in admin.create_topics([&topic], &options).await? {
        match result {
            Ok(_) => {}
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => return Ok(false),
            Err((topic, code)) => return Err(TopicsError::Create { topic, code }),
        }
    }
    Ok(true)
}

/// Waits until the brokers show the new topics.
async fn appeared(asker: &Arc<Asker>, created: &[&str]) -> Result<Found, TopicsError> {
    let start = Instant::now();
    loop {
        let found = metadata(asker).await?;
        match created.iter().find(|name| !found.partitions.contains_key(**name)) {
            None => return Ok(found),
            Some(name) if start.elapsed() > APPEAR_TIMEOUT => {
                return Err(TopicsError::Invisible { topic: (*name).to_owned() });
            }
            Some(_) => tokio::time::sleep(APPEAR_POLL).await,
        }
    }
}

/// The demanded settings that a topic does not have.
async fn differences(admin: &Admin, wanted: &Wanted) -> Result<Vec<String>, TopicsError> {
    let options = AdminOptions::new().request_timeout(Some(CALL_TIMEOUT));
    let start = Instant::now();
    let resource = loop {
        let described = admin.describe_configs([&ResourceSpecifier::Topic(&wanted.name)], &options).await?;
        match described.into_iter().next() {
            Some(Ok(resource)) => break resource,
            // Another broker than the one that showed it may not know it yet.
            Some(Err(RDKafkaErrorCode::UnknownTopicOrPartition)) | None if start.elapsed() < APPEAR_TIMEOUT => {
                tokio::time::sleep(APPEAR_POLL).await;
            }
            Some(Err(code)) => return Err(TopicsError::Describe { topic: wanted.name.clone(), code }),
            None => return Err(TopicsError::Invisible { topic: wanted.name.clone() }),
        }
    };
    let differs = |(key, value): &(&str, &str)| {
        let found = resource.get(key).and_then(|entry| entry.value.as_deref());
        (found != Some(*value)).then(|| {
            let found = found.unwrap_or("unset");
            format!(
                "{}: {key} is {found}; set it to {value} (kafka-configs --alter), or make the topic anew",
                wanted.name
            )
        })
    };
    Ok(wanted.demanded.iter().filter_map(differs).collect())
}
