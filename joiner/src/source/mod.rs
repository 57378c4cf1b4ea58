//! Where records come from: the two topics of each model, in Kafka or in a `file:` log, behind one set of types.
//!
//! A [`Source`] is opened once per process. It says which partitions of which models are this process's
//! ([`SourceEvent`]) and makes a [`Feed`] for each model. A feed reads both topics of its model from the offsets that
//! it is told, which are those of the tables, never those of the consumer group; so that a model that stands still
//! stops no other, no two feeds share a reader. A [`SideFeed`] reads a topic of all models (ledger, dead letters) with
//! offsets of its own, at least once.
//!
//! What is not there to be read is an error, never a jump: no reader here resets an offset by itself.
//!
//! | | Kafka | `file:` |
//! |---|---|---|
//! | partitions of this process | consumer group over `<prefix>.*.predictions`, cooperative-sticky | all of them |
//! | new models | metadata refresh, 5 s | the folder is looked at every 200 ms |
//! | time of a record | the broker's append time; create time where the topic says so | the writer's |
//! | tick records | [`Feed::append_tick`], by the broker's clock | appended by the writer alone |
//! | [`Feed::landed`] | group commit, for displays of lag | marker: the writer deletes what lies below |

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
pub use flywheel_schemas::wire::Kind;

mod kafka;
mod local;

/// Where the log is and who reads it.
#[derive(Debug, Clone, Default)]
pub struct SourceConfig {
    /// `kafka://host:port,host:port` or `file:DIR`.
    pub url: String,
    /// The first part of every topic's name.
    pub prefix: String,
    /// The consumer group.
    pub group: String,
    /// This process's name in the group, kept over restarts (static membership).
    pub member: Option<String>,
    /// Options that are passed on to librdkafka; those that exactly-once landing rests on are refused.
    pub librdkafka: BTreeMap<String, String>,
}

/// One record of one of a model's two topics, or of a side topic.
#[derive(Debug, Clone)]
pub struct Record {
    /// Which of the two topics; for a side feed it says nothing.
    pub kind: Kind,
    pub partition: i32,
    pub offset: i64,
    /// Append time in milliseconds since the epoch, as the log states it: not yet raised to that of its predecessor.
    pub time_ms: i64,
    /// Whether `time_ms` was set by the log at the append (Kafka: `LogAppendTime`; always with `file:`), and not by
    /// the producer.
    pub time_by_log: bool,
    pub key: Option<Bytes>,
    pub value: Option<Bytes>,
    pub producer_id: Option<String>,
    pub producer_seq: Option<i64>,
    /// A tick record: it says only that time has come this far in its partition.
    pub tick: bool,
    /// The header of a gate record.
    pub gate: Option<Bytes>,
    /// All headers, kept only where the key belongs to another partition, so that [`Feed::reroute`] can pass them on.
    pub headers: Vec<(String, Option<Bytes>)>,
}

/// What happens to the partitions of this process.
#[derive(Debug)]
pub enum SourceEvent {
    /// These partitions of the model (of both its topics) are now read by this process.
    Assigned { model: String, partitions: Vec<i32> },
    /// These are not any more; nothing waits for an answer.
    Revoked { model: String, partitions: Vec<i32> },
    /// Membership met an error that does not pass by itself. After [`SourceError::Fatal`] no more events come.
    Failed(SourceError),
}

/// What went wrong, by what is to be done about it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SourceError {
    /// The log is away, or answers late. Ask again later; nothing is lost.
    #[error("{what}: {cause}")]
    Passing { what: String, cause: String },
    /// The log does not hold that offset (any more, or not yet): retention was too short, or this is another topic.
    #[error(
        "{topic} partition {partition} holds no offset {offset}, only {low} to {end}: \
         records went before they were landed, or the topic is another one than the table was written from. \
         `flywheel-joiner adopt MODEL` says what of it is lost, and lets the joiner go on with what there is"
    )]
    OutOfRange { topic: String, partition: i32, offset: i64, low: i64, end: i64 },
    /// The topic or the partition is not there.
    #[error("{topic} is not in the log: register the model's contract, which makes its topics")]
    UnknownTopic { topic: String },
    /// The records of the topic carry times that their producers chose.
    #[error(
        "{topic} has message.timestamp.type={found}, but log.ingest_time is `broker`: nothing is landed by times that \
         producers choose. Set message.timestamp.type=LogAppendTime on the topic, or log.ingest_time = \"record\" if one \
         trusted writer gives the times"
    )]
    ProducerTimes { topic: String, found: String },
    /// The log refuses this client.
    #[error("{what}: {cause}: give this client the right, it is tried again")]
    Denied { what: String, cause: String },
    /// This source can go on no more and is to be opened anew.
    #[error("{what}: {cause}")]
    Fatal { what: String, cause: String },
    /// The configuration cannot work, or asks for what this kind of log has not.
    #[error("{what}")]
    Config { what: String },
}

