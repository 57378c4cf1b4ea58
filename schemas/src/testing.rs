//! Generators of contracts for property tests: single ones, chains of allowed changes, and pairs that contradict.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Map, Value, json};

use crate::contract::{Block, Contract};
use crate::types::Type;

/// Any declared type.
pub fn types() -> impl Strategy<Value = Type> {
    prop_oneof![4 => scalars(), 1 => scalars().prop_map(|item| Type::List(Box::new(item)))]
}

/// Any declared type but lists.
pub fn scalars() -> impl Strategy<Value = Type> {
    let plain = select(vec![
        Type::Boolean,
        Type::Int,
        Type::Long,
        Type::Float,
        Type::Double,
        Type::String,
        Type::Bytes,
        Type::Date,
        Type::Timestamp,
        Type::Uuid,
    ]);
    let decimal = (1_u8..=38)
        .prop_flat_map(|precision| (0..=precision).prop_map(move |scale| Type::Decimal { precision, scale }));
    prop_oneof![5 => plain, 1 => decimal]
}

/// One valid contract, with up to a dozen fields and four labels.
pub fn contracts() -> impl Strategy<Value = Contract> {
    chains(1).prop_map(|mut chain| chain.remove(0))
}

/// Versions 1, 2, … of one model's contract, at most `versions_max`, each of which adds and drops fields and labels.
/// What was dropped may come back as it was.
pub fn chains(versions_max: usize) -> impl Strategy<Value = Vec<Contract>> {
    (head(), universe())
        .prop_flat_map(move |(head, universe)| {
            let parts = subsequence(universe.clone(), 0..=universe.len());
            (Just(head), vec(parts, 1..=versions_max))
        })
        .prop_map(|(head, versions)| {
            (1..).zip(versions).map(|(version, parts)| assemble(&head, version, &parts)).collect()
        })
}

/// A pair of which the second may not follow the first: a field has another type.
#[derive(Debug, Clone)]
pub struct Contradiction {
    pub old: Contract,
    pub new: Contract,
    pub seen: Seen,
}

/// Which compatibility checks of Avro schemas see a changed type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// Every one: the types are written differently.
    Always,
    /// A decimal got another precision or scale: the directory registry sees it, not every server does.
    Sometimes,
    /// None: the types are written alike or resolve to each other (a date is an int, a string reads as bytes).
    Never,
}

pub fn contradictions() -> impl Strategy<Value = Contradiction> {
    let blocks = select(Block::ALL.to_vec());
    (head(), universe(), blocks, types(), types())
        .prop_filter("the types differ", |(_, _, _, old, new)| old != new)
        .prop_map(|(head, mut parts, block, old, new)| {
            let part = |ty: &Type| Part::Field { block, json: json!({"name": "turncoat", "type": ty.to_string()}) };
            parts.push(part(&old));
            let before = assemble(&head, 1, &parts);
            parts.pop();
            parts.push(part(&new));
            let seen = match (item(&old), item(&new)) {
                _ if written(&old) != written(&new) => Seen::Always,
                (Type::Decimal { .. }, Type::Decimal { .. }) => Seen::Sometimes,
                _ => Seen::Never,
            };
            Contradiction { old: before, new: assemble(&head, 2, &parts), seen }
        })
}

fn item(ty: &Type) -> &Type {
    match ty {
        Type::List(item) => item,
        other => other,
    }
}

/// What Avro's resolution tells apart.
fn written(ty: &Type) -> String {
    match ty {
        Type::Date => "int".to_owned(),
        Type::Timestamp => "long".to_owned(),
        Type::String | Type::Uuid | Type::Bytes | Type::Decimal { .. } => "bytes".to_owned(),
        Type::List(item) => format!("list<{}>", written(item)),
        other => other.to_string(),
    }
}

/// A field or a label, as it stands in the contract's JSON.
#[derive(Debug, Clone)]
enum Part {
    Field { block: Block, json: Value },
    Label(Value),
}

/// The settings that stay the same in all versions.
fn head() -> impl Strategy<Value = Map<String, Value>> {
    let seal = (select(vec!["1m", "5m", "1h"]), select(vec!["0s", "10m", "90s"]), select(vec!["0s", "7d"]));
    (option::of(text()), option::of(text()), seal, select(vec!["minted", "caller"]), 0.001..=1.0_f64).prop_map(
        |(owner, description, (grid, drain, horizon), ids, rate)| {
            let head = json!({
                "apiVersion": "flywheel/v1",
                "kind": "ModelContract",
                "model": "generated_1",
                "owner": owner,
                "description": description,
                "seal": {"grid": grid, "drain": drain, "horizon": horizon},
                "ids": ids,
                "sampling": {"rate": rate},
            });
            head.as_object().cloned().unwrap_or_default()
        },
    )
}

