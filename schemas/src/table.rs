//! The tables of a model and their columns, as plain data: the joiner makes Iceberg and Arrow schemas of them.
//!
//! Declared fields are top-level columns under plain names ([`Block::column`]): a data scientist writes them by
//! hand, and not every reader copes with structs that gained a field. Every column but the keys is optional.

use crate::contract::{Block, Contract, Field, Label};
use crate::types::Type;

#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    pub name: String,
    pub doc: String,
    /// In table order.
    pub columns: Vec<Column>,
    /// The timestamp column by whose day the table is partitioned.
    pub day_of: &'static str,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Column {
    pub name: String,
    pub ty: ColumnType,
    pub required: bool,
    /// Meaning, unit and owner, for the field doc.
    pub doc: String,
}

#[derive(Debug, Clone, PartialEq)]
pub enum ColumnType {
    Plain(Type),
    /// `list<struct<view string, status string, feature_time timestamptz, age_ms long>>`, never extended.
    Provenance,
}

/// `<model>_predictions`: every landed copy of every prediction.
pub fn predictions(contract: &Contract) -> Table {
    let mut columns = identity();
    columns.extend(declared(contract));
    columns.extend(tail());
    Table {
        name: format!("{}_predictions", contract.model),
        doc: "Every landed prediction record, re-sent copies included".to_owned(),
        columns,
        day_of: "event_time",
    }
}

/// `<model>_training`: one row per prediction, with its labels as known at `as_of`.
pub fn training(contract: &Contract) -> Table {
    let mut columns = identity();
    columns.push(required(
        "as_of",
        Type::Timestamp,
        "The tick at which the row was sealed; its labels are as known then",
    ));
    columns.extend(declared(contract));
    columns.extend(contract.labels.iter().flat_map(label_columns));
    columns.extend(tail());
    Table {
        name: format!("{}_training", contract.model),
        doc: "One row per accepted prediction, with its labels as known at as_of".to_owned(),
        columns,
        day_of: "event_time",
    }
}

/// `<model>_outcomes`: every landed statement about a prediction.
pub fn outcomes(contract: &Contract) -> Table {
    let mut columns = vec![
        required("prediction_id", Type::String, "The prediction that the statement is about"),
        required("event_id", Type::String, "The statement; copies of it share the id"),
        optional("outcome_id", Type::String, "The fact that is stated; a later statement of the same fact replaces it"),
        optional("revision", Type::Long, "Of two statements of one fact the greater revision counts"),
        optional("op", Type::String, "assert or retract"),
        optional("op_time", Type::Timestamp, "When it was stated; decides between equal revisions"),
        required("event_time", Type::Timestamp, "When the fact happened"),
        required("ingest_time", Type::Timestamp, "When the log received the statement"),
        optional("source", Type::String, "Who stated it"),
        optional(
            "labels",
            list_of_strings(),
            "The labels that a retract takes back, empty for all; null for an assert",
        ),
    ];
    columns.extend(contract.labels.iter().map(|label| Column {
        name: format!("label_{}", label.name),
        ty: ColumnType::Plain(label.ty.clone()),
        required: false,
        doc: sentence(label.description.as_deref(), label.unit.as_deref(), None),
    }));
    columns.push(optional("contract_version", Type::Int, "The contract under which it was stated"));
    columns.extend(coordinates());
    Table {
        name: format!("{}_outcomes", contract.model),
        doc: "Every landed outcome statement, re-sent copies included".to_owned(),
        columns,
        day_of: "ingest_time",
    }
}

/// `<model>_label_revisions`: the labels of a sealed prediction where they changed after its base row.
pub fn label_revisions(contract: &Contract) -> Table {
    let mut columns = vec![
        required("prediction_id", Type::String, "The prediction"),
        required("event_time", Type::Timestamp, "When the prediction was made, to the millisecond"),
        required("as_of", Type::Timestamp, "The tick at which the labels had changed; all of them are as known then"),
        optional("contract_version", Type::Int, "The contract under which the prediction was served"),
    ];
    columns.extend(contract.labels.iter().flat_map(label_columns));
    Table {
        name: format!("{}_label_revisions", contract.model),
        doc: "One row per prediction and tick at which a label's value or status changed after its base row".to_owned(),
        columns,
        day_of: "event_time",
    }
}

