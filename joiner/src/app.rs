//! The joiner as a whole: who does what, and what happens when it fails or is told to stop.
//!
//! | task | does | on failure | on stop |
//! |---|---|---|---|
//! | membership (this one) | turns partitions that come and go into commands | opens the source anew | drops the commands |
//! | one pipeline per model | lands and seals | tried again from the tables, with back-off | ends after its turn |
//! | two side topics | append ledger and dead letters | tried again | ends |
//! | admin | `/livez` `/readyz` `/metrics` | ends the process at start only | ends |
//!
//! A task that panics ends the process, to be started anew: a member of the group whose partitions nobody works on would
//! hold them for ever.
//!
//! A stop waits for commits in flight no longer than `shutdown.drain_ms`: what is not committed is read again.

use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use flywheel_schemas::registry::{Registry, RegistryError};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinSet};

use crate::admin::{self, Admin};
use crate::config::Config;
use crate::metrics::Metrics;
use crate::missing;
use crate::pipeline::{self, Command, Shared};
use crate::side::{self, SideTopic};
use crate::source::{Source, SourceError, SourceEvent};
use crate::table::{TableError, Warehouse};

/// What could not be opened is tried again after this time, doubled up to the second one.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(15));

pub struct App {
    config: Arc<Config>,
    admin: Option<(TcpListener, SocketAddr)>,
    metrics: Metrics,
    ready: Arc<AtomicBool>,
}

#[derive(Debug, thiserror::Error)]
pub enum AppError {
    #[error("listen.admin {address}: {error}")]
    Bind { address: String, error: std::io::Error },
    #[error("{0}")]
    Registry(#[from] RegistryError),
    #[error("{0}")]
    Source(SourceError),
    #[error("{0}")]
    Table(TableError),
    #[error("a task has panicked: {0}")]
    Panicked(JoinError),
}

impl App {
    /// Binds the admin port. Log, registry and catalog are opened by [`run`](App::run), which waits for them.
    pub async fn build(config: Config) -> Result<App, AppError> {
        let admin = match config.listen.admin.as_str() {
            "" => None,
            address => {
                let bound = async {
                    let listener = TcpListener::bind(address).await?;
                    let address = listener.local_addr()?;
                    Ok((listener, address))
                };
                Some(bound.await.map_err(|error| AppError::Bind { address: address.to_owned(), error })?)
            }
        };
        Ok(App { config: Arc::new(config), admin, metrics: Metrics::new(), ready: Arc::default() })
    }

    /// Where the admin port listens.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(|(_, address)| *address)
    }

    /// Lands and seals until `shutdown`.
    ///
    /// # Errors
    /// What cannot pass by itself while log, registry and catalog are opened.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), AppError> {
        let App { config, admin, metrics, ready } = self;
        let (stop_sender, stop) = watch::channel(false);
        let mut tasks = JoinSet::new();
        if let Some((listener, _)) = admin {
            let router = admin::router(Admin { metrics: metrics.clone(), ready: Arc::clone(&ready) });
            let mut stop = stop.clone();
            let stopped = async move {
                let _ = stop.wait_for(|stop| *stop).await;
            };
            tasks.spawn(async move {
                if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(stopped).await {
                    tracing::error!(error = %error, "admin port ended");
                }
            });
        }
        let drain = Duration::from_millis(config.shutdown.drain_ms);
        let result = {
            let work = async {
                let mut stopping = stop.clone();
                let opened = tokio::select! {
                    opened = open(&config, &metrics) => opened?,
                    _ = stopping.wait_for(|stop| *stop) => return Ok(()),
                };
                ready.store(true, Ordering::Relaxed);
                follow(opened, &mut tasks, &stop).await
            };
            let mut work = std::pin::pin!(work);
            tokio::select! {
                result = &mut work => result,
                () = shutdown => {
                    let _ = stop_sender.send(true);
                    tokio::time::timeout(drain, work).await.unwrap_or(Ok(()))
                }
            }
        };
        // The pipelines' commands have ended with `work`, the rest ends by the flag.
        let _ = stop_sender.send(true);
        let ended = tokio::time::timeout(drain, async { while tasks.join_next().await.is_some() {} }).await;
        if ended.is_err() {
            tracing::warn!("a commit was still in flight at the drain deadline; it lands or is fenced");
            tasks.abort_all();
        }
        result
    }
}

