//! What a client is told when something is wrong: RFC 9457 problem details, the only place that makes them.
//!
//! | status | type | when |
//! |---|---|---|
//! | 400 | `bad_request` | the body broke off, the `Flywheel-Time` header is missing, wrong or out of place |
//! | 404 | `unknown_model`, `not_found` | no contract of this name; no such path |
//! | 405 | `method_not_allowed` | |
//! | 408 | `too_slow` | the body did not come in time |
//! | 409 | `time_went_back` | replay: older than the last time of the model |
//! | 413 | `too_large` | body or batch beyond the limits |
//! | 415 | `unsupported_media_type` | neither JSON nor NDJSON, or compressed |
//! | 422 | `refused` | the body does not keep the contract; `errors` lists every fault |
//! | 503 | `unavailable` | spool full or failed, or too many requests at once; with `Retry-After` |

use axum::body::Body;
use axum::http::header::{CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use flywheel_spool::AppendError;
use serde::Serialize;

use crate::transcode::Fault;

/// How long a client should wait when the spool is full: the forwarder empties it within seconds once the log is back.
const RETRY_AFTER_SPOOL_S: u32 = 5;
/// How long a client should wait when there are too many requests at once.
const RETRY_AFTER_BUSY_S: u32 = 1;

/// One problem document.
#[derive(Debug, Serialize)]
pub(crate) struct Problem {
    #[serde(rename = "type")]
    kind: String,
    title: &'static str,
    status: u16,
    detail: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<Fault>,
    #[serde(skip)]
    retry_after_s: Option<u32>,
    /// The body was not read to its end, so the connection cannot be used again.
    #[serde(skip)]
    close: bool,
}

impl Problem {
    fn new(status: StatusCode, word: &str, title: &'static str, detail: impl Into<String>) -> Problem {
        Problem {
            kind: format!("urn:flywheel:problem:{word}"),
            title,
            status: status.as_u16(),
            detail: detail.into(),
            errors: Vec::new(),
            retry_after_s: None,
            close: false,
        }
    }

    pub(crate) fn bad_request(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, "bad_request", "The request is not right", detail)
    }

    pub(crate) fn not_found() -> Problem {
        let detail = "the paths are listed by GET /openapi.json";
        Problem::new(StatusCode::NOT_FOUND, "not_found", "There is nothing here", detail)
    }

    pub(crate) fn method_not_allowed() -> Problem {
        let detail = "the paths and their methods are listed by GET /openapi.json";
        Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "The path has another method", detail)
    }

    pub(crate) fn unknown_model() -> Problem {
        let detail = "no contract of this name is in the contract directory";
        Problem::new(StatusCode::NOT_FOUND, "unknown_model", "The model is not known", detail)
    }

    pub(crate) fn too_slow() -> Problem {
        let detail = "the body did not come within limits.body_timeout_ms";
        Problem::new(StatusCode::REQUEST_TIMEOUT, "too_slow", "The body came too slowly", detail).closing()
    }

    pub(crate) fn time_went_back(last_ms: i64) -> Problem {
        let detail = format!("the model's time has come to {last_ms} ms already; times may not go back");
        Problem::new(StatusCode::CONFLICT, "time_went_back", "The time is in the past", detail)
    }

    pub(crate) fn too_large(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", "The request is too large", detail)
    }

    pub(crate) fn unsupported_media_type(detail: impl Into<String>) -> Problem {
        let title = "The body is of another type";
        Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", title, detail)
    }

    pub(crate) fn refused(errors: Vec<Fault>) -> Problem {
        let title = "The body does not keep the contract";
        let detail = format!("{} fault(s), listed in `errors`", errors.len());
        Problem { errors, ..Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "refused", title, detail) }
    }

    pub(crate) fn busy() -> Problem {
        let detail = "the bodies being worked on have limits.bodies_bytes";
        Problem { retry_after_s: Some(RETRY_AFTER_BUSY_S), ..Problem::unavailable(detail) }
    }

    pub(crate) fn append(error: AppendError) -> Problem {
        match error {
            AppendError::TooLarge => Problem::too_large("the record is longer than the spool takes"),
            AppendError::Full => Problem::unavailable("the spool is full: the log does not take records at present"),
            AppendError::Failed => Problem::unavailable("the spool cannot write to its disk"),
            AppendError::Closed => Problem::unavailable("the sidecar is shutting down"),
        }
    }

    fn unavailable(detail: impl Into<String>) -> Problem {
        let title = "The record was not accepted; send it again later";
        Problem {
            retry_after_s: Some(RETRY_AFTER_SPOOL_S),
            ..Problem::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", title, detail)
        }
    }

    /// Ends the connection after the answer.
    pub(crate) fn closing(self) -> Problem {
        Problem { close: true, ..self }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.retry_after_s {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.close {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// For answers that accept some rows only.
pub(crate) fn retry_after_spool() -> HeaderValue {
    HeaderValue::from(RETRY_AFTER_SPOOL_S)
}
