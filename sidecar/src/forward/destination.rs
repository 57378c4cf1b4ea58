//! Where the log is, and a forwarder's way into it: the one interface of Kafka and the folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::brokers::Brokers;
use super::headers::Header;
use super::policy::Failure;
use super::{kafka, local};

/// Where the log is.
#[derive(Debug, Clone, Default)]
pub struct LogConfig {
    /// `kafka://host:port,host:port` or `file:DIR`.
    pub url: String,
    /// The first part of every topic's name.
    pub prefix: String,
    /// `file:` only: how many partitions a new topic gets.
    pub partitions: i32,
    /// The time of a record is that of its envelope (Kafka: its create time), and time records become ticks.
    pub replay: bool,
    /// Options that are passed on to librdkafka ([`flywheel_schemas::client_options`]); those that the promises rest on are
    /// refused.
    pub librdkafka: BTreeMap<String, String>,
}

/// Why a destination cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum DestinationError {
    #[error("{what}")]
    Config { what: String },
    #[error("{}: {cause}", dir.display())]
    Local { dir: PathBuf, cause: String },
}

/// The log, for all forwarders of the process. Clones are the same one.
#[derive(Clone)]
pub enum Destination {
    Kafka(kafka::Producer),
    Local(local::Log),
}

impl Destination {
    /// Opens the log. Kafka need not be there; a `file:` folder is made where there is none, and locked.
    pub async fn open(config: &LogConfig) -> Result<Destination, DestinationError> {
        if let Some(servers) = config.url.strip_prefix("kafka://") {
            Ok(Destination::Kafka(kafka::Producer::open(servers, config)?))
        } else if let Some(dir) = config.url.strip_prefix("file:") {
            let dir = dir.strip_prefix("//").unwrap_or(dir);
            Ok(Destination::Local(local::Log::open(Path::new(dir), config.partitions, config.replay)?))
        } else {
            let what = format!("log.url is {:?}; it is kafka://host:port,… or file:DIR", config.url);
            Err(DestinationError::Config { what })
        }
    }

    /// What is known of the brokers; none where there are none.
    pub fn brokers(&self) -> Option<Arc<Brokers>> {
        match self {
            Destination::Kafka(producer) => Some(producer.brokers()),
            Destination::Local(_) => None,
        }
    }

    pub(super) fn lane(&self) -> Lane {
        match self {
            Destination::Kafka(producer) => Lane::Kafka(producer.lane()),
            Destination::Local(log) => Lane::Local(log.lane()),
        }
    }
}

/// What goes to the log.
pub struct Message<'a> {
    pub topic: &'a str,
    pub place: Place,
    /// Used in a replay.
    pub time_ms: i64,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub headers: &'a [Header<'a>],
}

/// Which partition.
#[derive(Debug, Clone, Copy)]
pub enum Place {
    /// That of the key; any where there is no key.
    Key,
    Partition(i32),
}

/// What became of one message.
pub struct Report {
    pub token: u64,
    pub result: Result<(), Failure>,
}

/// Why a message was not taken.
#[derive(Debug)]
pub enum SendError {
    /// The queue is at its bound; later there is room.
    Full,
    Failed(Failure),
}

/// One forwarder's way into the destination. Reports come for every message taken, once.
pub(super) enum Lane {
    Kafka(kafka::Lane),
    Local(local::Lane),
}

impl Lane {
    /// How many partitions a topic has.
    pub(super) async fn partitions(&mut self, topic: &str, single: bool) -> Result<i32, Failure> {
        match self {
            Lane::Kafka(lane) => lane.partitions(topic).await,
            Lane::Local(lane) => lane.partitions(topic, single),
        }
    }

    pub(super) fn send(&mut self, token: u64, message: &Message<'_>) -> Result<(), SendError> {
        match self {
            Lane::Kafka(lane) => lane.send(token, message),
            Lane::Local(lane) => lane.send(token, message),
        }
    }

    pub(super) async fn report(&mut self) -> Report {
        match self {
            Lane::Kafka(lane) => lane.report().await,
            Lane::Local(lane) => lane.report().await,
        }
    }

    /// Why the brokers let nobody in who comes like this process.
    pub(super) fn refusal(&self) -> Option<String> {
        match self {
            Lane::Kafka(lane) => lane.refusal(),
            Lane::Local(_) => None,
        }
    }

    /// A new beginning after a fatal error: what was on its way is reported no more.
    pub(super) async fn renew(&mut self) -> Result<(), Failure> {
        match self {
            Lane::Kafka(lane) => lane.renew().await,
            Lane::Local(lane) => {
                lane.renew();
                Ok(())
            }
        }
    }
}
