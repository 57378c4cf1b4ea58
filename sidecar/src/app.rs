//! Everything that the sidecar is, from start to stop.
//!
//! | task | owner | on failure | on stop |
//! |---|---|---|---|
//! | API on TCP, API on the Unix socket | `App::run` | the sidecar stops, with a failure | take no more; requests in flight have `shutdown.requests_ms` |
//! | admin port | `App::run` | the sidecar stops, with a failure | ends last |
//! | one forwarder per spool | `App::run` | the sidecar stops, with a failure; the spools keep everything | go on to the end of the spool, `shutdown.drain_ms` at most |
//! | look for absent brokers and changed secrets, every second | the Kafka producer | asked again | ends with the producer |
//! | ledger, every 60 s | `App::run` itself | logged; counts go into the next record | closing records |
//! | contracts, keys and `[sampling]`, on [`Handle::reload`] | `App::run` itself | logged and counted; what was in force stays | none |
//! | one writer thread per spool | the spool | appends fail with 503 until the disk takes records again | writes and syncs everything |
//!
//! The order of the stop: unready, intake ends, spools synced, ledger closed, forwarders drained together, spools
//! closed. What is not forwarded by then is said, and sent after the next start.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::serve::ListenerExt;
use flywheel_schemas::registry::{Registry, RegistryConfig, RegistryError};
use flywheel_spool::{Spool, SpoolError};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use uuid::Uuid;

use crate::config::{self, Config, ConfigError, WhenFull};
use crate::dead_letter::{self, DeadLetters};
use crate::forward::brokers::Brokers;
use crate::forward::{Destination, DestinationError, Forwarder, LogConfig, Remaining, Retention, Topics};
use crate::install::{Installer, SERVICE_SHARE, options};
use crate::ledger::{self, ClosedBy, Ledger, LedgerError};
use crate::metrics::Metrics;
use crate::models::Models;
use crate::server::{Bounds, serve};
use crate::shared::{BODY_PIECE, Shared, WorkPool};
use crate::watch::SpoolWatcher;
use crate::{admin, api};

/// How much longer than the drain a forwarder may take to persist its cursor and end.
const FORWARDERS_GRACE: Duration = Duration::from_secs(1);

/// Connections to the admin port at once: a probe, a scraper and a person.
const ADMIN_CONNECTIONS: usize = 16;

/// Why the sidecar cannot start.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    #[error("cannot listen on {address}: {source}")]
    Bind { address: String, source: io::Error },
    #[error("{}: cannot be made: {source}", dir.display())]
    Dir { dir: PathBuf, source: io::Error },
    #[error("{name}: {source}")]
    Spool { name: &'static str, source: SpoolError },
    #[error("{0}")]
    Install(String),
    #[error("{0}")]
    Ledger(String),
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error(transparent)]
    Destination(#[from] DestinationError),
    #[error("the start was interrupted")]
    Interrupted,
}

/// How the sidecar ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stopped {
    /// Accepted records that are not in the log; they are sent after the next start, if the spool is still there.
    pub unforwarded: u64,
    /// A task failed, which is why it stopped.
    pub failed: bool,
}

/// A sidecar with its sockets bound and its spools recovered.
pub struct App {
    config: Config,
    shared: Arc<Shared>,
    installer: Arc<Installer>,
    ledger: Ledger,
    tcp: Option<TcpListener>,
    uds: Option<UnixListener>,
    admin: TcpListener,
    registry: Registry,
    destination: Destination,
    /// Spools that are to be forwarded from the start.
    opened: Vec<String>,
    reload: (mpsc::Sender<Reload>, mpsc::Receiver<Reload>),
}

/// Speaks to a running sidecar.
#[derive(Clone)]
pub struct Handle {
    reload: mpsc::Sender<Reload>,
}

/// What is to be taken over, and who waits for it.
struct Reload {
    config: Option<Result<Config, ConfigError>>,
    done: oneshot::Sender<()>,
}

impl Handle {
    /// Has the contract directory read again; resolves when what is sound is in force.
    pub async fn reload(&self) {
        self.send(None).await;
    }

    /// The same, with a configuration that was read again: of it `[sampling]` is taken over, the rest at the next start.
    /// One that could not be read leaves what is in force and raises an alarm.
    pub async fn reload_with(&self, config: Result<Config, ConfigError>) {
        self.send(Some(config)).await;
    }

