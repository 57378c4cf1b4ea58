//! What follows from a contract, for people and for other tools.

mod docs;
mod iceberg;
mod openapi;

pub use docs::docs;
pub use iceberg::iceberg;
pub use openapi::openapi;

use serde_json::{Value, json};

use crate::avro;
use crate::contract::{Block, Condition, Contract, Scalar};

/// Both Avro schemas, by topic kind.
pub fn avro(contract: &Contract) -> Value {
    let schema = |text: String| serde_json::from_str(&text).unwrap_or(Value::String(text));
    json!({
        "predictions": schema(avro::prediction_schema(contract)),
        "outcomes": schema(avro::outcome_schema(contract)),
    })
}

/// How a contract samples, in a sentence or two; none where every prediction is kept.
fn sampling(contract: &Contract) -> Option<String> {
    let sampling = &contract.sampling;
    if sampling.rate >= 1.0 && sampling.keep.iter().all(|rule| rule.rate >= 1.0) {
        return None;
    }
    let rules = sampling.keep.iter().map(|rule| {
        let column = Block::Prediction.column(&rule.field);
        let holds = match &rule.condition {
            Condition::Between { min: Some(min), max: Some(max) } => format!("is from {min} to {max}"),
            Condition::Between { min: Some(min), .. } => format!("is at least {min}"),
            Condition::Between { max: Some(max), .. } => format!("is at most {max}"),
            Condition::Equals(Scalar::Boolean(value)) => format!("is {value}"),
            Condition::Equals(Scalar::String(value)) => format!("is {value:?}"),
            Condition::Between { .. } | Condition::Equals(_) => "is there".to_owned(),
        };
        format!("{} where `{column}` {holds}, else ", rule.rate)
    });
    Some(format!(
        "A share of the predictions is kept, by a hash of `{}`: {}{}. The rate is in `sampling_rate`, its inverse in \
         `sample_weight`; a prediction that is not kept is answered like any other.",
        sampling.key,
        rules.collect::<String>(),
        sampling.rate
    ))
}

#[cfg(test)]
mod tests;
