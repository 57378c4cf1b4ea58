//! Contracts and calls that the tests share, and with them the fuzz targets.

#![cfg_attr(not(test), allow(dead_code, unused_imports, clippy::unwrap_used))]

mod arbitrary;
mod candidates;
pub(crate) mod differential;
pub(crate) mod oracle;
mod outcomes;
mod predictions;
mod sampling;
mod values;

use std::sync::Arc;

use apache_avro::Schema;
use apache_avro::types::Value;
use flywheel_schemas::contract::{
    Aggregate, Contract, Expect, Field, Ids, Label, LabelOwner, Privacy, Sampling, Seal, SealWhen,
};
use flywheel_schemas::types::Type;

use super::*;

/// 2013-01-01T05:15:00.123Z, which stands in the bodies of the tests.
pub const NOW_MS: i64 = 1_357_017_300_123;

pub const RECEIPT: Receipt<'static> = Receipt { now_ms: NOW_MS, trace_id: None };

pub fn field(name: &str, ty: Type) -> Field {
    Field {
        name: name.to_owned(),
        ty,
        required: false,
        unit: None,
        description: None,
        kind: None,
        privacy: Privacy::None,
        expect: None,
        view: None,
    }
}

pub fn label(name: &str, ty: Type, aggregate: Aggregate) -> Label {
    Label {
        name: name.to_owned(),
        ty,
        description: None,
        unit: None,
        window_ms: 3_600_000,
        lateness_ms: 600_000,
        aggregate,
        default: None,
        requires: None,
        owner: LabelOwner::Streaming,
        gate: None,
    }
}

/// A model of flights: one field of most kinds.
pub fn flights() -> Contract {
    Contract {
        model: "flight_delay".to_owned(),
        version: 3,
        owner: None,
        description: None,
        successor_of: None,
        entity: vec![field("tail_number", Type::String), field("leg", Type::Long)],
        views: Vec::new(),
        features: vec![
            Field {
                required: true,
                expect: Some(Expect { min: Some(-60.0), max: Some(2000.0) }),
                ..field("dep_delay_min", Type::Int)
            },
            field("carrier", Type::String),
            Field { expect: Some(Expect { min: Some(0.0), max: None }), ..field("wind_mph", Type::Double) },
            field("embedding", Type::List(Box::new(Type::Float))),
            Field { privacy: Privacy::Mask, ..field("card", Type::String) },
            Field { privacy: Privacy::Drop, ..field("phone", Type::String) },
        ],
        prediction: vec![Field { required: true, ..field("late_probability", Type::Double) }],
        decision: vec![field("action", Type::String)],
        context: Vec::new(),
        labels: vec![
            label("landed", Type::Boolean, Aggregate::Any),
            label("arr_delay", Type::Double, Aggregate::Last),
            label("bags", Type::Int, Aggregate::Sum),
        ],
        seal: Seal { when: SealWhen::AllClosed, grid_ms: 300_000, drain_ms: 600_000, horizon_ms: 0 },
        ids: Ids::Minted,
        sampling: Sampling { rate: 1.0, key: "prediction_id".to_owned(), keep: vec![] },
        point_in_time: None,
        dead_letter_body: false,
    }
}

pub fn plan(contract: Contract) -> Plan {
    Plan::compile(Arc::new(contract)).unwrap()
}

/// Transcodes a good prediction; its datum as apache-avro reads it.
pub fn served(plan: &Plan, body: &str) -> (Served, Value) {
    let mut out = b"before".to_vec();
    let served = prediction(plan, &mut Scratch::default(), body.as_bytes(), &RECEIPT, &mut out)
        .unwrap_or_else(|faults| panic!("{body}: {faults:?}"));
    (served, decode(plan.prediction_schema(), out.strip_prefix(b"before").unwrap()))
}

pub fn stated(plan: &Plan, body: &str) -> (Stated, Value) {
    let mut out = Vec::new();
    let stated = outcome(plan, &mut Scratch::default(), body.as_bytes(), &RECEIPT, &mut out)
        .unwrap_or_else(|faults| panic!("{body}: {faults:?}"));
    (stated, decode(plan.outcome_schema(), &out))
}

/// The faults of a bad body, as `pointer reason`.
pub fn refused(plan: &Plan, body: impl AsRef<[u8]>) -> Vec<String> {
    let mut out = b"before".to_vec();
    let faults = prediction(plan, &mut Scratch::default(), body.as_ref(), &RECEIPT, &mut out).unwrap_err();
    assert_eq!(out, b"before");
    in_short(&faults)
}

pub fn outcome_refused(plan: &Plan, body: &str) -> Vec<String> {
    let mut out = b"before".to_vec();
    let faults = outcome(plan, &mut Scratch::default(), body.as_bytes(), &RECEIPT, &mut out).unwrap_err();
    assert_eq!(out, b"before");
    in_short(&faults)
}

fn in_short(faults: &[Fault]) -> Vec<String> {
    assert!(!faults.is_empty());
    faults.iter().map(|fault| format!("{} {}", fault.pointer, fault.reason)).collect()
}

pub fn decode(schema: &str, datum: &[u8]) -> Value {
    let schema = Schema::parse_str(schema).unwrap();
    let reader = apache_avro::reader::datum::GenericDatumReader::builder(&schema).build().unwrap();
    let mut rest = datum;
    let value = reader.read_value(&mut rest).unwrap();
    assert!(rest.is_empty(), "{} bytes are left over", rest.len());
    value
}

/// The value at a dotted path, out of its unions.
pub fn at(value: &Value, path: &str) -> Value {
    let mut value = value.clone();
    for name in path.split('.') {
        let Value::Record(fields) = unwrapped(value) else { panic!("no record at {name}") };
        value = fields.into_iter().find(|(field, _)| field == name).unwrap_or_else(|| panic!("no {name}")).1;
    }
    unwrapped(value)
}

fn unwrapped(value: Value) -> Value {
    match value {
        Value::Union(_, inner) => *inner,
        other => other,
    }
}
