//! Proxies that stand before a server and make trouble: [`Http`] knows requests, and can let one take effect and lose
//! its answer; [`Tcp`] knows connections alone. Each runs on a thread of its own until it is dropped.
//!
//! A request that has come in whole is seen through, even where its author is gone by then: so a network delivers what
//! a dead process has sent.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONNECTION, TRANSFER_ENCODING};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;

pub use hyper::Method;

use crate::servers::ServerError;

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The connection ends; the server never sees it.
    CutBefore,
    /// It takes effect, and the connection ends in place of the answer.
    CutAfter,
    /// It is answered with this status; the server never sees it.
    Refused(u16),
    /// It takes effect, and is answered with this status.
    AnsweredAfter(u16),
    /// It reaches the server so much later.
    Late(Duration),
    /// It takes effect, and is answered so much later.
    Slow(Duration),
}

/// Before an HTTP/1.1 server.
pub struct Http {
    address: SocketAddr,
    trouble: Arc<Trouble>,
    runtime: Option<Runtime>,
}

#[derive(Default)]
struct Trouble {
    /// For the next request of the method each.
    next: Mutex<VecDeque<(Method, Fault)>>,
    /// For every other request until the instant.
    every: Mutex<Option<(Fault, Instant)>>,
    /// Of those that were for the next request.
    met: AtomicUsize,
}

type Forward = Client<HttpConnector, Full<Bytes>>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn failed(error: impl std::fmt::Display) -> ServerError {
    ServerError::Start(format!("proxy: {error}"))
}

/// A runtime of its own with a listener on a free port, or on this one.
fn listen(port: u16) -> Result<(Runtime, TcpListener, SocketAddr), ServerError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().map_err(failed)?;
    let listener = std::net::TcpListener::bind(("127.0.0.1", port)).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let entered = runtime.enter();
    let listener = TcpListener::from_std(listener).map_err(failed)?;
    drop(entered);
    Ok((runtime, listener, address))
}

impl Http {
    /// Before the server of this URL, `http://host:port`.
    pub fn before(url: &str) -> Result<Http, ServerError> {
        let (runtime, listener, address) = listen(0)?;
        let trouble = Arc::new(Trouble::default());
        let server: Arc<str> = url.trim_start_matches("http://").trim_end_matches('/').into();
        let (shared, client) = (Arc::clone(&trouble), forward());
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (trouble, client, server) = (Arc::clone(&shared), client.clone(), Arc::clone(&server));
                let service = service_fn(move |request| {
                    let answer = answer(Arc::clone(&trouble), client.clone(), Arc::clone(&server), request);
                    // In a task of its own, so that it outlives the connection.
                    async move { tokio::spawn(answer).await.unwrap_or_else(|error| Err(error.to_string().into())) }
                });
                let connection = hyper::server::conn::http1::Builder::new();
                tokio::spawn(connection.serve_connection(TokioIo::new(stream), service));
            }
        });
        Ok(Http { address, trouble, runtime: Some(runtime) })
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The next request of that method that has no fault yet meets this one.
    pub fn next(&self, method: Method, fault: Fault) {
        lock(&self.trouble.next).push_back((method, fault));
    }

    /// Every request meets it, for a while.
    pub fn every(&self, fault: Fault, time: Duration) {
        *lock(&self.trouble.every) = Some((fault, Instant::now() + time));
    }

    /// How many faults that were for the next request have been met so far.
    pub fn met(&self) -> usize {
        self.trouble.met.load(Ordering::Relaxed)
    }

    /// Takes back the faults that no request has met.
    pub fn calm(&self) {
        lock(&self.trouble.next).clear();
        *lock(&self.trouble.every) = None;
    }
}

impl Trouble {
    fn fault(&self, method: &Method) -> Option<Fault> {
        let mut next = lock(&self.next);
        let place = next.iter().position(|(of, _)| of == method);
        let fault = place.and_then(|place| next.remove(place)).map(|(_, fault)| fault);
        self.met.fetch_add(usize::from(fault.is_some()), Ordering::Relaxed);
        let every = *lock(&self.every);
        fault.or(every.filter(|(_, until)| Instant::now() < *until).map(|(fault, _)| fault))
    }
}

