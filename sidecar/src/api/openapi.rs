//! `GET /openapi.json`: the API as the contracts in force have it, for people and for generated clients.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use flywheel_schemas::show::openapi;

use super::json;
use crate::shared::Shared;

pub(crate) async fn get(State(shared): State<Arc<Shared>>) -> Response {
    let versions: Vec<_> = shared.models.all().iter().map(|model| model.version()).collect();
    let document = openapi(versions.iter().map(|version| &**version.plan.contract()));
    json(StatusCode::OK, serde_json::to_vec(&document).unwrap_or_default())
}
