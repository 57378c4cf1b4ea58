//! Membership of the consumer group: which partitions are this process's.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use flywheel_schemas::client_options::{ClientOptions, Stamp};
use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::topic_partition_list::TopicPartitionList;
use tokio::sync::mpsc;

use super::error::{refused, source_error};
use super::{LEAVE_TIMEOUT, Membership, Quiet, SERVE_INTERVAL};
use crate::source::{SourceConfig, SourceError, SourceEvent, model_of};

/// How often the files of secrets are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

pub(super) fn create(
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
pub(super) fn poll(
    consumer: &Membership,
    events: &mpsc::UnboundedSender<SourceEvent>,
    stop: &AtomicBool,
    options: &ClientOptions,
    stamp: Stamp,
) {
    let mut looked_at = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        if looked_at.elapsed() >= LOOK_INTERVAL {
            looked_at = Instant::now();
            // A file that cannot be read is being replaced.
            if options.read().is_ok_and(|values| values.stamp != stamp) {
                let what = "a file of a Kafka secret or certificate has changed".to_owned();
                let cause = "the joiner is to be started anew with it".to_owned();
                let _ = events.send(SourceEvent::Failed(SourceError::Fatal { what, cause }));
                break;
            }
        }
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
    let end = Instant::now() + LEAVE_TIMEOUT;
    while Instant::now() < end && consumer.assignment().is_ok_and(|assignment| assignment.count() > 0) {
        let _ = consumer.poll(SERVE_INTERVAL);
    }
}

/// The context of the membership consumer.
pub(super) struct Member {
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