fn forward() -> Forward {
    // A connection each: one that is kept would break with the server, which is no fault of the joiner's making.
    Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build_http()
}

type Broken = Box<dyn std::error::Error + Send + Sync>;

/// An error ends the connection without an answer.
async fn answer(
    trouble: Arc<Trouble>,
    client: Forward,
    server: Arc<str>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Broken> {
    let (mut parts, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let fault = trouble.fault(&parts.method);
    match fault {
        Some(Fault::CutBefore) => return Err("cut before the request".into()),
        Some(Fault::Refused(status)) => return refusal(status),
        Some(Fault::Late(time)) => tokio::time::sleep(time).await,
        _ => {}
    }
    let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
    parts.uri = format!("http://{server}{target}").parse()?;
    // The body is whole on either side.
    for header in [CONNECTION, TRANSFER_ENCODING] {
        parts.headers.remove(header);
    }
    let answer = client.request(Request::from_parts(parts, Full::new(body))).await?;
    let (mut parts, body) = answer.into_parts();
    let body = body.collect().await?.to_bytes();
    for header in [CONNECTION, TRANSFER_ENCODING] {
        parts.headers.remove(header);
    }
    match fault {
        Some(Fault::CutAfter) => return Err("cut after the request".into()),
        Some(Fault::AnsweredAfter(status)) => return refusal(status),
        Some(Fault::Slow(time)) => tokio::time::sleep(time).await,
        _ => {}
    }
    Ok(Response::from_parts(parts, Full::new(body)))
}

fn refusal(status: u16) -> Result<Response<Full<Bytes>>, Broken> {
    Ok(Response::builder().status(status).body(Full::new(Bytes::from_static(b"no\n")))?)
}

impl Drop for Http {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Before a server of any kind.
pub struct Tcp {
    address: SocketAddr,
    /// A new number ends the connections.
    cuts: watch::Sender<usize>,
    stalled: Arc<Mutex<Option<Instant>>>,
    runtime: Option<Runtime>,
}

impl Tcp {
    /// Listens on `port` and passes on to `server`, `host:port`, which may be there later.
    pub fn before(server: &str, port: u16) -> Result<Tcp, ServerError> {
        let (runtime, listener, address) = listen(port)?;
        let (cuts, cut) = watch::channel(0);
        let stalled = Arc::new(Mutex::new(None));
        let (server, stall): (Arc<str>, _) = (server.into(), Arc::clone(&stalled));
        runtime.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (server, mut cut, stall) = (Arc::clone(&server), cut.clone(), Arc::clone(&stall));
                tokio::spawn(async move {
                    cut.mark_unchanged();
                    let Ok(server) = TcpStream::connect(&*server).await else { return };
                    let (mut from_client, mut to_client) = client.into_split();
                    let (mut from_server, mut to_server) = server.into_split();
                    // What ends first, ends all.
                    tokio::select! {
                        _ = pass(&mut from_client, &mut to_server, &stall) => {}
                        _ = pass(&mut from_server, &mut to_client, &stall) => {}
                        _ = cut.changed() => {}
                    }
                });
            }
        });
        Ok(Tcp { address, cuts, stalled, runtime: Some(runtime) })
    }

    /// `host:port`.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Ends every connection that is there.
    pub fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Nothing passes for so long; the connections stay.
    pub fn stall(&self, time: Duration) {
        *lock(&self.stalled) = Some(Instant::now() + time);
    }
}

async fn pass(
    from: &mut (impl tokio::io::AsyncRead + Unpin),
    to: &mut (impl tokio::io::AsyncWrite + Unpin),
    stalled: &Mutex<Option<Instant>>,
) -> std::io::Result<Infallible> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let until = *lock(stalled);
        if let Some(until) = until {
            tokio::time::sleep_until(until.into()).await;
        }
        to.write_all(&buffer[..read]).await?;
    }
}

impl Drop for Tcp {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests;