/// Everything that the pipelines share, waited for with back-off.
async fn open(config: &Arc<Config>, metrics: &Metrics) -> Result<(Source, Shared), AppError> {
    let registry = Registry::open(&config.registry())?;
    let mut wait = RETRY.0;
    loop {
        let error = match Source::open(&config.source()).await {
            Ok(source) => match Warehouse::open(&config.catalog()).await {
                Ok(warehouse) => {
                    let cluster = source.cluster_id().to_owned();
                    let (config, metrics) = (Arc::clone(config), metrics.clone());
                    return Ok((source, Shared { config, warehouse: Arc::new(warehouse), registry, metrics, cluster }));
                }
                Err(error) if error.is_passing() => error.to_string(),
                Err(error) => return Err(AppError::Table(error)),
            },
            Err(error) if error.is_passing() => error.to_string(),
            Err(error) => return Err(AppError::Source(error)),
        };
        tracing::info!(error, "waiting for log and catalog");
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(RETRY.1);
    }
}

/// Turns what happens to the partitions into commands for the pipelines, until the stop or a source that is beyond
/// repair: then the process ends and is started anew.
async fn follow(
    (mut source, shared): (Source, Shared),
    tasks: &mut JoinSet<()>,
    stop: &watch::Receiver<bool>,
) -> Result<(), AppError> {
    let feeds = source.feeds();
    let interval = Duration::from_millis(shared.config.commit.interval_ms);
    for which in [SideTopic::Ledger, SideTopic::DeadLetters] {
        let topic = which.topic(&shared.config.log.prefix);
        let feeds = feeds.clone();
        let (warehouse, registry) = (Arc::clone(&shared.warehouse), shared.registry.clone());
        let (metrics, stop) = (shared.metrics.clone(), stop.clone());
        tasks.spawn(side::run(which, topic, feeds, warehouse, registry, interval, metrics, stop));
    }
    tasks.spawn(missing::look(feeds.clone(), shared.clone(), stop.clone()));
    let mut pipelines: HashMap<String, mpsc::UnboundedSender<Command>> = HashMap::new();
    loop {
        let mut stopping = stop.clone();
        let event = tokio::select! {
            event = source.next() => event,
            Some(ended) = tasks.join_next() => match ended {
                Err(error) if error.is_panic() => return Err(AppError::Panicked(error)),
                _ => continue,
            },
            _ = stopping.wait_for(|stop| *stop) => break,
        };
        let (model, command) = match event {
            SourceEvent::Assigned { model, partitions } => (model, Command::Take(partitions)),
            SourceEvent::Revoked { model, partitions } => (model, Command::Leave(partitions)),
            SourceEvent::Failed(error @ SourceError::Fatal { .. }) => return Err(AppError::Source(error)),
            SourceEvent::Failed(error) => {
                shared.metrics.source_failed(&error.to_string());
                continue;
            }
        };
        let pipeline = pipelines.entry(model.clone()).or_insert_with(|| {
            let (sender, commands) = mpsc::unbounded_channel();
            tasks.spawn(pipeline::run(model.clone(), shared.clone(), feeds.clone(), commands));
            sender
        });
        // A pipeline ends only after its sender is gone.
        let _ = pipeline.send(command);
    }
    // Leaving the group lets another member take over at once.
    source.close().await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::tests::rig::Rig;

    #[tokio::test]
    async fn a_task_that_panics_ends_the_process() {
        let Rig { source, shared, dir: _dir, .. } = Rig::new(1).await;
        let mut tasks = JoinSet::new();
        tasks.spawn(async { panic!("as a fault in the code would") });
        let (_sender, stop) = watch::channel(false);
        let error = follow((source, shared), &mut tasks, &stop).await.unwrap_err();
        assert!(matches!(error, AppError::Panicked(_)), "{error}");
    }
}
