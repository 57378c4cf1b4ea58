//! The port that model servers talk to, on TCP and on a Unix domain socket.
//!
//! | path | body | answer |
//! |---|---|---|
//! | `POST /v1/models/{model}/predictions` | one object, NDJSON, or `{"shared", "items"}` | 202 `{"prediction_id"}`, 202 `{"prediction_ids"}`, 207 |
//! | `POST /v1/models/{model}/outcomes` | one object, or NDJSON | 202 `{"event_id"}`, 202 `{"event_ids"}`, 207 |
//! | `POST /v1/models/{model}/source-progress` | one object | 202; see [`source_progress`] |
//! | `POST /v1/models/{model}/time` | none | 202; in a replay only |
//! | `GET /openapi.json` | | the same, by the contracts in force |
//!
//! A 202 comes when the record is accepted: in the spool, on what `spool.accepted` says. No request waits for the
//! network. Refused bodies go to the dead letters. In a replay every POST carries `Flywheel-Time`; see [`time`].

mod batch;
mod body;
mod error;
mod intake;
mod openapi;
mod outcomes;
mod predictions;
mod source_progress;
mod time;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE, EXPECT};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, post_service};
use flywheel_schemas::wire::{Kind, TRACEPARENT};
use flywheel_spool::SchemaKey;
use tower::{Service, service_fn};

use crate::metrics::Route;
use crate::models::{Model, Version};
use crate::shared::{Shared, Work};
use crate::transcode::{Fault, Id, Reason, Receipt};
use body::Read;
use error::Problem;
use intake::{Call, Refusal};
use outcomes::Outcomes;
use predictions::Predictions;
pub(crate) use time::now_ms;

/// The routes of both sockets.
pub(crate) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/v1/models/{model}/predictions", post_service(intake::<Predictions>(&shared)))
        .route("/v1/models/{model}/outcomes", post_service(intake::<Outcomes>(&shared)))
        .route("/v1/models/{model}/source-progress", post(source_progress::post))
        .route("/v1/models/{model}/time", post(time::post))
        .route("/openapi.json", get(openapi::get))
        .fallback(async |State(shared), request| elsewhere(shared, request, Problem::not_found()).await)
        .method_not_allowed_fallback(async |State(shared), request| {
            elsewhere(shared, request, Problem::method_not_allowed()).await
        })
        .with_state(shared)
}

async fn elsewhere(shared: Arc<Shared>, request: Request, problem: Problem) -> Problem {
    body::discard(request.into_body(), Duration::from_millis(shared.limits.body_timeout_ms), problem).await
}

/// What a route takes in: predictions or outcomes.
pub(crate) trait Intake: 'static {
    const KIND: Kind;
    const ROUTE: Route;
    /// The key of the answer that holds the id of a row, and of that which holds the ids of a batch.
    const ID: &'static str;
    const IDS: &'static str;

    fn schema(version: &Version) -> SchemaKey;

    /// Writes the datum of `body` to `work.datum`.
    fn transcode(version: &Version, work: &mut Work, body: &[u8], receipt: &Receipt<'_>) -> Result<Row, Vec<Fault>>;

    /// Whether a body of JSON is of the candidates of one request.
    fn has_items(_body: &[u8]) -> bool {
        false
    }
}

/// A row that keeps the contract.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    pub(crate) prediction_id: Id,
    /// The id that the client gets back.
    pub(crate) id: Id,
    pub(crate) sampled_out: bool,
}

fn intake<I: Intake>(
    shared: &Arc<Shared>,
) -> impl Service<Request, Response = Response, Error = Infallible, Future: Send> + Clone + Send + Sync + 'static {
    let shared = shared.clone();
    service_fn(move |request| accept::<I>(shared.clone(), request))
}

/// The part of a request that is there before its body, as far as it is needed afterwards.
struct Opening {
    started: Instant,
    model: Arc<Model>,
    is_batch: bool,
    now_ms: i64,
    traceparent: Option<HeaderValue>,
    asks_first: bool,
}

impl Opening {
    fn of(shared: &Shared, head: &Parts) -> Result<Opening, Problem> {
        Ok(Opening {
            started: Instant::now(),
            model: shared.models.get(model_of(head.uri.path())).ok_or_else(Problem::unknown_model)?,
            is_batch: is_batch(&head.headers)?,
            now_ms: time::receipt(shared.replay, &head.headers)?,
            traceparent: traceparent(&head.headers),
            asks_first: head.headers.contains_key(EXPECT),
        })
    }
}

/// A service and no handler of axum, which would hold the request three times in the future that it allocates for each.
fn accept<I: Intake>(
    shared: Arc<Shared>,
    request: Request,
) -> impl Future<Output = Result<Response, Infallible>> + Send + 'static {
    let (head, body) = request.into_parts();
    let opening = Opening::of(&shared, &head);
    drop(head);
    async move {
        let response = take::<I>(&shared, opening, body).await.unwrap_or_else(Problem::into_response);
        shared.metrics.answered(I::ROUTE, response.status());
        Ok(response)
    }
}