    async fn send(&self, config: Option<Result<Config, ConfigError>>) {
        let (done, is_done) = oneshot::channel();
        if self.reload.send(Reload { config, done }).await.is_ok() {
            // An error says that the sidecar has ended, and with it the need.
            let _ = is_done.await;
        }
    }
}

impl App {
    /// Binds the sockets, recovers the spools, closes the predecessor's ledger and puts the contracts in force. Kafka and
    /// the registry need not be there. A faulty contract does not keep it from starting, but from being ready.
    pub async fn build(config: Config) -> Result<App, AppError> {
        let tcp = match config.listen.tcp {
            Some(address) => Some(bind(address).await?),
            None => None,
        };
        let uds = match &config.listen.uds {
            Some(path) => Some(bind_uds(path).await?),
            None => None,
        };
        let admin = bind(config.listen.admin).await?;
        let registry = Registry::open(&RegistryConfig {
            url: config.registry.url.clone(),
            username: config.registry.username.clone(),
            password_file: config.registry.password_file.clone(),
            token_file: config.registry.token_file.clone(),
            ca_file: config.registry.ca_file.clone(),
        })?;
        let destination = Destination::open(&LogConfig {
            url: config.log.url.clone(),
            prefix: config.log.prefix.clone(),
            partitions: config.log.partitions,
            replay: config.replay,
            librdkafka: config.log.librdkafka.clone(),
        })
        .await?;
        // The disk may take long to recover from; the runtime has other things to do meanwhile.
        let brokers = destination.brokers();
        let opening =
            tokio::task::spawn_blocking(move || open(config, brokers)).await.map_err(|_| AppError::Interrupted)?;
        let Opened { config, shared, installer, mut ledger, opened } = opening?;
        for name in &opened {
            let Some(spool) = shared.spool(name) else { continue };
            let note = ledger::end_of(&spool).map_err(|source| AppError::Ledger(source.to_string()))?;
            ledger.recover(name, &note).await.map_err(|error| AppError::Ledger(error.to_string()))?;
        }
        ledger.store().map_err(|error| AppError::Ledger(error.to_string()))?;
        shared.is_ready.store(installer.was_sound(), Ordering::Relaxed);
        let reload = mpsc::channel(1);
        Ok(App { config, shared, installer, ledger, tcp, uds, admin, registry, destination, opened, reload })
    }

    /// Where the API listens on TCP; the configured address where it does not.
    pub fn address(&self) -> SocketAddr {
        let bound = self.tcp.as_ref().and_then(|listener| listener.local_addr().ok());
        bound.or(self.config.listen.tcp).unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    /// Where the admin port listens.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin.local_addr().unwrap_or(self.config.listen.admin)
    }

    pub fn handle(&self) -> Handle {
        Handle { reload: self.reload.0.clone() }
    }

    /// Serves and forwards until `shutdown` resolves, then ends in order.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Stopped {
        let App { config, shared, installer, mut ledger, tcp, uds, admin, registry, destination, opened, reload } =
            self;
        let (intake_stop, intake_stopped) = watch::channel(false);
        let (forward_stop, forward_stopped) = watch::channel(false);
        let (admin_stop, admin_stopped) = watch::channel(false);
        let bounds = |connections| Bounds {
            connections: Arc::new(Semaphore::new(connections)),
            connected: Arc::default(),
            senders: shared.senders.clone(),
            header_timeout: Duration::from_millis(config.limits.header_timeout_ms),
        };

