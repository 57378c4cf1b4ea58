//! `GET /openapi.json`: the API as the contracts in force have it (OpenAPI 3.1), for people and for generated clients.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use flywheel_schemas::contract::{Block, Contract, Field, Ids, Label};
use flywheel_schemas::types::Type;
use serde_json::{Map, Value, json};

use super::json as answer;
use crate::shared::Shared;

pub(crate) async fn get(State(shared): State<Arc<Shared>>) -> Response {
    let mut paths = Map::new();
    for model in shared.models.all() {
        let version = model.version();
        let contract = version.plan.contract();
        let path = |kind: &str| format!("/v1/models/{}/{kind}", contract.model);
        let headers = if shared.replay { json!([time_header()]) } else { json!([]) };
        let doc = contract.description.as_deref().unwrap_or_default();
        paths.insert(
            path("predictions"),
            json!({"post": operation("What the model served", doc, &headers, &prediction(contract), "prediction_id")}),
        );
        paths.insert(
            path("outcomes"),
            json!({"post": operation("What became of a prediction", doc, &headers, &outcome(contract), "event_id")}),
        );
        if shared.replay {
            let summary = "Moves the time of a replay";
            paths.insert(
                path("time"),
                json!({"post": {"summary": summary, "parameters": headers, "responses": {"202": {"description": "Moved"}}}}),
            );
        }
    }
    let document = json!({
        "openapi": "3.1.0",
        "info": {"title": "Flywheel sidecar", "version": env!("CARGO_PKG_VERSION")},
        "paths": paths,
        "components": {"schemas": {"Problem": problem()}},
    });
    answer(StatusCode::OK, serde_json::to_vec(&document).unwrap_or_default())
}