impl SourceError {
    /// Whether the same call can succeed later without a person.
    pub fn is_passing(&self) -> bool {
        matches!(self, SourceError::Passing { .. })
    }
}

/// The log, seen by one process.
pub struct Source(SourceKind);

enum SourceKind {
    Kafka(kafka::Source),
    Local(local::Source),
}

impl Source {
    /// Opens the log and joins the group. Passing where no broker answers within 10 s, or no `file:` log is there yet.
    pub async fn open(config: &SourceConfig) -> Result<Source, SourceError> {
        if let Some(servers) = config.url.strip_prefix("kafka://") {
            Ok(Source(SourceKind::Kafka(kafka::Source::open(servers, config).await?)))
        } else if let Some(dir) = config.url.strip_prefix("file:") {
            let dir = dir.strip_prefix("//").unwrap_or(dir);
            Ok(Source(SourceKind::Local(local::Source::open(dir.as_ref(), config)?)))
        } else {
            let what = format!("log url {:?} is neither kafka://host:port,… nor file:DIR", config.url);
            Err(SourceError::Config { what })
        }
    }

    /// The id of the cluster: it tells one log from another under the same address.
    pub fn cluster_id(&self) -> &str {
        match &self.0 {
            SourceKind::Kafka(source) => source.log().cluster_id(),
            SourceKind::Local(source) => source.log().cluster_id(),
        }
    }

    /// Whether idle partitions need [`Feed::append_tick`]; with `file:` the writer alone appends ticks.
    pub fn needs_ticks(&self) -> bool {
        matches!(self.0, SourceKind::Kafka(_))
    }

    /// The next change; waits for it. Dropping the future loses no event.
    pub async fn next(&mut self) -> SourceEvent {
        match &mut self.0 {
            SourceKind::Kafka(source) => source.next().await,
            SourceKind::Local(source) => source.next().await,
        }
    }

    /// What makes feeds, for tasks that outlive a borrow of the source.
    pub fn feeds(&self) -> Feeds {
        Feeds(match &self.0 {
            SourceKind::Kafka(source) => FeedsKind::Kafka(source.log().clone()),
            SourceKind::Local(source) => FeedsKind::Local(source.log().clone()),
        })
    }

    /// As [`Feeds::partition_count`].
    pub async fn partition_count(&self, topic: &str) -> Result<i32, SourceError> {
        self.feeds().partition_count(topic).await
    }

    /// As [`Feeds::feed`].
    pub fn feed(&self, model: &str) -> Result<Feed, SourceError> {
        self.feeds().feed(model)
    }

    /// As [`Feeds::side_feed`].
    pub fn side_feed(&self, topic: &str) -> Result<SideFeed, SourceError> {
        self.feeds().side_feed(topic)
    }

    /// Leaves the group, so that another member takes over at once (a static member stays one). Waits 5 s at most.
    pub async fn close(self) {
        if let SourceKind::Kafka(source) = self.0 {
            source.close().await;
        }
    }
}

/// Appends a record without key and value, with one header, to every partition of a topic; joins no group. Says how many
/// partitions there are. After an error some of them have it.
pub async fn append_everywhere(config: &SourceConfig, topic: &str, header: (&str, &str)) -> Result<i32, SourceError> {
    match config.url.strip_prefix("kafka://") {
        Some(servers) => kafka::everywhere::append(servers, config, topic, header).await,
        None => Err(SourceError::Config { what: format!("{}: only the sidecar appends to a file: log", config.url) }),
    }
}

/// Makes readers. Clones make readers of the same log; it stays usable as long as any of them, whatever becomes of the
/// [`Source`].
#[derive(Clone)]
pub struct Feeds(FeedsKind);

#[derive(Clone)]
enum FeedsKind {
    Kafka(Arc<kafka::Log>),
    Local(Arc<local::Log>),
}

