//! The port that model servers talk to, on TCP and on a Unix domain socket.
//!
//! | path | body | answer |
//! |---|---|---|
//! | `POST /v1/models/{model}/predictions` | one object, or NDJSON | 202 `{"prediction_id"}`, 202 `{"prediction_ids"}`, 207 |
//! | `POST /v1/models/{model}/outcomes` | one object, or NDJSON | 202 `{"event_id"}`, 202 `{"event_ids"}`, 207 |
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
mod time;

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use flywheel_schemas::wire::{Kind, TRACEPARENT};
use flywheel_spool::SchemaKey;

use crate::metrics::Route;
use crate::models::Version;
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
        .route("/v1/models/{model}/predictions", post(accept::<Predictions>))
        .route("/v1/models/{model}/outcomes", post(accept::<Outcomes>))
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
}

/// A row that keeps the contract.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    pub(crate) prediction_id: Id,
    /// The id that the client gets back.
    pub(crate) id: Id,
    pub(crate) sampled_out: bool,
}

async fn accept<I: Intake>(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let response = take::<I>(&shared, request).await.unwrap_or_else(Problem::into_response);
    shared.metrics.answered(I::ROUTE, response.status());
    response
}

async fn take<I: Intake>(shared: &Shared, request: Request) -> Result<Response, Problem> {
    let started = Instant::now();
    let (head, body) = request.into_parts();
    let limits = &shared.limits;
    let within = Duration::from_millis(limits.body_timeout_ms);
    // Held to the end: it bounds the bodies in memory.
    let permit = shared.requests.try_acquire().map_err(|_| Problem::busy());
    let beginning = permit.and_then(|permit| {
        let model = shared.models.get(model_of(head.uri.path())).ok_or_else(Problem::unknown_model)?;
        let is_batch = is_batch(&head.headers)?;
        let now_ms = time::receipt(shared.replay, &head.headers)?;
        Ok((permit, model, is_batch, now_ms))
    });
    let (_permit, model, is_batch, now_ms) = match beginning {
        Ok(beginning) => beginning,
        Err(problem) => return Err(body::discard(body, within, problem).await),
    };
    let traceparent = traceparent(&head.headers);
    let call = Call { shared, model: &model, now_ms, traceparent, trace_id: traceparent.and_then(trace_id) };
    let body = match body::read(&head.headers, body, limits.body_bytes, within).await? {
        Read::Whole(body) => body,
        Read::TooLarge { head, bytes, ended } => {
            let detail = format!("a body has at most {} bytes", limits.body_bytes);
            call.refuse(I::KIND, &[Fault { pointer: String::new(), reason: Reason::TooLarge, detail }], &head, bytes);
            let problem = body::too_large(limits.body_bytes);
            return Err(if ended { problem } else { problem.closing() });
        }
    };
    let response = if is_batch { batch::take::<I>(&call, &body).await? } else { one::<I>(&call, &body).await? };
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
fn traceparent(headers: &HeaderMap) -> Option<&[u8]> {
    let text = headers.get(TRACEPARENT)?.as_bytes();
    let is_sound = (55..=128).contains(&text.len()) && text.iter().all(|byte| byte.is_ascii_graphic());
    is_sound.then_some(text)
}

fn trace_id(traceparent: &[u8]) -> Option<&str> {
    let id = traceparent.get(3..35).filter(|_| traceparent[2] == b'-' && traceparent[35] == b'-')?;
    let is_sound =
        id.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) && id.iter().any(|byte| *byte != b'0');
    str::from_utf8(id).ok().filter(|_| is_sound)
}