fn operation(summary: &str, doc: &str, headers: &Value, body: &Value, id: &str) -> Value {
    let problem = |description: &str| json!({"description": description, "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}});
    let ids = format!("{id}s");
    let accepted = json!({"oneOf": [
        {"type": "object", "required": [id], "properties": {id: {"type": "string"}}},
        {"type": "object", "required": [ids], "properties": {ids.clone(): {"type": "array", "items": {"type": "string"}}}},
    ]});
    let result = json!({"type": "object", "required": ["status"], "properties": {
        "status": {"enum": [202, 422, 503]}, id: {"type": "string"}, "errors": errors(),
    }});
    let results = json!({"type": "object", "properties": {"results": {"type": "array", "items": result}}});
    json!({
        "summary": summary,
        "description": doc,
        "parameters": headers,
        "requestBody": {"required": true, "content": {
            "application/json": {"schema": body},
            "application/x-ndjson": {"schema": {"type": "string", "description": "One such object per line"}},
        }},
        "responses": {
            "202": {"description": "Accepted", "content": {"application/json": {"schema": accepted}}},
            "207": {"description": "A batch that was not wholly accepted, a result per line",
                    "content": {"application/json": {"schema": results}}},
            "404": problem("No such model"),
            "413": problem("Too large"),
            "415": problem("Neither JSON nor NDJSON"),
            "422": problem("Does not keep the contract; every fault is listed"),
            "503": problem("Not accepted; send it again after Retry-After"),
        },
    })
}

fn time_header() -> Value {
    json!({"name": "Flywheel-Time", "in": "header", "required": true, "schema": {"type": "string"},
           "description": "Receipt and append time: RFC 3339, or integer milliseconds since the epoch"})
}

fn problem() -> Value {
    json!({"type": "object", "properties": {
        "type": {"type": "string"}, "title": {"type": "string"}, "status": {"type": "integer"},
        "detail": {"type": "string"}, "errors": errors(),
    }})
}

fn errors() -> Value {
    json!({"type": "array", "items": {"type": "object", "required": ["pointer", "reason", "detail"], "properties": {
        "pointer": {"type": "string", "description": "RFC 6901"}, "reason": {"type": "string"}, "detail": {"type": "string"},
    }}})
}

fn prediction(contract: &Contract) -> Value {
    let text = json!({"type": "string"});
    let mut properties = Map::new();
    let is_caller = contract.ids == Ids::Caller;
    let id = if is_caller {
        json!({"type": "string", "maxLength": 128})
    } else {
        json!({"type": "string", "format": "uuid"})
    };
    properties.insert("prediction_id".to_owned(), id);
    properties.insert("event_time".to_owned(), schema(&Type::Timestamp));
    for name in ["request_id", "parent_prediction_id", "model_version", "variant", "status"] {
        properties.insert(name.to_owned(), text.clone());
    }
    properties.insert("exposure".to_owned(), json!({"enum": ["served", "shadow", "holdout"]}));
    properties.insert("rank".to_owned(), json!({"type": "integer", "minimum": 0}));
    properties.insert("latency_us".to_owned(), json!({"type": "integer", "minimum": 0}));
    let mut required = vec!["model_version"];
    if is_caller {
        required.extend(["prediction_id", "event_time"]);
    }
    for block in Block::ALL {
        let fields = contract.block(block);
        if fields.is_empty() {
            continue;
        }
        if fields.iter().any(|field| field.required) {
            required.push(block.name());
        }
        let needed: Vec<&str> = fields.iter().filter(|field| field.required).map(|field| field.name.as_str()).collect();
        let fields: Map<String, Value> = fields.iter().map(|field| (field.name.clone(), declared(field))).collect();
        properties.insert(
            block.name().to_owned(),
            json!({"type": "object", "properties": fields, "required": needed, "additionalProperties": false}),
        );
    }
    json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
}

fn outcome(contract: &Contract) -> Value {
    let labels: Map<String, Value> =
        contract.labels.iter().map(|label| (label.name.clone(), label_value(label))).collect();
    let names: Vec<&str> = contract.labels.iter().map(|label| label.name.as_str()).collect();
    json!({"type": "object", "required": ["prediction_id"], "additionalProperties": false, "properties": {
        "prediction_id": {"type": "string"},
        "labels": {"oneOf": [
            {"type": "object", "properties": labels, "additionalProperties": false, "minProperties": 1},
            {"type": "array", "items": {"enum": names}, "description": "What a retract takes back"},
        ]},
        "event_time": schema(&Type::Timestamp),
        "outcome_id": {"type": "string"},
        "revision": {"type": "integer"},
        "op": {"enum": ["assert", "retract"]},
        "op_time": schema(&Type::Timestamp),
        "event_id": {"type": "string", "format": "uuid"},
        "source": {"type": "string"},
    }})
}

fn declared(field: &Field) -> Value {
    let mut value = schema(&field.ty);
    if let Some(object) = value.as_object_mut() {
        let mut doc: Vec<String> = field.description.clone().into_iter().collect();
        doc.extend(field.unit.as_ref().map(|unit| format!("unit: {unit}")));
        if !doc.is_empty() {
            object.insert("description".to_owned(), json!(doc.join("; ")));
        }
        if let Some(expect) = field.expect.filter(|_| object.get("type").is_some_and(|ty| ty != "string")) {
            object.extend(expect.min.map(|min| ("minimum".to_owned(), json!(min))));
            object.extend(expect.max.map(|max| ("maximum".to_owned(), json!(max))));
        }
    }
    value
}

fn label_value(label: &Label) -> Value {
    let mut value = schema(&label.ty);
    if let (Some(object), Some(doc)) = (value.as_object_mut(), &label.description) {
        object.insert("description".to_owned(), json!(doc));
    }
    value
}

/// A type as JSON has it; the type table is in `flywheel_schemas::types`.
fn schema(ty: &Type) -> Value {
    match ty {
        Type::Boolean => json!({"type": "boolean"}),
        Type::Int => json!({"type": "integer", "format": "int32"}),
        Type::Long => json!({"type": "integer", "format": "int64"}),
        Type::Float => json!({"type": "number", "format": "float"}),
        Type::Double => json!({"type": "number", "format": "double"}),
        Type::Decimal { .. } => {
            json!({"type": "string", "format": ty.to_string(), "pattern": "^-?[0-9]+(\\.[0-9]+)?$"})
        }
        Type::String => json!({"type": "string"}),
        Type::Bytes => json!({"type": "string", "contentEncoding": "base64"}),
        Type::Date => json!({"type": "string", "format": "date"}),
        Type::Timestamp => {
            json!({"type": ["string", "integer"], "format": "date-time", "description": "RFC 3339, or integer microseconds"})
        }
        Type::Uuid => json!({"type": "string", "format": "uuid"}),
        Type::List(item) => json!({"type": "array", "items": schema(item)}),
    }
}
