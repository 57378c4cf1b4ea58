//! A pipeline whose steps are taken one by one, for who measures them. Each does what the running joiner does in its
//! turn; only the loop around them is the caller's, and the records come from him.

use std::sync::Arc;

use super::{Pipeline, PipelineError, RECORDS_PER_TURN, Shared};
use crate::config::Config;
use crate::metrics::Metrics;
use crate::source::{Record, Source};
use crate::table::{TableError, Warehouse};

/// One model's pipeline, with all partitions of the model.
pub struct Steps {
    pipeline: Pipeline,
    /// Owns what the pipeline's feed reads from.
    _source: Source,
}

/// What stops a step.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StepError(String);

impl From<PipelineError> for StepError {
    fn from(error: PipelineError) -> StepError {
        StepError(error.to_string())
    }
}

impl From<TableError> for StepError {
    fn from(error: TableError) -> StepError {
        StepError(error.to_string())
    }
}

impl Steps {
    /// Opens log, registry, catalog and index as `config` says, and takes all `partitions` of `model` from where its
    /// tables are.
    ///
    /// # Errors
    /// One of them does not open, or the model's schemas are not registered.
    pub async fn open(config: Config, model: &str, partitions: i32) -> Result<Steps, StepError> {
        let said = |error: &dyn std::fmt::Display| StepError(error.to_string());
        let source = Source::open(&config.source()).await.map_err(|error| said(&error))?;
        let registry = flywheel_schemas::registry::Registry::open(&config.registry()).map_err(|error| said(&error))?;
        let shared = Shared {
            warehouse: Arc::new(Warehouse::open(&config.catalog()).await?),
            registry,
            metrics: Metrics::new(),
            cluster: source.cluster_id().to_owned(),
            config: Arc::new(config),
        };
        let mut pipeline = Pipeline::open(model, &shared, &source.feeds()).await?;
        pipeline.take_partitions(&(0..partitions).collect::<Vec<_>>()).await?;
        Ok(Steps { pipeline, _source: source })
    }

    /// Takes records of both topics, each partition's in order, and commits whenever the joiner would.
    ///
    /// # Errors
    /// Of registry, catalog or store.
    pub async fn take(&mut self, records: Vec<Record>) -> Result<(), StepError> {
        let mut records = records.into_iter();
        loop {
            let turn: Vec<Record> = records.by_ref().take(RECORDS_PER_TURN).collect();
            if turn.is_empty() {
                return Ok(());
            }
            self.pipeline.take(turn).await?;
            if self.pipeline.is_due() {
                self.pipeline.commit().await?;
            }
        }
    }

    /// Commits what was taken to the raw tables.
    ///
    /// # Errors
    /// Of catalog or store.
    pub async fn commit(&mut self) -> Result<(), StepError> {
        Ok(self.pipeline.commit().await?)
    }

    /// Seals the ticks that what is committed has passed; whether there were any.
    ///
    /// # Errors
    /// Of catalog or store.
    pub async fn seal(&mut self) -> Result<bool, StepError> {
        Ok(self.pipeline.seal().await?)
    }

    /// Brings the tables that follow the training table to its ticks.
    ///
    /// # Errors
    /// Of catalog or store.
    pub async fn follow(&mut self) -> Result<(), StepError> {
        Ok(self.pipeline.follow().await?)
    }
}
