//! Kafka.

use std::time::Duration;

use flywheel_schemas::wire::Kind;

use super::{Record, SourceConfig, SourceError, SourceEvent};

fn absent() -> SourceError {
    SourceError::Config { what: "this kind of log is not built in yet".into() }
}

pub struct Source;

impl Source {
    pub async fn open(_servers: &str, _config: &SourceConfig) -> Result<Source, SourceError> {
        Err(absent())
    }
    pub async fn close(self) {}

    pub fn cluster_id(&self) -> &str {
        ""
    }

    pub async fn next(&mut self) -> SourceEvent {
        SourceEvent::Failed(absent())
    }

    pub async fn partition_count(&self, _topic: &str) -> Result<i32, SourceError> {
        Err(absent())
    }

    pub fn feed(&self, _model: &str) -> Result<Feed, SourceError> {
        Err(absent())
    }
    pub fn side_feed(&self, _topic: &str) -> Result<SideFeed, SourceError> {
        Err(absent())
    }
}

pub struct Feed;

impl Feed {
    pub fn assign(&mut self, _kind: Kind, _partition: i32, _next_offset: i64) -> Result<(), SourceError> {
        Err(absent())
    }

    pub fn unassign(&mut self, _partition: i32) {}

    pub fn pause(&mut self, _kind: Kind, _partition: i32) {}

    pub async fn poll(&mut self, _records_max: usize, _wait: Duration) -> Result<Vec<Record>, SourceError> {
        Err(absent())
    }

    pub fn at_end(&self) -> bool {
        false
    }

    pub async fn append_tick(&self, _kind: Kind, _partition: i32) -> Result<(), SourceError> {
        Err(absent())
    }
    pub async fn reroute(&self, _record: &Record, _partition: i32) -> Result<(), SourceError> {
        Err(absent())
    }
    pub fn landed(&mut self, _kind: Kind, _partition: i32, _next_offset: i64) {}

    pub async fn offsets(&self, _kind: Kind, _partition: i32) -> Result<(i64, i64), SourceError> {
        Err(absent())
    }
}

pub struct SideFeed;

impl SideFeed {
    pub async fn poll(&mut self, _max: usize, _wait: Duration) -> Result<Vec<Record>, SourceError> {
        Err(absent())
    }

    pub async fn commit(&mut self) -> Result<(), SourceError> {
        Err(absent())
    }
}