impl Feeds {
    /// How many partitions a topic has.
    pub async fn partition_count(&self, topic: &str) -> Result<i32, SourceError> {
        match &self.0 {
            FeedsKind::Kafka(log) => log.partition_count(topic).await,
            FeedsKind::Local(log) => log.partition_count(topic),
        }
    }

    /// Whether the log itself sets the times of a topic's records; [`SourceError::ProducerTimes`] where it does not.
    /// Without the right to read a topic's settings nothing is found, and [`Record::time_by_log`] says it of each record.
    pub async fn check_times(&self, topic: &str) -> Result<(), SourceError> {
        match &self.0 {
            FeedsKind::Kafka(log) => log.check_times(topic).await,
            FeedsKind::Local(_) => Ok(()),
        }
    }

    /// A reader of both topics of a model, with nothing assigned yet.
    pub fn feed(&self, model: &str) -> Result<Feed, SourceError> {
        Ok(Feed::new(match &self.0 {
            FeedsKind::Kafka(log) => FeedKind::Kafka(log.feed(model)?),
            FeedsKind::Local(log) => FeedKind::Local(log.feed(model)),
        }))
    }

    /// A reader of a whole topic with offsets of its own.
    pub fn side_feed(&self, topic: &str) -> Result<SideFeed, SourceError> {
        Ok(SideFeed(match &self.0 {
            FeedsKind::Kafka(log) => SideKind::Kafka(log.side_feed(topic)?),
            FeedsKind::Local(log) => SideKind::Local(log.side_feed(topic)),
        }))
    }
}

/// The reader of one model's two topics.
pub struct Feed {
    kind: FeedKind,
    /// What offsets as they are told here are ahead of those of the log.
    bases: BTreeMap<(Kind, i32), i64>,
}

enum FeedKind {
    Kafka(kafka::Feed),
    Local(local::Feed),
}

impl Feed {
    fn new(kind: FeedKind) -> Feed {
        Feed { kind, bases: BTreeMap::new() }
    }

    /// From here on the offsets of this topic's partitions are told, and taken, so much ahead of those of the log: the tables
    /// count on from where the topic before ended. For what is assigned later.
    pub fn count_from(&mut self, kind: Kind, bases: &BTreeMap<i32, i64>) {
        self.bases.retain(|(of, _), _| *of != kind);
        self.bases.extend(bases.iter().map(|(number, base)| ((kind, *number), *base)));
    }

    fn base(&self, kind: Kind, partition: i32) -> i64 {
        self.bases.get(&(kind, partition)).copied().unwrap_or(0)
    }

    /// Reads this partition from `next_offset` on (from the beginning where it is negative); seeks, and resumes,
    /// where it is assigned already. Whether the offset exists shows at the next [`poll`](Feed::poll).
    pub fn assign(&mut self, kind: Kind, partition: i32, next_offset: i64) -> Result<(), SourceError> {
        let next_offset = if next_offset < 0 { -1 } else { (next_offset - self.base(kind, partition)).max(0) };
        match &mut self.kind {
            FeedKind::Kafka(feed) => feed.assign(kind, partition, next_offset),
            FeedKind::Local(feed) => feed.assign(kind, partition, next_offset),
        }
    }

    /// Stops reading this partition of both topics.
    pub fn unassign(&mut self, partition: i32) {
        match &mut self.kind {
            FeedKind::Kafka(feed) => feed.unassign(partition),
            FeedKind::Local(feed) => feed.unassign(partition),
        }
    }

    /// Hands out no more of this partition until it is assigned anew; what was read ahead of it is dropped.
    pub fn pause(&mut self, kind: Kind, partition: i32, next_offset: i64) {
        tracing::debug!(kind = kind.name(), partition, next_offset, "reading paused");
        match &mut self.kind {
            FeedKind::Kafka(feed) => feed.pause(kind, partition),
            FeedKind::Local(feed) => feed.pause(kind, partition),
        }
    }

    /// What is there, at most `records_max`; where nothing is, what comes within `wait`. In offset order within a
    /// partition. Empty when nothing came. An absent log is no error: the feed goes on when it is back. Dropping the
    /// future loses no record.
    pub async fn poll(&mut self, records_max: usize, wait: Duration) -> Result<Vec<Record>, SourceError> {
        let mut records = match &mut self.kind {
            FeedKind::Kafka(feed) => feed.poll(records_max, wait).await,
            FeedKind::Local(feed) => feed.poll(records_max, wait).await,
        }?;
        if !self.bases.is_empty() {
            for record in &mut records {
                record.offset += self.base(record.kind, record.partition);
            }
        }
        Ok(records)
    }

