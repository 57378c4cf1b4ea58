//! From text to contract, with every fault at once.
//!
//! YAML and JSON become one tree ([`Node`]), and one reader goes over it: it notes each fault with line and path and
//! goes on with a stand-in value, so that one run shows all. A contract is handed out only where there was no fault.

use serde_json::Value;

use super::node::Node;
use super::place::{Faults, Object, Place};
use super::{
    Aggregate, Block, Contract, Expect, Field, Gate, Ids, Label, LabelOwner, PointInTime, Privacy, Sampling, Seal,
    SealWhen, View, fault::Fault, rules, sampling, scalar,
};
use crate::types::Type;

pub(super) const API_VERSION: &str = "flywheel/v1";
pub(super) const KIND: &str = "ModelContract";

pub(super) const PRIVACY: [(&str, Privacy); 4] =
    [("none", Privacy::None), ("drop", Privacy::Drop), ("mask", Privacy::Mask), ("hmac", Privacy::Hmac)];
pub(super) const OWNERS: [(&str, LabelOwner); 2] = [("streaming", LabelOwner::Streaming), ("batch", LabelOwner::Batch)];
pub(super) const IDS: [(&str, Ids); 2] = [("minted", Ids::Minted), ("caller", Ids::Caller)];

/// The defaults of `seal`.
const SEAL: Seal = Seal { when: SealWhen::AllClosed, grid_ms: 300_000, drain_ms: 600_000, horizon_ms: 604_800_000 };

/// What a check of a contract text found.
#[derive(Debug)]
pub struct Checked {
    /// The contract, or every fault; never an empty list of them.
    pub result: Result<Contract, Vec<Fault>>,
    /// What is allowed but probably not meant.
    pub warnings: Vec<Fault>,
}

impl Contract {
    /// Reads a contract file.
    ///
    /// # Errors
    /// Every fault of the text, by line.
    pub fn parse(yaml: &str) -> Result<Contract, Vec<Fault>> {
        Contract::check(yaml).result
    }

    /// Reads a contract file, with the warnings that [`Contract::parse`] leaves out.
    pub fn check(yaml: &str) -> Checked {
        let mut faults = Vec::new();
        match Node::from_yaml(yaml, &mut faults) {
            Some(node) => read(&node, faults),
            None => Checked { result: Err(faults), warnings: Vec::new() },
        }
    }

    /// Reads the JSON that [`Contract::to_json`] gives, in any order of its keys.
    ///
    /// # Errors
    /// Every fault, without lines.
    pub fn from_json(json: &Value) -> Result<Contract, Vec<Fault>> {
        read(&Node::from_json(json), Vec::new()).result
    }
}

fn read(node: &Node, faults: Vec<Fault>) -> Checked {
    let faults = Faults::new(faults);
    let warnings = Faults::default();
    let contract = contract(&Place::root(node, &faults), &warnings);
    let warnings = warnings.into_sorted();
    let faults = faults.into_sorted();
    let result = match contract {
        Some(contract) if faults.is_empty() => Ok(contract),
        _ => Err(faults),
    };
    Checked { result, warnings }
}

