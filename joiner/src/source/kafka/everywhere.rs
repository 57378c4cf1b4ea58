//! Appending to every partition of a topic, for commands: no group is joined.

use std::sync::Arc;

use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureRecord, Producer};

use super::error::{named, source_error};
use super::{APPEND_TIMEOUT, Base, blocking, count, create_appender};
use crate::source::{SourceConfig, SourceError};

/// A record without key and value, with one header. Says how many partitions there are; after an error some have it.
pub async fn append(
    servers: &str,
    config: &SourceConfig,
    topic: &str,
    (key, value): (&str, &str),
) -> Result<i32, SourceError> {
    let appender = Arc::new(create_appender(&Base::read(servers, config)?.config)?);
    let (asked, asked_for) = (appender.clone(), topic.to_owned());
    let partitions = blocking(move || count(asked.client(), &asked_for)).await?;
    for partition in 0..partitions {
        let headers = OwnedHeaders::new_with_capacity(1).insert(Header { key, value: Some(value) });
        let record: FutureRecord<'_, [u8], [u8]> = FutureRecord::to(topic).partition(partition).headers(headers);
        if let Err((error, _)) = appender.send(record, APPEND_TIMEOUT).await {
            return Err(named(source_error("appending to the log", &error), topic));
        }
    }
    Ok(partitions)
}
