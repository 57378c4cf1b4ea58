//! The admin port: `/livez`, `/readyz`, `/metrics`, and `/waits`, the partitions that wait and why, for `status`.
//! Loopback only; it tells counts and places, never contents.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::metrics::Metrics;

/// The path of a JSON array of [`Waiting`](crate::metrics::Waiting).
pub(crate) const WAITS: &str = "/waits";

#[derive(Clone)]
pub(crate) struct Admin {
    pub metrics: Metrics,
    /// Whether source, catalog and registry were opened.
    pub ready: Arc<AtomicBool>,
}

pub(crate) fn router(admin: Admin) -> Router {
    Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route(WAITS, get(waits))
        .with_state(admin)
}

async fn readyz(State(admin): State<Admin>) -> Response {
    match admin.ready.load(Ordering::Relaxed) {
        true => "ok\n".into_response(),
        false => (StatusCode::SERVICE_UNAVAILABLE, "log or catalog not opened yet\n").into_response(),
    }
}

async fn waits(State(admin): State<Admin>) -> Response {
    match serde_json::to_vec(&admin.metrics.waiting()) {
        Ok(text) => ([(header::CONTENT_TYPE, "application/json")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn metrics(State(admin): State<Admin>) -> Response {
    match admin.metrics.render() {
        Ok(text) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