fn contract(root: &Place, warnings: &Faults) -> Option<Contract> {
    let mut top = root.object()?;
    constant(&mut top, "apiVersion", API_VERSION);
    constant(&mut top, "kind", KIND);
    let model = top.require("model").and_then(|place| place.name()).unwrap_or_default().to_owned();
    let version = top.require("version").and_then(|place| {
        let version = place.whole()?;
        if version < 1 {
            place.fault("a version is at least 1");
        }
        Some(version)
    });
    let owner = text(&mut top, "owner");
    let description = text(&mut top, "description");
    let successor_of = top.get("successor_of").and_then(|place| {
        let name = place.name()?;
        if name == model {
            place.fault("a model cannot succeed itself; name the model whose place this one takes");
        }
        Some(name.to_owned())
    });

    let entity = fields(&mut top, Block::Entity);
    let views = views(&mut top);
    let features = fields(&mut top, Block::Features);
    let prediction = fields(&mut top, Block::Prediction);
    let decision = fields(&mut top, Block::Decision);
    let context = fields(&mut top, Block::Context);
    let labels = labels(&mut top);
    let seal_place = top.get("seal");
    let seal = seal_place.as_ref().and_then(seal).unwrap_or(SEAL);
    let ids = top.get("ids").and_then(|place| place.word(&IDS)).unwrap_or(Ids::Minted);
    let sampling_place = top.get("sampling");
    let sampling =
        sampling_place.as_ref().and_then(|place| sampling::read(place, &prediction)).unwrap_or_else(Sampling::all);
    let point_in_time = top.get("point_in_time").and_then(|place| point_in_time(&place));
    let dead_letter_place = top.get("dead_letter_body");
    let dead_letter_body = dead_letter_place.as_ref().and_then(Place::boolean).unwrap_or(false);

    let draft = rules::Draft {
        root,
        blocks: [
            (Block::Entity, &entity),
            (Block::Features, &features),
            (Block::Prediction, &prediction),
            (Block::Decision, &decision),
            (Block::Context, &context),
        ],
        views: &views,
        labels: &labels,
        seal: (&seal, seal_place.as_ref()),
        sampling: (&sampling, sampling_place.as_ref()),
        dead_letter_body: dead_letter_place.as_ref(),
    };
    rules::check(&draft, warnings);
    top.finish();

    Some(Contract {
        model,
        version: version.unwrap_or_default(),
        owner,
        description,
        successor_of,
        entity: values(entity),
        views: values(views),
        features: values(features),
        prediction: values(prediction),
        decision: values(decision),
        context: values(context),
        labels: values(labels),
        seal,
        ids,
        sampling,
        point_in_time,
        dead_letter_body,
    })
}

/// A part of the contract with the place where it stands.
pub(super) struct Placed<'a, T> {
    pub value: T,
    pub place: Place<'a>,
    /// Whether its type was read; where it was not, rules about types are not applied.
    pub typed: bool,
}

fn values<T>(placed: Vec<Placed<'_, T>>) -> Vec<T> {
    placed.into_iter().map(|placed| placed.value).collect()
}

fn constant(top: &mut Object, key: &'static str, value: &str) {
    if let Some(place) = top.require(key)
        && place.text().is_some_and(|found| found != value)
    {
        place.fault(format!("found {}; this version of Flywheel reads `{value}`", place.node.describe()));
    }
}

fn text(object: &mut Object, key: &'static str) -> Option<String> {
    object.get(key).and_then(|place| place.text().map(str::to_owned))
}

fn duration(object: &mut Object, key: &'static str) -> Option<i64> {
    object.get(key).and_then(|place| place.duration())
}

fn field_type(object: &mut Object) -> Option<Type> {
    let place = object.require("type")?;
    Type::parse(place.text()?).map_err(|message| place.fault(message)).ok()
}

fn fields<'a>(top: &mut Object<'a>, block: Block) -> Vec<Placed<'a, Field>> {
    let named = top.get(block.name()).map(|place| place.named(true)).unwrap_or_default();
    named.into_iter().map(|(name, object)| field(name, object, block)).collect()
}

fn field<'a>(name: &str, mut object: Object<'a>, block: Block) -> Placed<'a, Field> {
    let ty = field_type(&mut object);
    let typed = ty.is_some();
    let ty = ty.unwrap_or(Type::String);
    let required = object.get("required").and_then(|place| place.boolean()).unwrap_or(false);
    let unit = text(&mut object, "unit");
    let description = text(&mut object, "description");
    let kind = text(&mut object, "kind");
    let privacy_place = object.get("privacy");
    let privacy = privacy_place.as_ref().and_then(|place| place.word(&PRIVACY)).unwrap_or(Privacy::None);
    if let Some(place) = privacy_place
        && matches!(privacy, Privacy::Mask | Privacy::Hmac)
        && typed
        && ty != Type::String
    {
        place.fault("mask and hmac leave a text in the place of the value; declare the field as string, or drop it");
    }
    let expect = object.get("expect").and_then(|place| expect(&place, typed.then_some(&ty)));
    let view = if block == Block::Features { text(&mut object, "view") } else { None };
    let place = object.place.clone();
    object.finish();
    let value = Field { name: name.to_owned(), ty, required, unit, description, kind, privacy, expect, view };
    Placed { value, place, typed }
}

