//! The contract as JSON: what a schema carries.
//!
//! Whatever has an order (fields, labels, views, keys) is an array, since a registry gives objects back re-ordered;
//! what is absent or at its default is left out; durations are texts as in YAML.

use serde_json::{Map, Value, json};

use super::duration::format;
use super::parse::{API_VERSION, IDS, KIND, OWNERS, PRIVACY};
use super::{Block, Condition, Contract, Field, Gate, Keep, Label, LabelOwner, Privacy, SealWhen, View, scalar};

/// 2^53: up to here a double holds every whole number.
const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;

impl Contract {
    /// The whole contract as JSON. [`Contract::from_json`] gives an equal one back.
    pub fn to_json(&self) -> Value {
        let mut top = Part::default();
        top.put("apiVersion", json!(API_VERSION));
        top.put("kind", json!(KIND));
        top.put("model", json!(self.model));
        top.put("version", json!(self.version));
        top.text("owner", self.owner.as_deref());
        top.text("description", self.description.as_deref());
        top.text("successor_of", self.successor_of.as_deref());
        for block in Block::ALL {
            top.list(block.name(), self.block(block).iter().map(field));
            if block == Block::Entity {
                top.list("views", self.views.iter().map(view));
            }
        }
        top.list("labels", self.labels.iter().map(label));
        let when = match &self.seal.when {
            SealWhen::AllClosed => "all_closed".to_owned(),
            SealWhen::Label(name) => format!("label:{name}"),
        };
        top.put(
            "seal",
            json!({
                "when": when,
                "grid": format(self.seal.grid_ms),
                "drain": format(self.seal.drain_ms),
                "horizon": format(self.seal.horizon_ms),
            }),
        );
        top.put("ids", word(&IDS, self.ids));
        let mut sampling = Part::default();
        sampling.put("rate", number(self.sampling.rate));
        sampling.put("key", json!(self.sampling.key));
        sampling.list("keep", self.sampling.keep.iter().map(|rule| keep(rule, &self.prediction)));
        top.put("sampling", sampling.into());
        if let Some(point) = &self.point_in_time {
            top.put(
                "point_in_time",
                json!({"name": point.name, "max_feature_ahead": format(point.max_feature_ahead_ms)}),
            );
        }
        if self.dead_letter_body {
            top.put("dead_letter_body", json!(true));
        }
        top.into()
    }
}

impl Label {
    /// The label as it stands in the contract's JSON.
    pub fn to_json(&self) -> Value {
        label(self)
    }
}

/// A finite number, as a JSON integer where it is whole: some registries write `1.0` back as `1`.
pub(super) fn number(number: f64) -> Value {
    let negative_zero = number == 0.0 && number.is_sign_negative();
    if number.fract() == 0.0 && number.abs() <= WHOLE_MAX && !negative_zero {
        #[allow(clippy::cast_possible_truncation)] // Whole and within 53 bits.
        return json!(number as i64);
    }
    json!(number)
}

fn field(field: &Field) -> Value {
    let mut part = Part::default();
    part.put("name", json!(field.name));
    part.put("type", json!(field.ty.to_string()));
    if field.required {
        part.put("required", json!(true));
    }
    part.text("unit", field.unit.as_deref());
    part.text("description", field.description.as_deref());
    part.text("kind", field.kind.as_deref());
    if field.privacy != Privacy::None {
        part.put("privacy", word(&PRIVACY, field.privacy));
    }
    if let Some(expect) = &field.expect {
        let mut range = Part::default();
        for (key, end) in [("min", expect.min), ("max", expect.max)] {
            if let Some(end) = end {
                range.put(key, number(end));
            }
        }
        part.put("expect", range.into());
    }
    part.text("view", field.view.as_deref());
    part.into()
}

fn view(view: &View) -> Value {
    let mut part = Part::default();
    part.put("name", json!(view.name));
    part.put("store", json!(view.store));
    part.list("keys", view.keys.iter().map(|(key, field)| json!({"name": key, "field": field})));
    part.duration("ttl", view.ttl_ms);
    part.duration("max_age", view.max_age_ms);
    part.duration("deadline", view.deadline_ms);
    part.text("owner", view.owner.as_deref());
    part.into()
}

fn keep(rule: &Keep, prediction: &[Field]) -> Value {
    let mut part = Part::default();
    part.put("field", json!(rule.field));
    match &rule.condition {
        Condition::Between { min, max } => {
            for (key, end) in [("min", min), ("max", max)] {
                if let Some(end) = end {
                    part.put(key, number(*end));
                }
            }
        }
        Condition::Equals(value) => {
            if let Some(field) = prediction.iter().find(|field| field.name == rule.field) {
                part.put("equals", scalar::write(&field.ty, value));
            }
        }
    }
    part.put("rate", number(rule.rate));
    part.into()
}

fn label(label: &Label) -> Value {
    let mut part = Part::default();
    part.put("name", json!(label.name));
    part.put("type", json!(label.ty.to_string()));
    part.text("description", label.description.as_deref());
    part.text("unit", label.unit.as_deref());
    part.duration("window", Some(label.window_ms));
    part.duration("lateness", Some(label.lateness_ms));
    part.put("aggregate", json!(label.aggregate.name()));
    if let Some(default) = &label.default {
        part.put("default", scalar::write(&label.ty, default));
    }
    part.text("requires", label.requires.as_deref());
    if label.owner != LabelOwner::Streaming {
        part.put("owner", word(&OWNERS, label.owner));
    }
    match &label.gate {
        Some(Gate::Rate { per_prediction }) => part.put("gate", json!({"rate": number(*per_prediction)})),
        Some(Gate::Progress { source }) => part.put("gate", json!({"progress": source})),
        None => {}
    }
    part.into()
}

fn word<T: PartialEq>(words: &[(&str, T)], value: T) -> Value {
    words.iter().find(|(_, other)| *other == value).map_or(Value::Null, |(word, _)| json!(word))
}

#[derive(Default)]
struct Part(Map<String, Value>);

impl Part {
    fn put(&mut self, key: &str, value: Value) {
        self.0.insert(key.to_owned(), value);
    }

    fn text(&mut self, key: &str, text: Option<&str>) {
        if let Some(text) = text {
            self.put(key, json!(text));
        }
    }

    fn duration(&mut self, key: &str, ms: Option<i64>) {
        if let Some(ms) = ms {
            self.put(key, json!(format(ms)));
        }
    }

    fn list(&mut self, key: &str, items: impl Iterator<Item = Value>) {
        let items: Vec<Value> = items.collect();
        if !items.is_empty() {
            self.put(key, Value::Array(items));
        }
    }
}

impl From<Part> for Value {
    fn from(part: Part) -> Value {
        Value::Object(part.0)
    }
}
