//! Accepts connections and serves them until told to stop. HTTP/1.1 with keep-alive, on whichever kind of socket.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::serve::Listener;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

/// Bounds of a server.
#[derive(Clone)]
pub(crate) struct Bounds {
    /// Connections at once, shared by the sockets of the API; more wait in the backlog of the listener.
    pub(crate) connections: Arc<Semaphore>,
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
            let permit = bounds.connections.clone().acquire_owned().await.ok();
            let (io, _) = listener.accept().await;
            (io, permit)
        };
        tokio::select! {
            biased;
            () = async { drop(stop.wait_for(|stop| *stop).await) } => break,
            (io, permit) = accepted => {
                connections.spawn(converse(io, router.clone(), bounds.header_timeout, stop.clone(), permit));
            }
            // Takes finished ones out, so that the set does not grow.
            Some(_) = connections.join_next() => {}
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// Serves one connection.
async fn converse<Io: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    io: Io,
    router: Router,
    header_timeout: Duration,
    mut stop: watch::Receiver<bool>,
    _permit: Option<OwnedSemaphorePermit>,
) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .serve_connection(TokioIo::new(io), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = async { drop(stop.wait_for(|stop| *stop).await) } => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        // The client's doing: it went away or was too slow.
        tracing::debug!(%error, "connection ended early");
    }
}