        let mut servers = JoinSet::new();
        let (router, api_bounds) = (api::router(shared.clone()), bounds(config.limits.connections));
        if let Some(tcp) = tcp {
            // Without this an answer may wait for the client's acknowledgement of the one before.
            let tcp = tcp.tap_io(|stream| {
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "TCP_NODELAY not set");
                }
            });
            servers.spawn(serve(tcp, router.clone(), api_bounds.clone(), intake_stopped.clone()));
        }
        if let Some(uds) = uds {
            servers.spawn(serve(uds, router, api_bounds, intake_stopped));
        }
        let mut admin =
            tokio::spawn(serve(admin, admin::router(shared.clone()), bounds(ADMIN_CONNECTIONS), admin_stopped));

        let drain = Duration::from_millis(config.shutdown.drain_ms);
        let mut forwarders: JoinSet<(String, Remaining)> = JoinSet::new();
        let forward =
            |forwarders: &mut JoinSet<(String, Remaining)>, name: &str, topics: Topics, retention: Retention| {
                let Some(spool) = shared.spool(name) else { return };
                let watcher = Arc::new(SpoolWatcher::new(shared.clone(), name));
                let (registry, auto) = (registry.clone(), config.registry.auto_register);
                let (named, ended) = (shared.book.last_losses(name), shared.book.last_accepted(name));
                let forwarder = Forwarder::new(spool, topics, registry, auto, &destination, watcher)
                    .with_retention(retention, named, ended);
                let (name, mut stopped) = (name.to_owned(), forward_stopped.clone());
                forwarders.spawn(async move {
                    let stop = async move {
                        // An error says that the owner is gone, which is a stop too.
                        let _ = stopped.wait_for(|stop| *stop).await;
                    };
                    (name, forwarder.run(stop, drain).await)
                });
            };
        for name in [dead_letter::SPOOL, ledger::SPOOL] {
            // What is too much there is refused: what is no row has no number by which a loss could be named.
            forward(&mut forwarders, name, Topics::service(&config.log.prefix), Retention::default());
        }
        let retention = retention(&config.spool);
        for name in &opened {
            forward(&mut forwarders, name, Topics::model(&config.log.prefix, name), retention);
        }

        let mut failed = false;
        let (_keep_open, mut reload) = reload;
        let mut interval = tokio::time::interval_at(Instant::now() + ledger::INTERVAL, ledger::INTERVAL);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut shutdown = std::pin::pin!(shutdown);
        tracing::info!(replay = config.replay, "sidecar running");
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                Some(Reload { config: again, done }) = reload.recv() => {
                    if let Some(again) = again {
                        shared.metrics.configuration_read(again.as_ref().err());
                        if let Ok(again) = again {
                            installer.take_over(&again);
                        }
                    }
                    for name in install_again(&installer, &shared).await {
                        forward(&mut forwarders, &name, Topics::model(&config.log.prefix, &name), retention);
                    }
                    let _ = done.send(());
                }
                _ = interval.tick() => ledger.write(&shared.models.all(), ClosedBy::Interval).await,
                Some(ended) = servers.join_next() => {
                    tracing::error!(?ended, "a server ended; stopping");
                    failed = true;
                    break;
                }
                Some(ended) = forwarders.join_next() => {
                    tracing::error!(?ended, "a forwarder ended; stopping");
                    failed = true;
                    break;
                }
                ended = &mut admin => {
                    tracing::error!(?ended, "the admin port ended; stopping");
                    failed = true;
                    break;
                }
            }
        }

        shared.is_ready.store(false, Ordering::Relaxed);
        intake_stop.send_replace(true);
        let requests = Duration::from_millis(config.shutdown.requests_ms);
        if tokio::time::timeout(requests, async { while servers.join_next().await.is_some() {} }).await.is_err() {
            tracing::warn!("requests in flight were cut off: they took longer than shutdown.requests_ms");
        }
        drop(servers);
        if let Some(path) = &config.listen.uds {
            // It may be gone already; the next start removes it too.
            let _ = std::fs::remove_file(path);
        }
        for model in shared.models.all() {
            match tokio::time::timeout(drain, model.spool().sync()).await {
                Ok(Ok(())) => model.settle_all(),
                Ok(Err(error)) => tracing::error!(model = model.name(), %error, "accepted records are not on the disk"),
                Err(_) => {
                    tracing::error!(model = model.name(), "the disk takes nothing; accepted records are not on it")
                }
            }
        }
        ledger.write(&shared.models.all(), ClosedBy::Shutdown).await;
        forward_stop.send_replace(true);
        let joined = async {
            while let Some(ended) = forwarders.join_next().await {
                if let Err(error) = ended {
                    tracing::error!(%error, "a forwarder failed");
                    failed = true;
                }
            }
        };
        if tokio::time::timeout(drain + FORWARDERS_GRACE, joined).await.is_err() {
            tracing::warn!("forwarders were cut off: they did not end in time");
            forwarders.shutdown().await;
        }
        let spools = shared.spools();
        let left = spools.iter().map(|(_, spool)| spool.usage()).map(|usage| usage.next.saturating_sub(usage.cursor));
        let unforwarded = left.sum();
        if let Err(error) = tokio::task::spawn_blocking(move || close(&spools)).await {
            tracing::error!(%error, "the spools were not closed");
        }
        admin_stop.send_replace(true);
        if !admin.is_finished() {
            admin.abort();
        }
        if unforwarded > 0 {
            let dir = config.spool.dir.display().to_string();
            tracing::warn!(unforwarded, dir, "stopped; accepted records wait in the spools for the next start");
        } else {
            tracing::info!("stopped; everything accepted is in the log");
        }
        Stopped { unforwarded, failed }
    }
}