/// Everything that some version may have; the names are distinct by number.
fn universe() -> impl Strategy<Value = Vec<Part>> {
    (vec(field(), 1..12), vec(label(), 0..4)).prop_map(|(fields, labels)| {
        let fields = (0..).zip(fields).map(|(n, (block, mut json))| {
            rename(&mut json, "f", n);
            Part::Field { block, json }
        });
        let labels = (0..).zip(labels).map(|(n, mut json)| {
            rename(&mut json, "l", n);
            Part::Label(json)
        });
        fields.chain(labels).collect()
    })
}

fn rename(json: &mut Value, letter: &str, number: usize) {
    let name = json.get("name").and_then(Value::as_str).unwrap_or_default();
    let name = format!("{letter}{number}_{name}");
    if let Some(object) = json.as_object_mut() {
        object.insert("name".to_owned(), json!(name));
    }
}

fn name() -> impl Strategy<Value = String> {
    // A label's further columns end in `_at` and the like; a digit at the end keeps generated names apart from them.
    "[a-z0-9_]{0,20}[0-9]"
}

/// What people write into descriptions, and what breaks naive quoting.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![r#"[ -~]{0,30}"#, r#"[a-zäß→"\\{}:#\n\t'&*!-]{0,12}"#]
}

fn field() -> impl Strategy<Value = (Block, Value)> {
    let notes = (option::of(text()), option::of(text()), option::of(text()), any::<bool>());
    let range = option::of((-1e6..0.0_f64, 0.0..1e6_f64));
    let privacy = select(vec!["none", "drop", "mask", "hmac"]);
    (select(Block::ALL.to_vec()), name(), types(), notes, range, privacy).prop_map(
        |(block, name, ty, (unit, description, kind, required), range, privacy)| {
            let ranged = matches!(ty, Type::Int | Type::Long | Type::Float | Type::Double);
            let expect = range.filter(|_| ranged).map(|(min, max)| json!({"min": min, "max": max}));
            let privacy = if ty == Type::String || privacy == "drop" { privacy } else { "none" };
            let json = json!({
                "name": name, "type": ty.to_string(), "unit": unit, "description": description, "kind": kind,
                "required": required, "expect": expect, "privacy": privacy,
            });
            (block, json)
        },
    )
}

fn label() -> impl Strategy<Value = Value> {
    let rule = prop_oneof![
        (select(vec!["any", "all"]), Just(Type::Boolean)),
        (Just("count"), Just(Type::Long)),
        (Just("sum"), select(vec![Type::Int, Type::Long, Type::Decimal { precision: 12, scale: 3 }])),
        (select(vec!["min", "max"]), scalars().prop_filter("ordered", Type::is_ordered)),
        (select(vec!["first", "last"]), scalars()),
    ];
    let times = (1_i64..100_000, 0_i64..100_000);
    (name(), rule, times, option::of(text()), any::<bool>(), any::<bool>()).prop_map(
        |(name, (aggregate, ty), (window, lateness), description, default, batch)| {
            json!({
                "name": name, "type": ty.to_string(), "aggregate": aggregate, "window": format!("{window}s"),
                "lateness": format!("{lateness}ms"), "description": description,
                "default": if default { default_of(&ty) } else { Value::Null },
                "owner": if batch { "batch" } else { "streaming" },
            })
        },
    )
}

fn default_of(ty: &Type) -> Value {
    match ty {
        Type::Boolean => json!(false),
        Type::Int | Type::Long => json!(-7),
        Type::Float => json!(0.1_f32),
        Type::Double => json!("NaN"),
        Type::Decimal { .. } => json!("0"),
        Type::Bytes => json!("AAE="),
        Type::Date => json!("2013-01-31"),
        Type::Timestamp => json!("2013-01-31T12:00:00.000001+01:00"),
        Type::Uuid => json!("01890A5D-AC96-774B-BCCE-B302099A8057"),
        Type::String | Type::List(_) => json!("7"),
    }
}

/// # Panics
/// Where a generated contract is not valid: a fault of the generator or of the validator, which a test must show.
fn assemble(head: &Map<String, Value>, version: i32, parts: &[Part]) -> Contract {
    let mut top = head.clone();
    top.insert("version".to_owned(), json!(version));
    let mut push = |key: &str, json: &Value| {
        let list = top.entry(key.to_owned()).or_insert_with(|| json!([]));
        if let Some(list) = list.as_array_mut() {
            list.push(json.clone());
        }
    };
    for part in parts {
        match part {
            Part::Field { block, json } => push(block.name(), json),
            Part::Label(json) => push("labels", json),
        }
    }
    let json = Value::Object(top);
    match Contract::from_json(&json) {
        Ok(contract) => contract,
        Err(faults) => panic!("a generated contract is refused: {faults:?}\n{json:#}"),
    }
}

#[cfg(test)]
mod tests;
