//! `POST /v1/models/{model}/source-progress`: a source of labels says how far it is complete.
//!
//! ```json
//! {"source": "returns", "complete_through": "2026-03-01T10:00:00Z"}
//! ```
//!
//! It has sent every outcome that happened before that instant, through this sidecar and before this request. The record
//! goes to every partition of the outcomes topic, after the outcomes that were accepted before it. The source must be
//! named by the gate of a label of the contract; see [`flywheel_schemas::gate`]. The answer is 202, with `{}`.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::EXPECT;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use flywheel_schemas::contract::{Contract, Gate};
use flywheel_schemas::gate::GateRecord;
use serde::Deserialize;

use super::body::{self, Read};
use super::error::Problem;
use super::intake::Call;
use super::{is_batch, json, model_of, time};
use crate::metrics::Route;
use crate::shared::Shared;
use crate::transcode::time::micros;

/// Two short texts; more is something else.
const BODY_BYTES_MAX: usize = 1024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Report {
    source: String,
    complete_through: String,
}

pub(super) async fn post(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let response = take(&shared, &head, body).await.unwrap_or_else(IntoResponse::into_response);
    shared.metrics.answered(Route::SourceProgress, response.status());
    response
}

async fn take(shared: &Shared, head: &Parts, body: Body) -> Result<Response, Problem> {
    let within = Duration::from_millis(shared.limits.body_timeout_ms);
    let _room = body::room(shared, &body).ok_or_else(Problem::busy)?;
    let asks_first = head.headers.contains_key(EXPECT);
    let body = match body::read(asks_first, body, BODY_BYTES_MAX, within, &shared.senders).await? {
        Read::Whole(body) => body,
        Read::TooLarge { .. } => return Err(body::too_large(BODY_BYTES_MAX).closing()),
    };
    let model = shared.models.get(model_of(head.uri.path())).ok_or_else(Problem::unknown_model)?;
    if is_batch(&head.headers)? {
        return Err(Problem::unsupported_media_type("Content-Type must be application/json"));
    }
    let record = read(&body, model.version().plan.contract())?;
    let now_ms = time::receipt(shared.replay, &head.headers)?;
    let call = Call { shared, model: &model, now_ms, traceparent: None, trace_id: None };
    let pending = call.enter()?.append_gate(&record).map_err(Problem::append)?;
    pending.await.map_err(Problem::append)?;
    Ok(json(StatusCode::ACCEPTED, b"{}".to_vec()))
}

fn read(body: &[u8], contract: &Contract) -> Result<GateRecord, Problem> {
    let Report { source, complete_through } = serde_json::from_slice(body).map_err(|error| {
        Problem::bad_request(format!("the body must be {{\"source\", \"complete_through\"}}, both texts: {error}"))
    })?;
    let gates = contract.labels.iter().filter_map(|label| label.gate.as_ref());
    let mut sources = gates.filter_map(|gate| match gate {
        Gate::Progress { source } => Some(source),
        Gate::Rate { .. } => None,
    });
    if !sources.any(|named| *named == source) {
        return Err(Problem::bad_request(format!("no gate of the contract names the source {source:?}")));
    }
    let Some(complete_us) = micros(&complete_through) else {
        return Err(Problem::bad_request("complete_through must be an RFC 3339 instant"));
    };
    Ok(GateRecord::Progress { source, complete_through_ms: complete_us.div_euclid(1000) })
}
