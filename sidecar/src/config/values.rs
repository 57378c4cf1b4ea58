//! What a value of the configuration may be.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

use toml::Value;

use super::flatten;

pub(super) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a string",
        Value::Integer(_) => "an integer",
        Value::Float(_) => "a float",
        Value::Boolean(_) => "a boolean",
        Value::Datetime(_) => "a date",
        Value::Array(_) => "a list",
        Value::Table(_) => "a table",
    }
}

pub(super) fn text(value: &Value) -> Result<String, String> {
    optional(value).ok_or_else(|| "may not be empty".to_owned())
}

pub(super) fn optional(value: &Value) -> Option<String> {
    value.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}

pub(super) fn number<T: TryFrom<i64> + fmt::Display + PartialOrd>(value: &Value, min: T, max: T) -> Result<T, String> {
    let found = value.as_integer().unwrap_or_default();
    T::try_from(found)
        .ok()
        .filter(|number| *number >= min && *number <= max)
        .ok_or_else(|| format!("{found} is not within {min} and {max}"))
}

pub(super) fn word<T: Copy>(value: &Value, words: &[(&str, T)]) -> Result<T, String> {
    let found = value.as_str().unwrap_or_default();
    words.iter().find(|(word, _)| *word == found).map(|(_, meaning)| *meaning).ok_or_else(|| {
        format!("\"{found}\" is none of {}", words.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", "))
    })
}

pub(super) fn url(value: &Value, schemes: &[&str]) -> Result<String, String> {
    let url = text(value)?;
    if schemes.iter().any(|scheme| url.len() > scheme.len() && url.starts_with(scheme)) {
        return Ok(url);
    }
    Err(format!("must begin with {} and name something", schemes.join(" or ")))
}

pub(super) fn prefix(value: &Value) -> Result<String, String> {
    let prefix = text(value)?;
    // What Kafka allows in the name of a topic; the model and two suffixes take up to 80 of the 249 characters.
    if prefix.len() <= 128 && prefix.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)) {
        return Ok(prefix);
    }
    Err("takes up to 128 letters, digits, dots, hyphens and underscores".to_owned())
}

pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr =
        text.parse().map_err(|_| format!("\"{text}\" is no address such as \"127.0.0.1:8700\""))?;
    if !address.ip().is_loopback() {
        return Err(format!("{address} can be reached from outside, and there is no authentication: use 127.0.0.1"));
    }
    Ok(address)
}

pub(super) fn options(value: &Value) -> Result<BTreeMap<String, String>, String> {
    let mut settings = BTreeMap::new();
    flatten("", value.as_table().cloned().unwrap_or_default(), &mut settings);
    settings
        .into_iter()
        .map(|(name, value)| match value {
            Value::String(text) => Ok((name, text)),
            Value::Integer(_) | Value::Float(_) | Value::Boolean(_) => Ok((name, value.to_string())),
            value => Err(format!("`{name}`: a string is needed, {} was found", type_name(&value))),
        })
        .collect()
}

/// Sampling rates by model.
pub(super) fn rates(value: &Value) -> Result<BTreeMap<String, f64>, String> {
    let table = value.as_table().cloned().unwrap_or_default();
    let rates = table.into_iter().map(|(model, value)| {
        let rate = match &value {
            Value::Float(rate) => Some(*rate),
            Value::Integer(1) => Some(1.0),
            // From the environment.
            Value::String(text) => text.parse().ok(),
            _ => None,
        };
        match rate.filter(|rate| *rate > 0.0 && *rate <= 1.0) {
            Some(rate) => Ok((model, rate)),
            None => Err(format!("`{model}`: a rate is a number that is more than 0 and at most 1")),
        }
    });
    rates.collect()
}
