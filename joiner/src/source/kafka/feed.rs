//! The reader of one model's two topics, each partition with a queue of its own; and what is appended to them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use flywheel_schemas::wire::{self, Kind};
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, Message, OwnedHeaders};
use rdkafka::producer::FutureRecord;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::error::{named, source_error};
use super::record::read;
use super::{APPEND_TIMEOUT, ASK_TIMEOUT, Log, Quiet, SERVE_INTERVAL, blocking, drop_aside};
use crate::source::{Record, SourceError, share};

/// How often at most a feed asks for the partitions of its topics while it does not know them.
const COUNT_INTERVAL: Duration = Duration::from_secs(5);

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
    /// With nothing assigned yet.
    pub(super) fn new(log: Arc<Log>, model: &str, consumer: BaseConsumer<Quiet>) -> Feed {
        let topic = |kind| wire::topic(&log.prefix, model, kind);
        Feed {
            topics: [topic(Kind::Predictions), topic(Kind::Outcomes)],
            log,
            counts: [None; 2],
            counted: None,
            partitions: BTreeMap::new(),
            turn: 0,
            ready: Arc::new(Notify::new()),
            consumer: Some(Arc::new(consumer)),
        }
    }

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
        let share = share(&mut active, &mut self.turn, records_max);
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