async fn take<I: Intake>(shared: &Shared, opening: Result<Opening, Problem>, body: Body) -> Result<Response, Problem> {
    let limits = &shared.limits;
    let within = Duration::from_millis(limits.body_timeout_ms);
    // Held to the end: it bounds the bodies in memory.
    let room = body::room(shared, &body).ok_or_else(Problem::busy);
    let (_room, opening) = match room.and_then(|room| Ok((room, opening?))) {
        Ok(beginning) => beginning,
        Err(problem) => return Err(Box::pin(body::discard(body, within, problem)).await),
    };
    let Opening { started, model, is_batch, now_ms, traceparent, asks_first } = opening;
    let traceparent = traceparent.as_ref().map(HeaderValue::as_bytes);
    let call = Call { shared, model: &model, now_ms, traceparent, trace_id: traceparent.and_then(trace_id) };
    let body = match body::read(asks_first, body, limits.body_bytes, within, &shared.senders).await? {
        Read::Whole(body) => body,
        Read::TooLarge { head, bytes, ended } => {
            let detail = format!("a body has at most {} bytes", limits.body_bytes);
            call.refuse(I::KIND, &[Fault { pointer: String::new(), reason: Reason::TooLarge, detail }], &head, bytes);
            let problem = body::too_large(limits.body_bytes);
            return Err(if ended { problem } else { problem.closing() });
        }
    };
    // Boxed, as all that not every request needs, so that the future of one row stays small: it is allocated each time.
    let response = if is_batch {
        Box::pin(batch::take::<I>(&call, &body)).await?
    } else if I::has_items(&body) {
        Box::pin(batch::take_candidates(&call, &body)).await?
    } else {
        one::<I>(&call, &body).await?
    };
    model.lane(I::KIND).seconds.observe(started.elapsed().as_secs_f64());
    Ok(response)
}

/// A body that is one row.
async fn one<I: Intake>(call: &Call<'_>, body: &[u8]) -> Result<Response, Problem> {
    let appended = call.shared.work.with(|work| {
        let mut entry = call.enter()?;
        Ok(call.append::<I>(&call.model.version(), &mut entry, work, body))
    })?;
    let settled = match appended {
        Ok(row) => match row.ticket {
            Some(ticket) => ticket.settled(call.model.lane(I::KIND)).await.map(|()| row.id).map_err(Refusal::Append),
            None => Ok(row.id),
        },
        Err(refusal) => Err(refusal),
    };
    match settled {
        Ok(id) => {
            let mut answer = Vec::with_capacity(I::ID.len() + id.len() + 8);
            answer.extend_from_slice(b"{\"");
            answer.extend_from_slice(I::ID.as_bytes());
            answer.extend_from_slice(b"\":");
            put_text(&mut answer, &id);
            answer.push(b'}');
            Ok(json(StatusCode::ACCEPTED, answer))
        }
        Err(Refusal::Faults(faults)) => {
            call.refuse(I::KIND, &faults, body, body.len());
            Err(Problem::refused(faults))
        }
        Err(Refusal::Append(error)) => {
            call.turn_away(I::KIND, error);
            Err(Problem::append(error))
        }
    }
}

fn json(status: StatusCode, body: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Appends `text` as a JSON string.
fn put_text(out: &mut Vec<u8>, text: &str) {
    // Writing to memory does not fail.
    let _ = serde_json::to_writer(out, text);
}

/// The third segment of `/v1/models/{model}/…`; a model's name needs no percent-encoding, so one that has it is unknown.
fn model_of(path: &str) -> &str {
    path.split('/').nth(3).unwrap_or_default()
}

/// Whether the body is NDJSON rather than JSON.
fn is_batch(headers: &HeaderMap) -> Result<bool, Problem> {
    if let Some(encoding) = headers.get(CONTENT_ENCODING).filter(|encoding| *encoding != "identity") {
        let detail = format!("Content-Encoding {encoding:?} is not supported: send the body as it is");
        return Err(Problem::unsupported_media_type(detail));
    }
    let given = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = given.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") {
        Ok(false)
    } else if essence.eq_ignore_ascii_case("application/x-ndjson") {
        Ok(true)
    } else {
        Err(Problem::unsupported_media_type("Content-Type must be application/json or application/x-ndjson"))
    }
}

/// The header as it came, where it is one (W3C trace context, version 00 takes 55 bytes; later ones may be longer).
fn traceparent(headers: &HeaderMap) -> Option<HeaderValue> {
    let value = headers.get(TRACEPARENT)?;
    let is_sound = (55..=128).contains(&value.len()) && value.as_bytes().iter().all(|byte| byte.is_ascii_graphic());
    is_sound.then(|| value.clone())
}

fn trace_id(traceparent: &[u8]) -> Option<&str> {
    let id = traceparent.get(3..35).filter(|_| traceparent[2] == b'-' && traceparent[35] == b'-')?;
    let is_sound =
        id.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) && id.iter().any(|byte| *byte != b'0');
    str::from_utf8(id).ok().filter(|_| is_sound)
}