/// `<model>_unmatched`: the statements that found no place in any label.
pub fn unmatched(contract: &Contract) -> Table {
    let mut table = outcomes(contract);
    table.columns.push(required("as_of", Type::Timestamp, "The tick at which that was found"));
    table.columns.push(required(
        "reason",
        Type::String,
        "sampled_out, no_prediction, unknown_label, too_late, outside_window or over_limit",
    ));
    Table {
        name: format!("{}_unmatched", contract.model),
        doc: "One row per statement that had found no place in any label when its time was over".to_owned(),
        ..table
    }
}

/// `dead_letter`: what could not be accepted or landed, with the reason.
pub fn dead_letter() -> Table {
    Table {
        name: "dead_letter".to_owned(),
        doc: "What was refused by a sidecar or could not be landed; distinct by dead_letter_id".to_owned(),
        columns: vec![
            required("dead_letter_id", Type::String, "The letter; copies of it share the id"),
            optional("model", Type::String, "The model it was meant for"),
            optional("kind", Type::String, "predictions or outcomes"),
            required("reason", Type::String, "Why, as a word"),
            optional("faults", list_of_strings(), "Why, in sentences, with JSON pointers"),
            optional("body", Type::Bytes, "The first 64 KiB; null where the contract keeps private fields"),
            optional("body_bytes", Type::Long, "Length of the whole body"),
            required("received_at", Type::Timestamp, "When it was received"),
            optional("topic", Type::String, "The topic it was found on; null where a sidecar refused it"),
            optional("kafka_partition", Type::Int, "Its partition there"),
            optional("kafka_offset", Type::Long, "Its offset there"),
        ],
        day_of: "received_at",
    }
}

/// `ledger`: per producer, what was accepted, refused, sampled out and dropped.
pub fn ledger() -> Table {
    Table {
        name: "ledger".to_owned(),
        doc: "Counts by producer, and what was lost of it; distinct by producer_id, model, kind, last_seq, closed_by, at; \
              accepted = in the raw table + dropped"
            .to_owned(),
        columns: vec![
            required("producer_id", Type::String, "One start of one producing process"),
            required("model", Type::String, "The model"),
            required("kind", Type::String, "predictions or outcomes"),
            required("first_seq", Type::Long, "First producer_seq of the span"),
            required("last_seq", Type::Long, "Last producer_seq of the span; first_seq - 1 where it is empty"),
            required("accepted", Type::Long, "Rows accepted in the span"),
            required("refused", Type::Long, "Rows refused with 422 or 503 in the span"),
            required("sampled_out", Type::Long, "Rows left out by sampling in the span"),
            required("dropped", Type::Long, "Of a loss: accepted rows of the span that never reach the log"),
            required(
                "closed_by",
                Type::String,
                "interval, shutdown or recovery; or loss, whose span lies within those of the others",
            ),
            required("at", Type::Timestamp, "When the record was made"),
            optional("reason", Type::String, "Of a loss: spool_full, too_old or damaged; else null"),
        ],
        day_of: "at",
    }
}

/// `seal_log`: the intervals of ticks that a partition could not know, and why.
pub fn seal_log() -> Table {
    Table {
        name: "seal_log".to_owned(),
        doc: "Ticks that are barred: closed_after < tick <= closed_through".to_owned(),
        columns: vec![
            required("model", Type::String, "The model"),
            required("kafka_partition", Type::Int, "The partition"),
            optional("closed_after", Type::Timestamp, "Exclusive; null for all before closed_through"),
            required("closed_through", Type::Timestamp, "Inclusive"),
            required("cause", Type::String, "start, gap, progress:<source> or rate:<label>"),
        ],
        day_of: "closed_through",
    }
}