    /// Whether every assigned and unpaused partition was read to its end, as of the last poll.
    pub fn at_end(&self) -> bool {
        match &self.kind {
            FeedKind::Kafka(feed) => feed.at_end(),
            FeedKind::Local(feed) => feed.at_end(),
        }
    }

    /// Appends a tick record by the broker's clock and waits for it to be durable. With `file:` there is nothing to
    /// do, see [`Source::needs_ticks`].
    pub async fn append_tick(&self, kind: Kind, partition: i32) -> Result<(), SourceError> {
        match &self.kind {
            FeedKind::Kafka(feed) => feed.append_tick(kind, partition).await,
            FeedKind::Local(_) => Ok(()),
        }
    }

    /// Appends a copy of `record`, headers and all, to the partition that its key belongs to, and waits for it to be
    /// durable. Where the topic keeps create times, the copy keeps its own.
    pub async fn reroute(&self, record: &Record, partition: i32) -> Result<(), SourceError> {
        match &self.kind {
            FeedKind::Kafka(feed) => feed.reroute(record, partition).await,
            FeedKind::Local(_) => Err(SourceError::Config {
                what: "a file: log is written by the sidecar alone, which places every key where it belongs".into(),
            }),
        }
    }

    /// Says that everything below `next_offset` is in a committed table.
    pub fn landed(&mut self, kind: Kind, partition: i32, next_offset: i64) {
        let next_offset = next_offset - self.base(kind, partition);
        match &mut self.kind {
            FeedKind::Kafka(feed) => feed.landed(kind, partition, next_offset),
            FeedKind::Local(feed) => feed.landed(kind, partition, next_offset),
        }
    }

    /// The first offset that is there, and the one after the last.
    pub async fn offsets(&self, kind: Kind, partition: i32) -> Result<(i64, i64), SourceError> {
        let (low, end) = match &self.kind {
            FeedKind::Kafka(feed) => feed.offsets(kind, partition).await,
            FeedKind::Local(feed) => feed.offsets(kind, partition),
        }?;
        let base = self.base(kind, partition);
        Ok((low + base, end + base))
    }
}

/// The reader of a topic that all models share, at least once: what was polled and not committed comes again after a
/// restart.
pub struct SideFeed(SideKind);

enum SideKind {
    Kafka(kafka::SideFeed),
    Local(local::SideFeed),
}

impl SideFeed {
    /// As [`Feed::poll`].
    pub async fn poll(&mut self, max: usize, wait: Duration) -> Result<Vec<Record>, SourceError> {
        match &mut self.0 {
            SideKind::Kafka(feed) => feed.poll(max, wait).await,
            SideKind::Local(feed) => feed.poll(max, wait).await,
        }
    }

    /// Says that everything polled so far is in a committed table.
    pub async fn commit(&mut self) -> Result<(), SourceError> {
        match &mut self.0 {
            SideKind::Kafka(feed) => feed.commit().await,
            SideKind::Local(feed) => feed.commit(),
        }
    }
}

/// Who is asked first changes with each turn, so that with many records everybody gets his share, which is the answer.
/// `active` is not empty.
fn share<T>(active: &mut [T], turn: &mut usize, records_max: usize) -> usize {
    active.rotate_left(*turn % active.len());
    *turn = turn.wrapping_add(1);
    (records_max / active.len()).max(1)
}

/// The model whose predictions topic this is; none where it is no such topic.
fn model_of<'a>(topic: &'a str, prefix: &str) -> Option<&'a str> {
    let model = topic.strip_prefix(prefix)?.strip_prefix('.')?.strip_suffix(".predictions")?;
    let word = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_';
    let fits = model.len() <= 63 && model.as_bytes().first().is_some_and(u8::is_ascii_lowercase);
    (fits && model.bytes().all(word)).then_some(model)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_known_by_its_topic() {
        assert_eq!(model_of("flywheel.flight_delay.predictions", "flywheel"), Some("flight_delay"));
        assert_eq!(model_of("a.b.m2.predictions", "a.b"), Some("m2"));
        for topic in [
            "flywheel.flight_delay.outcomes",
            "flywheel.predictions",
            "flywheel.A.predictions",
            "x.m.predictions",
            "flywheel.a.b.predictions",
        ] {
            assert_eq!(model_of(topic, "flywheel"), None, "{topic}");
        }
    }
}
