//! HTTP/1.1 to the sidecar over kept connections, as a model server would hold them.
//!
//! A call that got no answer is repeated, the same body under the same ids and the same time, until there is one: that
//! is all a client has to do for its rows to be there exactly once. So is a call that was answered with "not now"
//! (503). Any other answer than success ends the demonstration, since it means that the two disagree.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, StatusCode};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use crate::{Error, MODEL};

/// An answer takes a millisecond; a sidecar that gives none for this long is not there.
const ANSWER: Duration = Duration::from_secs(10);
/// Between two repeats of a call, doubled up to the second one: a restarting sidecar is back within a second or two.
const PAUSE: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(500));
/// Kept connections; the busiest minute has some thirty events.
const CONNECTIONS: usize = 32;

pub struct Client {
    pool: Pool<HttpConnector, Full<Bytes>>,
    base: String,
    repeats: AtomicU64,
    put_off: AtomicU64,
}

/// What is posted.
#[derive(Debug, Clone, Copy)]
pub enum Route {
    Predictions,
    Outcomes,
    Time,
}

impl Route {
    fn path(self) -> &'static str {
        match self {
            Route::Predictions => "predictions",
            Route::Outcomes => "outcomes",
            Route::Time => "time",
        }
    }
}

impl Client {
    /// `base` is `http://host:port`.
    pub fn new(base: &str) -> Client {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let pool = Pool::builder(TokioExecutor::new()).pool_max_idle_per_host(CONNECTIONS).build(connector);
        Client {
            pool,
            base: format!("{base}/v1/models/{MODEL}"),
            repeats: AtomicU64::new(0),
            put_off: AtomicU64::new(0),
        }
    }

    /// Posts until it is answered. `time_ms` is the replay's instant.
    ///
    /// # Errors
    /// An answer that is neither success nor "not now".
    pub async fn post(&self, route: Route, time_ms: i64, body: Bytes) -> Result<(), Error> {
        let mut pause = PAUSE.0;
        loop {
            match tokio::time::timeout(ANSWER, self.call(route, time_ms, body.clone())).await {
                Ok(Ok((StatusCode::SERVICE_UNAVAILABLE, _))) => {
                    self.put_off.fetch_add(1, Ordering::Relaxed);
                }
                Ok(Ok((status, _))) if status.is_success() => return Ok(()),
                Ok(Ok((status, text))) => return Err(refusal(route, status, &text)),
                Ok(Err(_)) | Err(_) => {
                    self.repeats.fetch_add(1, Ordering::Relaxed);
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE.1);
        }
    }

    async fn call(&self, route: Route, time_ms: i64, body: Bytes) -> Result<(StatusCode, Bytes), Error> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("{}/{}", self.base, route.path()))
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .header("Flywheel-Time", time_ms)
            .body(Full::new(body))?;
        let answer = self.pool.request(request).await?;
        let status = answer.status();
        Ok((status, answer.into_body().collect().await?.to_bytes()))
    }

    /// Calls that were repeated because they got no answer.
    pub fn repeats(&self) -> u64 {
        self.repeats.load(Ordering::Relaxed)
    }

    /// Calls that were answered with 503 and repeated.
    pub fn put_off(&self) -> u64 {
        self.put_off.load(Ordering::Relaxed)
    }
}

fn refusal(route: Route, status: StatusCode, text: &[u8]) -> Error {
    let text = String::from_utf8_lossy(text);
    let hint = match status {
        StatusCode::CONFLICT => "; the data directory is ahead of the replay: start afresh with --fresh",
        _ => "",
    };
    format!("POST …/{}: {status}: {}{hint}", route.path(), text.trim()).into()
}
