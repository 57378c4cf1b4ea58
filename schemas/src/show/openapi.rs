//! OpenAPI 3.1 of the sidecar's endpoints for one or more models.

use serde_json::{Map, Value, json};

use crate::contract::{Block, Contract, Field, Ids, Label};
use crate::types::Type;

/// One document for all `contracts`.
pub fn openapi<'a>(contracts: impl IntoIterator<Item = &'a Contract>) -> Value {
    let mut paths = Map::new();
    let mut schemas = Map::new();
    for contract in contracts {
        let model = &contract.model;
        let (prediction, outcome) = (format!("{model}_prediction"), format!("{model}_outcome"));
        let candidates = format!("{model}_candidates");
        schemas.insert(prediction.clone(), prediction_body(contract));
        schemas.insert(candidates.clone(), candidates_body(contract));
        schemas.insert(outcome.clone(), outcome_body(contract));
        let prediction = json!({"oneOf": [reference(&prediction), reference(&candidates)]});
        paths.insert(
            format!("/v1/models/{model}/predictions"),
            json!({"post": endpoint(contract, "predictions", &prediction, prediction_answer())}),
        );
        let outcome = reference(&outcome);
        paths.insert(
            format!("/v1/models/{model}/outcomes"),
            json!({"post": endpoint(contract, "outcomes", &outcome, outcome_answer())}),
        );
    }
    schemas.insert("problem".to_owned(), problem());
    json!({
        "openapi": "3.1.0",
        "info": {"title": "Flywheel sidecar", "version": env!("CARGO_PKG_VERSION")},
        "paths": paths,
        "components": {"schemas": schemas},
    })
}

fn reference(schema: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{schema}")})
}

fn endpoint(contract: &Contract, kind: &str, body: &Value, accepted: Value) -> Value {
    let problem = |description: &str| json!({"description": description, "content": {"application/problem+json": {"schema": reference("problem")}}});
    let results = json!({
        "type": "object",
        "properties": {"results": {"type": "array", "items": {"type": "object", "properties": {
            "status": {"type": "integer"},
            "prediction_id": {"type": "string"},
            "event_id": {"type": "string"},
            "errors": {"type": "array", "items": {"type": "object"}},
        }}}},
    });
    let mut description: Vec<String> = contract.description.iter().cloned().collect();
    if kind == "predictions" {
        description.extend(super::sampling(contract));
    }
    json!({
        "operationId": format!("{}_{kind}", contract.model),
        "summary": format!("Accept {kind} of {}", contract.model),
        "description": description.join("\n\n"),
        "requestBody": {"required": true, "content": {
            "application/json": {"schema": body},
            "application/x-ndjson": {"schema": {"type": "string", "description": format!("One JSON object a line: {body}")}},
        }},
        "responses": {
            "202": {"description": "Accepted: it survives the process", "content": {"application/json": {"schema": accepted}}},
            "207": {"description": "A batch, not wholly accepted; results in line order",
                    "content": {"application/json": {"schema": results}}},
            "400": problem("The request is not right"),
            "404": problem("No such model here"),
            "408": problem("The body came too slowly"),
            "409": problem("A replay whose time has gone back"),
            "413": problem("The body is too large, or a batch has too many rows"),
            "415": problem("Neither JSON nor NDJSON, or encoded"),
            "422": problem("Refused, with every fault"),
            "503": problem("The spool is full or the sidecar is busy; try again after Retry-After"),
        },
    })
}

fn prediction_answer() -> Value {
    json!({"type": "object", "properties": {
        "prediction_id": {"type": "string"},
        "prediction_ids": {"type": "array", "items": {"type": "string"}},
    }})
}

fn outcome_answer() -> Value {
    json!({"type": "object", "properties": {
        "event_id": {"type": "string"},
        "event_ids": {"type": "array", "items": {"type": "string"}},
    }})
}

