//! The `sampling` block: which share of the predictions is kept, by what, and which are kept at another rate.

use super::parse::Placed;
use super::place::Place;
use super::rules::Draft;
use super::{Block, Field, Privacy, Scalar, scalar};
use crate::types::Type;

/// How a contract samples. The decision itself is [`crate::sampling::is_in`].
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// The share of predictions for which no rule of `keep` holds: more than 0, at most 1.
    pub rate: f64,
    /// `prediction_id`, or an entity or context field.
    pub key: String,
    /// The first that holds decides the rate.
    pub keep: Vec<Keep>,
}

/// A rate of its own for predictions of one kind.
#[derive(Debug, Clone, PartialEq)]
pub struct Keep {
    /// A field of the prediction block, without privacy.
    pub field: String,
    /// It holds for no prediction in which the field is absent.
    pub condition: Condition,
    /// More than 0, at most 1.
    pub rate: f64,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Condition {
    /// Of an int, long, float or double; both ends belong to it, and there is at least one. NaN is in no range.
    Between { min: Option<f64>, max: Option<f64> },
    /// Of a boolean or a string.
    Equals(Scalar),
}

impl Sampling {
    /// Every prediction: what holds where a contract says nothing.
    pub(crate) fn all() -> Sampling {
        Sampling { rate: 1.0, key: "prediction_id".to_owned(), keep: Vec::new() }
    }
}

/// Reads the block. `prediction`: the fields of that block, as far as they could be read.
pub(super) fn read(place: &Place, prediction: &[Placed<'_, Field>]) -> Option<Sampling> {
    let mut object = place.object()?;
    let given = object.get("rate").and_then(|place| rate(&place));
    let key = object.get("key").and_then(|place| place.text().map(str::to_owned));
    let keep_place = object.get("keep");
    let keep: Vec<Keep> =
        keep_place.iter().flat_map(|place| place.items()).filter_map(|p| keep(&p, prediction)).collect();
    object.finish();
    let all = Sampling::all();
    Some(Sampling { rate: given.unwrap_or(all.rate), key: key.unwrap_or(all.key), keep })
}

fn rate(place: &Place) -> Option<f64> {
    let rate = place.number()?;
    if !(rate > 0.0 && rate <= 1.0) {
        place.fault("a rate is more than 0 and at most 1");
    }
    Some(rate)
}

fn keep(place: &Place, prediction: &[Placed<'_, Field>]) -> Option<Keep> {
    let mut object = place.object()?;
    let field = object.require("field").and_then(|place| {
        let name = place.text()?;
        let found = prediction.iter().find(|field| field.value.name == name);
        if found.is_none() {
            place.fault(format!("`{name}` is no field of prediction; a rule goes by a field of that block"));
        }
        found
    });
    let ty = field.filter(|field| field.typed).map(|field| &field.value.ty);
    if field.is_some_and(|field| field.value.privacy != Privacy::None) {
        place.fault("the field is private, and the rate in the row would tell of its value; go by another field");
    }
    let min = object.get("min").and_then(|place| place.number());
    let max = object.get("max").and_then(|place| place.number());
    let equals = object.get("equals").and_then(|place| {
        let (text, bare) = place.scalar()?;
        let ty = ty.filter(|ty| matches!(ty, Type::Boolean | Type::String))?;
        scalar::read(ty, text, bare).map_err(|message| place.fault(message)).ok()
    });
    let (has_range, has_equals) = (object.has("min") || object.has("max"), object.has("equals"));
    let given = object.require("rate").and_then(|place| rate(&place));
    object.finish();
    let is_number = |ty: &Type| matches!(ty, Type::Int | Type::Long | Type::Float | Type::Double);
    match (has_range, has_equals, ty) {
        (false, false, _) => place.fault("the rule says of no value that it holds; write min, max or equals"),
        (true, true, _) => place.fault("a rule has either a range or a value to equal; write one of the two"),
        (true, false, Some(ty)) if !is_number(ty) => {
            place.fault("min and max need an int, long, float or double; for a boolean or a string write equals");
        }
        (false, true, Some(ty)) if !matches!(ty, Type::Boolean | Type::String) => {
            place.fault("equals needs a boolean or a string; for a number write min and max");
        }
        _ => {}
    }
    if let (Some(min), Some(max)) = (min, max)
        && min > max
    {
        place.fault("min is greater than max; swap them");
    }
    let condition = match equals {
        Some(value) => Condition::Equals(value),
        None => Condition::Between { min, max },
    };
    Some(Keep { field: field?.value.name.clone(), condition, rate: given? })
}

/// The key must be there, be one text everywhere, and reach the row.
pub(super) fn check_key(draft: &Draft) {
    let (sampling, place) = draft.sampling;
    let place = place.unwrap_or(draft.root);
    let key = &sampling.key;
    if *key == Sampling::all().key {
        return;
    }
    let found = draft
        .fields()
        .find(|(block, field)| matches!(block, Block::Entity | Block::Context) && field.value.name == *key);
    let Some((_, field)) = found else {
        return place.fault(format!(
            "the key `{key}` is neither prediction_id nor a field of entity or context; write one of these"
        ));
    };
    if field.typed && !matches!(field.value.ty, Type::String | Type::Uuid | Type::Int | Type::Long) {
        place.fault(format!("the key `{key}` must be a string, uuid, int or long, whose text is one everywhere"));
    } else if !field.value.required {
        place.fault(format!(
            "the key `{key}` may be absent, and then nothing decides; declare the field with required: true"
        ));
    } else if field.value.privacy != Privacy::None {
        place.fault(format!("the key `{key}` is private: nobody could tell from the rows what decided; use another"));
    }
}
