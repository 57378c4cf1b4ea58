//! The JSON object of a row, to which members are added without touching the rest: numbers keep every bit.

use serde_json::{Map, Value};

/// `object`, whose members `parsed` are (none where it is no JSON, such as one with NaN), with members that it lacks put in
/// front.
pub(super) fn with_members(object: &str, parsed: Option<Map<String, Value>>, members: &[(&str, Value)]) -> String {
    if members.is_empty() {
        return object.to_owned();
    }
    match parsed {
        // A name that is there twice, once as null, would be refused.
        Some(mut parsed) if members.iter().any(|(name, _)| parsed.contains_key(*name)) => {
            parsed.extend(members.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
            Value::Object(parsed).to_string()
        }
        _ => {
            let rest = object.trim_start().strip_prefix('{').unwrap_or(object).trim_start();
            let comma = if rest.starts_with('}') { "" } else { "," };
            let members: Vec<String> =
                members.iter().map(|(name, value)| format!("{}:{value}", Value::from(*name))).collect();
            format!("{{{}{comma}{rest}", members.join(","))
        }
    }
}