fn problem() -> Value {
    json!({
        "type": "object",
        "description": "RFC 9457",
        "properties": {
            "type": {"type": "string"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "errors": {"type": "array", "items": {"type": "object", "properties": {
                "pointer": {"type": "string", "description": "RFC 6901"},
                "reason": {"type": "string"},
                "detail": {"type": "string"},
            }}},
        },
    })
}

fn prediction_body(contract: &Contract) -> Value {
    let caller = contract.ids == Ids::Caller;
    let id = match contract.ids {
        Ids::Minted => {
            json!({"type": "string", "format": "uuid", "description": "A UUIDv7 of event_time; minted unless given"})
        }
        Ids::Caller => json!({"type": "string", "maxLength": 128}),
    };
    let mut properties = Map::new();
    properties.insert("prediction_id".to_owned(), id);
    for (name, schema) in [
        ("event_time", Type::Timestamp.json_schema()),
        ("request_id", json!({"type": "string"})),
        ("parent_prediction_id", json!({"type": "string"})),
        ("model_version", json!({"type": "string"})),
        ("variant", json!({"type": "string"})),
        ("exposure", json!({"enum": ["served", "shadow", "holdout"], "default": "served"})),
        ("rank", json!({"type": "integer", "format": "int32", "minimum": 0})),
        ("latency_us", json!({"type": "integer", "format": "int64", "minimum": 0})),
        ("status", json!({"type": "string"})),
    ] {
        properties.insert(name.to_owned(), schema);
    }
    let mut required = vec!["model_version"];
    if caller {
        required.extend(["prediction_id", "event_time"]);
    }
    for block in Block::ALL.into_iter().filter(|block| !contract.block(*block).is_empty()) {
        let fields = contract.block(block);
        if block != Block::Features && fields.iter().any(|field| field.required) {
            required.push(block.name());
        }
        properties.insert(block.name().to_owned(), object(fields));
    }
    json!({"type": "object", "additionalProperties": false, "required": required, "properties": properties})
}

/// What all candidates of a request have in common, and an item for each.
fn candidates_body(contract: &Contract) -> Value {
    let mut item = prediction_body(contract);
    // What is required may stand in either of the two.
    remove_required(&mut item);
    let mut shared = item.clone();
    if let Some(properties) = shared["properties"].as_object_mut() {
        properties.retain(|name, _| name != "prediction_id" && name != "rank");
    }
    json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["items"],
        "description": "The candidates of one request. The first key is one of the two; no key of an item stands in shared.",
        "properties": {"shared": shared, "items": {"type": "array", "minItems": 1, "items": item}},
    })
}

fn remove_required(schema: &mut Value) {
    if let Some(object) = schema.as_object_mut() {
        object.remove("required");
        object.get_mut("properties").and_then(Value::as_object_mut).into_iter().flatten().for_each(|(_, schema)| {
            remove_required(schema);
        });
    }
}

fn object(fields: &[Field]) -> Value {
    let properties: Map<String, Value> = fields.iter().map(|field| (field.name.clone(), field_schema(field))).collect();
    let required: Vec<&str> = fields.iter().filter(|field| field.required).map(|field| field.name.as_str()).collect();
    json!({"type": "object", "additionalProperties": false, "required": required, "properties": properties})
}

fn field_schema(field: &Field) -> Value {
    let mut schema = field.ty.json_schema();
    if let Some(expect) = &field.expect {
        for (key, end) in [("minimum", expect.min), ("maximum", expect.max)] {
            if let (Some(end), Some(object)) = (end, schema.as_object_mut()) {
                object.insert(key.to_owned(), json!(end));
            }
        }
    }
    let schema = if field.required { schema } else { json!({"oneOf": [schema, {"type": "null"}]}) };
    described(schema, field.description.as_deref(), field.unit.as_deref())
}

fn outcome_body(contract: &Contract) -> Value {
    let label = |label: &Label| {
        let schema = described(label.ty.json_schema(), label.description.as_deref(), label.unit.as_deref());
        (label.name.clone(), schema)
    };
    let labels: Map<String, Value> = contract.labels.iter().map(label).collect();
    json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["prediction_id"],
        "properties": {
            "prediction_id": {"type": "string"},
            "labels": {"oneOf": [
                {"type": "object", "additionalProperties": false, "properties": labels},
                {"type": "array", "items": {"type": "string"}, "description": "For a retract: the names; without, all"},
            ]},
            "event_time": Type::Timestamp.json_schema(),
            "event_id": {"type": "string", "format": "uuid"},
            "outcome_id": {"type": "string", "default": ""},
            "revision": {"type": "integer", "format": "int64", "default": 0},
            "op": {"enum": ["assert", "retract"], "default": "assert"},
            "op_time": Type::Timestamp.json_schema(),
            "source": {"type": "string"},
        },
    })
}

fn described(mut schema: Value, description: Option<&str>, unit: Option<&str>) -> Value {
    let unit = unit.map(|unit| format!("[{unit}]"));
    let parts: Vec<&str> = description.into_iter().chain(unit.as_deref()).collect();
    if let Some(object) = schema.as_object_mut().filter(|_| !parts.is_empty()) {
        object.insert("description".to_owned(), json!(parts.join(" ")));
    }
    schema
}
