//! The time of a request: its receipt, or in a replay what it says.
//!
//! In a replay every POST carries `Flywheel-Time`, as RFC 3339 text or as integer milliseconds since the epoch. It is
//! receipt, `op_time` default and append time of what the request brings. A time older than the model's last one is
//! refused with 409; it may be equal. Each multiple of 5 minutes that time passes is a record of its own, in the spool
//! before the rows, so the order of the spool is the order of time. `POST /v1/models/{model}/time` moves it without a
//! row. Outside of a replay the header is refused: a client that sends it believes to replay, and does not.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use flywheel_schemas::id::TIME_MS_MAX;

use super::body;
use super::error::Problem;
use super::intake::Call;
use super::{json, model_of};
use crate::metrics::Route;
use crate::shared::Shared;
use crate::transcode::time::micros;

/// The header.
const FLYWHEEL_TIME: &str = "flywheel-time";

/// Milliseconds since the epoch by the clock of this machine.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(TIME_MS_MAX)
}

/// When the request was received, in milliseconds since the epoch.
pub(crate) fn receipt(replay: bool, headers: &HeaderMap) -> Result<i64, Problem> {
    match (replay, headers.get(FLYWHEEL_TIME)) {
        (false, None) => Ok(now_ms()),
        (false, Some(_)) => {
            Err(Problem::bad_request("Flywheel-Time is for replays: take it away, or set `replay = true`"))
        }
        (true, None) => Err(Problem::bad_request("in a replay every POST carries Flywheel-Time")),
        (true, Some(text)) => text.to_str().ok().and_then(|text| parse(text.trim())).ok_or_else(|| {
            Problem::bad_request("Flywheel-Time must be RFC 3339, or integer milliseconds since the epoch")
        }),
    }
}

/// Cut to the millisecond, as append times are.
fn parse(text: &str) -> Option<i64> {
    let time_ms = text.parse().ok().or_else(|| micros(text).map(|time_us| time_us.div_euclid(1000)))?;
    (0..=TIME_MS_MAX).contains(&time_ms).then_some(time_ms)
}

/// `POST /v1/models/{model}/time`.
pub(crate) async fn post(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let within = Duration::from_millis(shared.limits.body_timeout_ms);
    let response = match pass(&shared, head.uri.path(), &head.headers).await {
        Ok(response) => response,
        Err(problem) => body::discard(body, within, problem).await.into_response(),
    };
    shared.metrics.answered(Route::Time, response.status());
    response
}

async fn pass(shared: &Shared, path: &str, headers: &HeaderMap) -> Result<Response, Problem> {
    let model = shared.models.get(model_of(path)).ok_or_else(Problem::unknown_model)?;
    if !shared.replay {
        return Err(Problem::bad_request("time moves by itself: this is no replay"));
    }
    let now_ms = receipt(true, headers)?;
    let call = Call { shared, model: &model, now_ms, traceparent: None, trace_id: None };
    let last = call.enter()?.pass().map_err(Problem::append)?;
    if let Some(pending) = last {
        pending.await.map_err(Problem::append)?;
    }
    Ok(json(StatusCode::ACCEPTED, b"{}".to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_both_forms() {
        assert_eq!(parse("1357034400123"), Some(1_357_034_400_123));
        assert_eq!(parse("2013-01-01T10:00:00.123Z"), Some(1_357_034_400_123));
        assert_eq!(parse("2013-01-01T05:00:00-05:00"), Some(1_357_034_400_000));
        for text in ["", "yesterday", "1.5", "-1", "2013-01-01", "99999999999999999"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
