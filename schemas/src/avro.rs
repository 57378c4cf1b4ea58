//! Avro schemas: what a contract gives, and what a registered text says.
//!
//! Every declared field is `[null, T]` with default null; the blocks are sub-records, null where the contract has
//! none of them; the whole contract rides along as the attribute `flywheel.contract`. So adding or dropping a field
//! stays compatible in both directions, and a reader needs the schema alone.
//!
//! [`Layout`] is the flat reading of a schema text that the sidecar writes by and the joiner reads by.

use apache_avro::Schema;
use serde_json::{Map, Value, json};

use crate::contract::{Block, Contract};
use crate::types::Type;

/// The attribute of the top record that holds the contract as JSON.
pub const CONTRACT: &str = "flywheel.contract";

/// A record as Avro writes it: its fields in order.
#[derive(Debug, Clone, PartialEq)]
pub struct Layout {
    pub fields: Vec<LayoutField>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct LayoutField {
    pub name: String,
    pub shape: Shape,
    /// For a union of null and one type: which of the two branches is null (0 or 1). None for a plain type.
    pub null_branch: Option<u8>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Shape {
    Plain(Type),
    Record(Layout),
    /// An array of records.
    Records(Layout),
}

/// Why a schema text cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    #[error("not an Avro schema: {0}")]
    Avro(String),
    #[error("field `{field}`: Flywheel has no use for the type {found}")]
    Shape { field: String, found: String },
    #[error("the schema carries no contract (attribute `flywheel.contract`)")]
    NoContract,
    #[error("the contract that the schema carries is not valid: {0}")]
    Contract(String),
}

impl Layout {
    /// Reads an Avro schema text, whose top must be a record.
    pub fn parse(text: &str) -> Result<Layout, SchemaError> {
        Schema::parse_str(text).map_err(|error| SchemaError::Avro(error.to_string()))?;
        let schema: Value = serde_json::from_str(text).map_err(|error| SchemaError::Avro(error.to_string()))?;
        record(&schema, "")
    }

