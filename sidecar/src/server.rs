//! Accepts connections and serves them until told to stop. HTTP/1.1 with keep-alive, on whichever kind of socket.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::serve::Listener;
use futures::FutureExt;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use crate::crowd::{Crowd, PATIENCE};

/// The most that is read ahead of a connection, and the longest head of a request. Times the connections it bounds the
/// memory for what clients send before anybody looks at it.
const READ_BYTES: usize = 64 << 10;

/// Bounds of a server.
#[derive(Clone)]
pub(crate) struct Bounds {
    /// Connections at once, shared by the sockets of the API; more wait in the backlog of the listener.
    pub(crate) connections: Arc<Semaphore>,
    /// The clients on them.
    pub(crate) connected: Arc<Crowd>,
    /// Those of them whose bodies are on their way.
    pub(crate) senders: Arc<Crowd>,
    pub(crate) header_timeout: Duration,
}

/// Serves until `stop` says so; then takes no more connections, lets each finish the request it is at, and returns.
/// Dropping the future ends all connections at once.
pub(crate) async fn serve<L: Listener>(
    mut listener: L,
    router: Router,
    bounds: Bounds,
    mut stop: watch::Receiver<bool>,
) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = async {
            let permit = bounds.admit().await;
            let (io, _) = listener.accept().await;
            (io, permit)
        };
        tokio::select! {
            biased;
            () = async { drop(stop.wait_for(|stop| *stop).await) } => break,
            (io, permit) = accepted => {
                connections.spawn(converse(io, router.clone(), bounds.clone(), stop.clone(), permit));
            }
            // Takes finished ones out, so that the set does not grow.
            Some(_) = connections.join_next() => {}
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

impl Bounds {
    /// Waits for room for one more connection. Those that do nothing with theirs give way.
    async fn admit(&self) -> Option<OwnedSemaphorePermit> {
        loop {
            let permit = self.connections.clone().acquire_owned();
            let mut permit = std::pin::pin!(permit);
            if let Some(permit) = permit.as_mut().now_or_never() {
                return permit.ok();
            }
            self.connected.press();
            self.senders.press();
            if let Ok(permit) = tokio::time::timeout(PATIENCE / 2, permit).await {
                return permit.ok();
            }
        }
    }
}

/// Requests of one connection.
#[derive(Default)]
struct Requests {
    begun: AtomicU64,
    ended: AtomicU64,
}

/// Serves one connection. One on which no request begins or is at work for a whole `header_timeout` is closed, whether it
/// is idle or its head comes too slowly; looked at once per that time, since a timer for each head would cost each request
/// some percent. While others wait for a connection, [`PATIENCE`] takes the place of that time.
async fn converse<Io: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    io: Io,
    router: Router,
    bounds: Bounds,
    mut stop: watch::Receiver<bool>,
    _permit: Option<OwnedSemaphorePermit>,
) {
    let requests = Arc::new(Requests::default());
    let counted = requests.clone();
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |request| {
        counted.begun.fetch_add(1, Ordering::Relaxed);
        let counted = counted.clone();
        router.call(request).inspect(move |_| {
            counted.ended.fetch_add(1, Ordering::Relaxed);
        })
    });
    let connection = http1::Builder::new()
        .header_read_timeout(None)
        // Answers are short: copying head and body together costs less than handing the kernel two pieces.
        .writev(false)
        .max_buf_size(READ_BYTES)
        .serve_connection(TokioIo::new(io), service);
    let mut connection = std::pin::pin!(connection);
    let mut stopped = std::pin::pin!(async { drop(stop.wait_for(|stop| *stop).await) }.fuse());
    let Bounds { header_timeout, connected, .. } = bounds;
    let mut look = tokio::time::interval_at(Instant::now() + header_timeout, header_timeout);
    // After a pause of the whole process two looks shall not come at once.
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut seen = 0;
    // How many requests had begun when others first had to wait, and when that was.
    let mut pressed = (u64::MAX, Instant::now());
    let ended = loop {
        tokio::select! {
            biased;
            ended = connection.as_mut() => break ended,
            () = &mut stopped => connection.as_mut().graceful_shutdown(),
            _ = look.tick() => {
                let begun = requests.begun.load(Ordering::Relaxed);
                if begun == seen && begun == requests.ended.load(Ordering::Relaxed) {
                    tracing::debug!("connection closed: no request for a whole limits.header_timeout_ms");
                    return;
                }
                seen = begun;
            }
            () = connected.pressed() => {
                let begun = requests.begun.load(Ordering::Relaxed);
                if begun != pressed.0 || begun != requests.ended.load(Ordering::Relaxed) {
                    pressed = (begun, Instant::now());
                } else if pressed.1.elapsed() >= PATIENCE {
                    tracing::debug!("connection closed: it was idle, and others waited for one");
                    return;
                }
            }
        }
    };
    if let Err(error) = ended {
        // The client's doing: it went away or was too slow.
        tracing::debug!(%error, "connection ended early");
    }
}
