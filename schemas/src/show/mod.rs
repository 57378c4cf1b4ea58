//! What follows from a contract, for people and for other tools.

mod docs;
mod iceberg;
mod openapi;

pub use docs::docs;
pub use iceberg::iceberg;
pub use openapi::openapi;

use serde_json::{Value, json};

use crate::avro;
use crate::contract::Contract;

/// Both Avro schemas, by topic kind.
pub fn avro(contract: &Contract) -> Value {
    let schema = |text: String| serde_json::from_str(&text).unwrap_or(Value::String(text));
    json!({
        "predictions": schema(avro::prediction_schema(contract)),
        "outcomes": schema(avro::outcome_schema(contract)),
    })
}

#[cfg(test)]
mod tests;