    pub fn field(&self, name: &str) -> Option<&LayoutField> {
        self.fields.iter().find(|field| field.name == name)
    }
}

fn record(schema: &Value, path: &str) -> Result<Layout, SchemaError> {
    let fields = schema.get("fields").and_then(Value::as_array).ok_or_else(|| unusable(path, schema))?;
    let fields = fields
        .iter()
        .map(|field| {
            let name = field.get("name").and_then(Value::as_str).unwrap_or_default();
            let path = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
            let ty = field.get("type").unwrap_or(&Value::Null);
            let (null_branch, ty) = match ty.as_array().map(Vec::as_slice) {
                Some([null, ty]) if null == "null" => (Some(0), ty),
                Some([ty, null]) if null == "null" => (Some(1), ty),
                _ => (None, ty),
            };
            Ok(LayoutField { name: name.to_owned(), shape: shape(ty, &path)?, null_branch })
        })
        .collect::<Result<_, SchemaError>>()?;
    Ok(Layout { fields })
}

fn shape(ty: &Value, path: &str) -> Result<Shape, SchemaError> {
    if ty.get("type").is_some_and(|name| name == "record") {
        return Ok(Shape::Record(record(ty, path)?));
    }
    if let Some(items) = ty.get("items").filter(|items| items.get("type").is_some_and(|name| name == "record")) {
        return Ok(Shape::Records(record(items, path)?));
    }
    Type::from_avro(ty).map(Shape::Plain).ok_or_else(|| unusable(path, ty))
}

fn unusable(path: &str, found: &Value) -> SchemaError {
    SchemaError::Shape { field: path.to_owned(), found: found.to_string() }
}

/// The contract that a registered schema carries.
pub fn contract_of(text: &str) -> Result<Contract, SchemaError> {
    let schema: Value = serde_json::from_str(text).map_err(|error| SchemaError::Avro(error.to_string()))?;
    let contract = schema.get(CONTRACT).ok_or(SchemaError::NoContract)?;
    Contract::from_json(contract)
        .map_err(|faults| SchemaError::Contract(faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")))
}

/// The schema of the records on `<prefix>.<model>.predictions`.
pub fn prediction_schema(contract: &Contract) -> String {
    let mut fields = vec![
        plain("prediction_id", &Type::String, "The prediction; with ids: minted a UUIDv7 of event_time"),
        plain("event_time", &Type::Timestamp, "When the prediction was made, to the millisecond"),
        plain("contract_version", &Type::Int, "The contract under which it was served"),
        nullable("request_id", &Type::String, "The request that the prediction was part of"),
        nullable("parent_prediction_id", &Type::String, "The prediction that this one came from"),
        nullable("trace_id", &Type::String, "W3C trace id"),
        nullable("model_version", &Type::String, "The version of the model that predicted"),
        nullable("variant", &Type::String, "The arm of an experiment"),
        nullable("exposure", &Type::String, "served, shadow or holdout"),
        nullable("rank", &Type::Int, "Position among the candidates of one request, from 0"),
        nullable("status", &Type::String, "The caller's own word about the prediction"),
        nullable("latency_us", &Type::Long, "Time the model took, in microseconds"),
        nullable("sampling_rate", &Type::Double, "The share of predictions that are kept"),
        nullable("sample_weight", &Type::Double, "How many predictions the row stands for"),
        provenance(),
        nullable("flags", &Type::List(Box::new(Type::String)), "What was noticed about the row"),
    ];
    for block in Block::ALL {
        if contract.block(block).is_empty() {
            continue;
        }
        let declared = contract.block(block).iter().map(|field| {
            let mut doc: Vec<&str> = field.description.as_deref().into_iter().collect();
            let unit = field.unit.as_ref().map(|unit| format!("unit: {unit}"));
            doc.extend(unit.as_deref());
            nullable(&field.name, &field.ty, &doc.join("; "))
        });
        fields.push(sub_record(block.name(), declared.collect()));
    }
    top(contract, "Prediction", contract.description.as_deref().unwrap_or("A served prediction"), fields)
}

/// The schema of the records on `<prefix>.<model>.outcomes`.
pub fn outcome_schema(contract: &Contract) -> String {
    let mut fields = vec![
        plain("prediction_id", &Type::String, "The prediction that the statement is about"),
        plain("event_id", &Type::String, "The statement; copies of it share the id"),
        plain("outcome_id", &Type::String, "The fact that is stated, empty unless given"),
        plain("revision", &Type::Long, "Of two statements of one fact the greater revision counts"),
        plain("op", &Type::String, "assert or retract"),
        plain("op_time", &Type::Timestamp, "When it was stated"),
        plain("event_time", &Type::Timestamp, "When the fact happened"),
        plain("contract_version", &Type::Int, "The contract under which it was stated"),
        nullable("source", &Type::String, "Who stated it"),
        nullable("labels", &Type::List(Box::new(Type::String)), "The labels a retract takes back, empty for all"),
    ];
    if !contract.labels.is_empty() {
        let labels = contract
            .labels
            .iter()
            .map(|label| nullable(&label.name, &label.ty, label.description.as_deref().unwrap_or_default()));
        fields.push(sub_record("label", labels.collect()));
    }
    top(contract, "Outcome", "A statement of label values about a prediction", fields)
}

/// The schema of the records on `<prefix>.ledger`.
pub fn ledger_schema() -> String {
    fixed(
        "Ledger",
        "What one producer accepted, refused and gave up in a span of its sequence",
        &crate::table::ledger(),
    )
}

/// The schema of the records on `<prefix>.deadletter`: the table's columns but for the coordinates.
pub fn dead_letter_schema() -> String {
    let mut table = crate::table::dead_letter();
    table.columns.retain(|column| !matches!(column.name.as_str(), "topic" | "kafka_partition" | "kafka_offset"));
    fixed("DeadLetter", "A body that a sidecar refused", &table)
}

fn fixed(name: &str, doc: &str, table: &crate::table::Table) -> String {
    let fields: Vec<Value> = table
        .columns
        .iter()
        .filter_map(|column| match &column.ty {
            crate::table::ColumnType::Plain(ty) if column.required => Some(plain(&column.name, ty, &column.doc)),
            crate::table::ColumnType::Plain(ty) => Some(nullable(&column.name, ty, &column.doc)),
            crate::table::ColumnType::Provenance => None,
        })
        .collect();
    json!({"type": "record", "name": name, "namespace": "flywheel", "doc": doc, "fields": fields}).to_string()
}

fn top(contract: &Contract, name: &str, doc: &str, fields: Vec<Value>) -> String {
    json!({
        "type": "record",
        "name": name,
        "namespace": format!("flywheel.{}", contract.model),
        "doc": doc,
        "fields": fields,
        CONTRACT: contract.to_json(),
    })
    .to_string()
}

fn plain(name: &str, ty: &Type, doc: &str) -> Value {
    field(name, ty.avro(), doc)
}

fn nullable(name: &str, ty: &Type, doc: &str) -> Value {
    nullable_of(name, ty.avro(), doc)
}

fn nullable_of(name: &str, ty: Value, doc: &str) -> Value {
    let mut field = field(name, json!(["null", ty]), doc);
    if let Some(object) = field.as_object_mut() {
        object.insert("default".to_owned(), Value::Null);
    }
    field
}

fn field(name: &str, ty: Value, doc: &str) -> Value {
    let mut object = Map::new();
    object.insert("name".to_owned(), json!(name));
    object.insert("type".to_owned(), ty);
    if !doc.is_empty() {
        object.insert("doc".to_owned(), json!(doc));
    }
    Value::Object(object)
}

fn sub_record(name: &str, fields: Vec<Value>) -> Value {
    nullable_of(name, json!({"type": "record", "name": format!("{name}_fields"), "fields": fields}), "")
}

fn provenance() -> Value {
    let fields = vec![
        nullable("view", &Type::String, "The feature view"),
        nullable("status", &Type::String, "hit, miss, stale, default or missing"),
        nullable("feature_time", &Type::Timestamp, "When the features were true"),
        nullable("age_ms", &Type::Long, "How old they were when served, in milliseconds"),
    ];
    let items = json!({"type": "record", "name": "provenance", "fields": fields});
    nullable_of("feature_provenance", json!({"type": "array", "items": items}), "Where the features came from")
}
