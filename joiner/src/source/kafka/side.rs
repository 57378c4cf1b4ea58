//! The reader of a topic of all models.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use flywheel_schemas::wire::Kind;
use futures::FutureExt;
use rdkafka::consumer::{CommitMode, Consumer, StreamConsumer};
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::time::Instant;

use super::error::{named, source_error};
use super::record::read;
use super::{Quiet, blocking, drop_aside};
use crate::source::{Record, SourceError};

/// The reader of a topic of all models, by a group of its own.
pub struct SideFeed {
    /// There until the feed is dropped.
    consumer: Option<Arc<StreamConsumer<Quiet>>>,
    topic: String,
    /// By partition: the offset after the last record handed out and not committed.
    polled: HashMap<i32, i64>,
}

impl SideFeed {
    pub(super) fn new(consumer: StreamConsumer<Quiet>, topic: &str) -> SideFeed {
        SideFeed { consumer: Some(Arc::new(consumer)), topic: topic.to_string(), polled: HashMap::new() }
    }

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