fn expect(place: &Place, ty: Option<&Type>) -> Option<Expect> {
    let mut object = place.object()?;
    let min = object.get("min").and_then(|place| place.number());
    let max = object.get("max").and_then(|place| place.number());
    let empty = !object.has("min") && !object.has("max");
    object.finish();
    if ty.is_some_and(|ty| !matches!(ty, Type::Int | Type::Long | Type::Float | Type::Double)) {
        place.fault("a range needs an int, long, float or double; remove it or change the type");
    }
    match (min, max) {
        (Some(min), Some(max)) if min > max => place.fault("min is greater than max; swap them"),
        _ if empty => place.fault("a range needs min, max or both"),
        _ => {}
    }
    Some(Expect { min, max })
}

fn views<'a>(top: &mut Object<'a>) -> Vec<Placed<'a, View>> {
    let named = top.get("views").map(|place| place.named(true)).unwrap_or_default();
    named.into_iter().map(|(name, object)| view(name, object)).collect()
}

fn view<'a>(name: &str, mut object: Object<'a>) -> Placed<'a, View> {
    let store = object.require("store").and_then(|place| place.text()).unwrap_or_default().to_owned();
    let keys = object.require("keys").map(|place| place.pairs("field")).unwrap_or_default();
    let ttl_ms = duration(&mut object, "ttl");
    let max_age_ms = duration(&mut object, "max_age");
    let deadline_ms = duration(&mut object, "deadline");
    let owner = text(&mut object, "owner");
    let place = object.place.clone();
    object.finish();
    if keys.is_empty() && !store.is_empty() {
        place.fault("a view needs at least one key; write keys: {store_key: field}");
    }
    if let (Some(ttl), Some(max_age)) = (ttl_ms, max_age_ms)
        && ttl > max_age
    {
        place.fault("ttl is longer than max_age, so a value would be refused before it is fetched anew; shorten ttl");
    }
    let value = View { name: name.to_owned(), store, keys, ttl_ms, max_age_ms, deadline_ms, owner };
    Placed { value, place, typed: true }
}

fn labels<'a>(top: &mut Object<'a>) -> Vec<Placed<'a, Label>> {
    let named = top.get("labels").map(|place| place.named(true)).unwrap_or_default();
    named.into_iter().map(|(name, object)| label(name, object)).collect()
}

fn label<'a>(name: &str, mut object: Object<'a>) -> Placed<'a, Label> {
    let ty = field_type(&mut object);
    let description = text(&mut object, "description");
    let unit = text(&mut object, "unit");
    let window_ms = object.require("window").and_then(|place| {
        let window = place.duration()?;
        if window == 0 {
            place.fault("an empty window holds no outcome; write one longer than 0");
        }
        Some(window)
    });
    let lateness_ms = object.require("lateness").and_then(|place| place.duration());
    let aggregate = object.require("aggregate").and_then(|place| place.word(&Aggregate::ALL));
    let default = object.get("default").and_then(|place| {
        let (text, bare) = place.scalar()?;
        let ty = ty.as_ref().filter(|ty| !matches!(ty, Type::List(_)))?;
        scalar::read(ty, text, bare).map_err(|message| place.fault(message)).ok()
    });
    let requires = text(&mut object, "requires");
    let owner = object.get("owner").and_then(|place| place.word(&OWNERS)).unwrap_or(LabelOwner::Streaming);
    let gate_place = object.get("gate");
    let gate = gate_place.as_ref().and_then(gate);
    if let Some(place) = gate_place
        && owner == LabelOwner::Batch
    {
        place.fault("a gate holds streaming labels back; a batch label has none: remove it");
    }
    let place = object.place.clone();
    object.finish();
    if let (Some(ty), Some(aggregate)) = (&ty, aggregate)
        && let Err(message) = aggregates(ty, aggregate)
    {
        place.fault(message);
    }
    let typed = ty.is_some();
    let value = Label {
        name: name.to_owned(),
        ty: ty.unwrap_or(Type::String),
        description,
        unit,
        window_ms: window_ms.unwrap_or_default(),
        // A stand-in that draws no warning.
        lateness_ms: lateness_ms.unwrap_or(i64::MAX),
        aggregate: aggregate.unwrap_or(Aggregate::Last),
        default,
        requires,
        owner,
        gate,
    };
    Placed { value, place, typed }
}