/// The four columns of a label: value, status, `_at`, `_known_at`.
pub fn label_columns(label: &Label) -> [Column; 4] {
    let name = format!("label_{}", label.name);
    [
        optional(&name, label.ty.clone(), &sentence(label.description.as_deref(), label.unit.as_deref(), None)),
        optional(&format!("{name}_status"), Type::String, "pending, observed, not_exposed, default or missing"),
        optional(&format!("{name}_at"), Type::Timestamp, "When the deciding outcome happened"),
        optional(&format!("{name}_known_at"), Type::Timestamp, "When the log received the deciding outcome"),
    ]
}

/// The names that no declared field may take: the columns that every prediction or training row has.
pub fn system_columns() -> Vec<String> {
    let mut names: Vec<String> = identity().into_iter().chain(tail()).map(|column| column.name).collect();
    names.push("as_of".to_owned());
    names
}

/// The system columns before the declared ones.
fn identity() -> Vec<Column> {
    vec![
        required(
            "prediction_id",
            Type::String,
            "The prediction; UUIDv7 of its event time unless the contract says ids: caller",
        ),
        optional("request_id", Type::String, "The request that the prediction was part of"),
        optional("parent_prediction_id", Type::String, "The prediction that this one came from"),
        optional("trace_id", Type::String, "W3C trace id of the request"),
        optional("model_version", Type::String, "The version of the model that predicted"),
        optional("variant", Type::String, "The arm of an experiment"),
        optional("exposure", Type::String, "served, shadow or holdout"),
        optional("rank", Type::Int, "Position among the candidates of one request, from 0"),
        optional("status", Type::String, "The caller's own word about the prediction"),
        optional("latency_us", Type::Long, "Time the model took, in microseconds"),
        optional("contract_version", Type::Int, "The contract under which it was served"),
        required("event_time", Type::Timestamp, "When the prediction was made, to the millisecond"),
        required("ingest_time", Type::Timestamp, "When the log received it"),
    ]
}

/// The system columns after the declared ones.
fn tail() -> Vec<Column> {
    let mut columns = vec![
        optional("sampling_rate", Type::Double, "The share of predictions that are kept"),
        optional("sample_weight", Type::Double, "How many predictions the row stands for"),
        Column {
            name: "feature_provenance".to_owned(),
            ty: ColumnType::Provenance,
            required: false,
            doc: "Per view, where its features came from and how old they were".to_owned(),
        },
        optional(
            "flags",
            list_of_strings(),
            "What was noticed about the row, such as feature_ahead; of a sealed one also label_overflow:<label>",
        ),
    ];
    columns.extend(coordinates());
    columns
}

/// Where a landed row came from.
fn coordinates() -> [Column; 4] {
    [
        required("kafka_partition", Type::Int, "Partition of the record"),
        required("kafka_offset", Type::Long, "Offset of the record"),
        optional("producer_id", Type::String, "The sidecar start that accepted it; null for foreign producers"),
        optional("producer_seq", Type::Long, "Its number among those of its producer, model and kind, from 1"),
    ]
}

fn declared(contract: &Contract) -> impl Iterator<Item = Column> + '_ {
    contract.fields().map(|(block, field)| declared_column(block, field))
}

fn declared_column(block: Block, field: &Field) -> Column {
    Column {
        name: block.column(&field.name),
        ty: ColumnType::Plain(field.ty.clone()),
        required: false,
        doc: sentence(field.description.as_deref(), field.unit.as_deref(), field.view.as_deref()),
    }
}

fn sentence(description: Option<&str>, unit: Option<&str>, view: Option<&str>) -> String {
    let mut parts: Vec<String> = description.map(str::to_owned).into_iter().collect();
    parts.extend(unit.map(|unit| format!("unit: {unit}")));
    parts.extend(view.map(|view| format!("view: {view}")));
    parts.join("; ")
}

fn list_of_strings() -> Type {
    Type::List(Box::new(Type::String))
}

fn required(name: &str, ty: Type, doc: &str) -> Column {
    Column { name: name.to_owned(), ty: ColumnType::Plain(ty), required: true, doc: doc.to_owned() }
}

fn optional(name: &str, ty: Type, doc: &str) -> Column {
    Column { required: false, ..required(name, ty, doc) }
}