struct Opened {
    config: Config,
    shared: Arc<Shared>,
    installer: Arc<Installer>,
    ledger: Ledger,
    opened: Vec<String>,
}

/// All that blocks for the disk.
fn open(config: Config, brokers: Option<Arc<Brokers>>) -> Result<Opened, AppError> {
    let dir = config.spool.dir.clone();
    std::fs::create_dir_all(&dir).map_err(|source| AppError::Dir { dir: dir.clone(), source })?;
    let metrics = Arc::new(Metrics::new());
    let producer_id = Uuid::new_v4();
    let share = config.spool.max_bytes / SERVICE_SHARE;
    let service = |name: &'static str, record_bytes_max| {
        let failed = move |source| AppError::Spool { name, source };
        // Four records is the least that a spool takes.
        let max_bytes = share.max(8 * record_bytes_max as u64);
        let spool =
            Spool::open(&dir.join(name), options(&config.spool, max_bytes, record_bytes_max)).map_err(failed)?;
        metrics.spool_recovered(name, spool.recovery());
        Ok::<Spool, AppError>(spool)
    };
    let letters = service(dead_letter::SPOOL, dead_letter::RECORD_BYTES_MAX)?;
    let accounts = service(ledger::SPOOL, ledger::RECORD_BYTES_MAX)?;
    let dead_letters = DeadLetters::new(letters.clone(), producer_id.into_bytes(), metrics.clone())
        .map_err(|source| AppError::Spool { name: dead_letter::SPOOL, source })?;
    let ledger = Ledger::open(&dir, accounts.clone(), producer_id, metrics.clone())
        .map_err(|error: LedgerError| AppError::Ledger(error.to_string()))?;
    let shared = Arc::new(Shared {
        models: Models::default(),
        dead_letters,
        book: ledger.book(),
        metrics,
        replay: config.replay,
        limits: config.limits.clone(),
        bodies: Semaphore::new(usize::try_from(config.limits.bodies_bytes / BODY_PIECE).unwrap_or(usize::MAX >> 3)),
        senders: Arc::default(),
        work: WorkPool::default(),
        spools: std::sync::RwLock::default(),
        brokers,
        is_ready: AtomicBool::new(false),
    });
    shared.add_spool(dead_letter::SPOOL, letters);
    shared.add_spool(ledger::SPOOL, accounts);
    let installer = Arc::new(Installer::new(shared.clone(), &config, producer_id));
    let opened = installer.install().map_err(AppError::Install)?;
    Ok(Opened { config, shared, installer, ledger, opened })
}

fn retention(spool: &config::Spool) -> Retention {
    Retention {
        drop_oldest: spool.when_full == WhenFull::DropOldest,
        max_age: (spool.max_age_s > 0).then(|| Duration::from_secs(spool.max_age_s)),
    }
}

/// Gives the names of the spools that are new.
async fn install_again(installer: &Arc<Installer>, shared: &Shared) -> Vec<String> {
    let again = installer.clone();
    let opened = match tokio::task::spawn_blocking(move || again.install()).await {
        Ok(Ok(opened)) => opened,
        Ok(Err(error)) => {
            tracing::error!(error, "contracts not read again; those in force stay");
            Vec::new()
        }
        Err(error) => {
            tracing::error!(%error, "contracts not read again; those in force stay");
            Vec::new()
        }
    };
    if installer.was_sound() {
        shared.is_ready.store(true, Ordering::Relaxed);
    }
    opened
}

fn close(spools: &[(String, Spool)]) {
    for (name, spool) in spools {
        if let Err(error) = spool.close() {
            tracing::error!(spool = name, %error, "spool closed with records that are not on the disk");
        }
    }
}

async fn bind(address: SocketAddr) -> Result<TcpListener, AppError> {
    TcpListener::bind(address).await.map_err(|source| AppError::Bind { address: address.to_string(), source })
}

/// Binds a Unix socket; one that a dead process left behind is taken away first.
async fn bind_uds(path: &Path) -> Result<UnixListener, AppError> {
    let failed = |source| AppError::Bind { address: path.display().to_string(), source };
    if path.exists() {
        if UnixStream::connect(path).await.is_ok() {
            return Err(failed(io::ErrorKind::AddrInUse.into()));
        }
        std::fs::remove_file(path).map_err(failed)?;
    }
    UnixListener::bind(path).map_err(failed)
}