/// Whether `aggregate` gives a value of `ty`, and the same one in whatever order the outcomes come.
fn aggregates(ty: &Type, aggregate: Aggregate) -> Result<(), &'static str> {
    match aggregate {
        _ if matches!(ty, Type::List(_)) => Err("a label is a single value; declare no list"),
        Aggregate::Any | Aggregate::All if *ty != Type::Boolean => {
            Err("any and all work on boolean; change the type, or aggregate by first or last")
        }
        Aggregate::Count if *ty != Type::Long => Err("a count is a long; declare the label as long"),
        Aggregate::Sum if !matches!(ty, Type::Int | Type::Long | Type::Decimal { .. }) => {
            Err("a sum needs int, long or decimal (sums of floats depend on their order); change the type")
        }
        Aggregate::Min | Aggregate::Max if !ty.is_ordered() => {
            Err("min and max need a type with an order; aggregate by first or last")
        }
        _ => Ok(()),
    }
}

fn gate(place: &Place) -> Option<Gate> {
    let mut object = place.object()?;
    let rate = object.get("rate").and_then(|place| {
        let per_prediction = place.number()?;
        if !(per_prediction > 0.0 && per_prediction.is_finite()) {
            place.fault("a rate is the least number of outcomes for each prediction, more than 0");
        }
        Some(Gate::Rate { per_prediction })
    });
    let progress = object.get("progress").and_then(|place| Some(Gate::Progress { source: place.name()?.to_owned() }));
    let both = object.has("rate") && object.has("progress");
    let neither = !object.has("rate") && !object.has("progress");
    object.finish();
    if both || neither {
        place.fault("a gate is either rate: NUMBER or progress: SOURCE; write one of the two");
    }
    rate.or(progress)
}

fn seal(place: &Place) -> Option<Seal> {
    let mut object = place.object()?;
    let when = object.get("when").and_then(|place| match place.text()? {
        "all_closed" => Some(SealWhen::AllClosed),
        text => match text.strip_prefix("label:") {
            Some(label) => Some(SealWhen::Label(label.trim().to_owned())),
            None => {
                place.fault(format!("found `{text}`; write all_closed or label:<name>"));
                None
            }
        },
    });
    let grid_ms = object.get("grid").and_then(|place| {
        let grid = place.duration()?;
        if grid < 1_000 || 86_400_000 % grid != 0 {
            place.fault("the grid must divide a day and be at least 1s; write 1m, 5m, 15m, 1h or the like");
        }
        Some(grid)
    });
    let drain_ms = duration(&mut object, "drain");
    let horizon_ms = duration(&mut object, "horizon");
    object.finish();
    Some(Seal {
        when: when.unwrap_or(SEAL.when),
        grid_ms: grid_ms.unwrap_or(SEAL.grid_ms),
        drain_ms: drain_ms.unwrap_or(SEAL.drain_ms),
        horizon_ms: horizon_ms.unwrap_or(SEAL.horizon_ms),
    })
}

fn point_in_time(place: &Place) -> Option<PointInTime> {
    let mut object = place.object()?;
    let name = object.require("name").and_then(|place| place.text()).unwrap_or_default().to_owned();
    let max_feature_ahead_ms = duration(&mut object, "max_feature_ahead").unwrap_or(0);
    object.finish();
    Some(PointInTime { name, max_feature_ahead_ms })
}

#[cfg(test)]
pub(super) mod tests;
