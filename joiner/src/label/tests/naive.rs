//! The rule of the module said a second time, the way it reads: a statement counts unless another one beats it.

use super::*;

type Us = i128;

pub(crate) fn evaluate(contract: &Contract, p: &Prediction, tick: i64, all: &[Statement]) -> Vec<LabelState> {
    contract.labels.iter().map(|label| one(contract, label, p, tick, all)).collect()
}

fn one(contract: &Contract, label: &Label, p: &Prediction, tick: i64, all: &[Statement]) -> LabelState {
    let blank = |status| LabelState { value: None, status, at_us: None, known_at_ms: None, overflow: false };
    if label.owner == LabelOwner::Batch {
        return blank(Status::Pending);
    }
    let mut close = p.event_time_ms + label.window_ms + label.lateness_ms;
    let required = label.requires.as_ref().map(|name| contract.labels.iter().find(|l| l.name == *name).unwrap());
    if let Some(required) = required {
        close = close.max(p.event_time_ms + required.window_ms + required.lateness_ms);
    }
    let facts = live(label, p, tick, all);
    if !facts.is_empty() {
        let status = if tick < close { Status::Pending } else { Status::Observed };
        return LabelState { status, ..aggregated(label, facts) };
    }
    if tick < close {
        return blank(Status::Pending);
    }
    let required_is_true = match required {
        Some(required) => matches!(one(contract, required, p, tick, all).value, Some(Boolean(true))),
        None => true,
    };
    if !required_is_true || !matches!(p.exposure, None | Some("served")) {
        return blank(Status::NotExposed);
    }
    match &label.default {
        Some(value) => LabelState { value: Some(value.clone()), ..blank(Status::Default) },
        None => blank(Status::Missing),
    }
}

fn t(s: &Statement) -> Us {
    Us::from(s.event_time_us).min(Us::from(s.ingest_time_ms) * 1000)
}

fn value<'a>(s: &'a Statement, label: &Label) -> Option<&'a Scalar> {
    s.values.iter().find(|(name, _)| *name == label.name).map(|(_, value)| value)
}

fn speaks(s: &Statement, label: &Label) -> bool {
    match s.op {
        Op::Assert => value(s, label).is_some(),
        Op::Retract => s.labels.is_empty() || s.labels.contains(&label.name),
    }
}

fn live<'a>(label: &Label, p: &Prediction, tick: i64, all: &'a [Statement]) -> Vec<&'a Statement> {
    let known = |s: &&Statement| s.ingest_time_ms < tick;
    let earlier = |a: &Statement, b: &Statement| {
        a.event_id == b.event_id
            && (a.ingest_time_ms, a.partition, a.offset) < (b.ingest_time_ms, b.partition, b.offset)
    };
    let is_first = |s: &&Statement| !all.iter().filter(known).any(|other| earlier(other, s));
    let beats = |a: &Statement, b: &Statement| {
        a.outcome_id == b.outcome_id
            && speaks(a, label)
            && (a.revision, a.op_time_us, &a.event_id) > (b.revision, b.op_time_us, &b.event_id)
    };
    let from = Us::from(p.event_time_ms - 5 * MINUTE_MS) * 1000;
    let to = Us::from(p.event_time_ms + label.window_ms) * 1000;
    all.iter()
        .filter(known)
        .filter(is_first)
        .filter(|s| speaks(s, label))
        .filter(|s| !all.iter().filter(known).filter(is_first).any(|other| beats(other, s)))
        .filter(|s| s.op == Op::Assert)
        .filter(|s| from <= t(s) && t(s) < to)
        .collect()
}

fn aggregated(label: &Label, facts: Vec<&Statement>) -> LabelState {
    let of = |s: &Statement| value(s, label).unwrap().clone();
    let place = |s: &&&Statement| (t(s), s.outcome_id.clone());
    let is = |wanted: bool| move |s: &&&Statement| matches!(value(s, label), Some(Boolean(b)) if *b == wanted);
    let passed_by_none = |passes: fn(&Scalar, &Scalar) -> bool| {
        facts.iter().filter(|s| !facts.iter().any(|other| passes(&of(other), &of(s)))).min_by_key(place)
    };
    let digits = |exact: Option<i128>, n: u32| exact.filter(|sum| sum.unsigned_abs() < 10_u128.pow(n));
    let count = i64::try_from(facts.len()).unwrap();
    let (value, deciding) = match label.aggregate {
        Aggregate::First => (None, facts.iter().min_by_key(place)),
        Aggregate::Last => (None, facts.iter().max_by_key(place)),
        Aggregate::Min => (None, passed_by_none(below)),
        Aggregate::Max => (None, passed_by_none(|a, b| below(b, a))),
        Aggregate::Any => {
            (Some(Boolean(facts.iter().any(|s| is(true)(&s)))), facts.iter().filter(is(true)).min_by_key(place))
        }
        Aggregate::All => {
            (Some(Boolean(!facts.iter().any(|s| is(false)(&s)))), facts.iter().filter(is(false)).min_by_key(place))
        }
        Aggregate::Count => {
            (Some(if label.ty == Type::Int { Int(i32::try_from(count).unwrap()) } else { Long(count) }), None)
        }
        Aggregate::Sum => {
            let exact = sum(facts.iter().map(|s| of(s)));
            let sum = match label.ty {
                Type::Int => exact.and_then(|sum| i32::try_from(sum).ok()).map(Int),
                Type::Long => exact.and_then(|sum| i64::try_from(sum).ok()).map(Long),
                Type::Decimal { precision, .. } => digits(exact, precision.into()).map(Decimal),
                _ => unreachable!(),
            };
            (sum, None)
        }
    };
    let overflow = label.aggregate == Aggregate::Sum && value.is_none();
    let chosen = matches!(label.aggregate, Aggregate::First | Aggregate::Last | Aggregate::Min | Aggregate::Max);
    let deciders: Vec<&Statement> = deciding.map_or(facts.clone(), |s| vec![*s]);
    LabelState {
        value: if chosen { deciding.map(|s| of(s)) } else { value },
        status: Status::Observed,
        at_us: deciders.iter().map(|s| i64::try_from(t(s)).unwrap()).max(),
        known_at_ms: deciders.iter().map(|s| s.ingest_time_ms).max(),
        overflow,
    }
}

/// By decimal halves, which is another way than the module's.
fn sum(values: impl Iterator<Item = Scalar>) -> Option<i128> {
    const HALF: i128 = 10_i128.pow(19);
    let (mut high, mut low) = (0, 0);
    for value in values {
        let value = match value {
            Int(value) => value.into(),
            Long(value) => value.into(),
            Decimal(value) => value,
            _ => unreachable!(),
        };
        high += value / HALF;
        low += value % HALF;
    }
    high += low / HALF;
    low %= HALF;
    high.checked_mul(HALF)?.checked_add(low)
}

/// Whether `a` is below `b`: floats through the order-preserving map of their bits to integers.
fn below(a: &Scalar, b: &Scalar) -> bool {
    let float = |x: f32| {
        let bits = x.to_bits();
        if bits >> 31 == 1 { !bits } else { bits | 1 << 31 }
    };
    let double = |x: f64| {
        let bits = x.to_bits();
        if bits >> 63 == 1 { !bits } else { bits | 1 << 63 }
    };
    match (a, b) {
        (Boolean(a), Boolean(b)) => !a && *b,
        (Int(a), Int(b)) | (Scalar::Date(a), Scalar::Date(b)) => a < b,
        (Long(a), Long(b)) | (Scalar::Timestamp(a), Scalar::Timestamp(b)) => a < b,
        (Scalar::Float(a), Scalar::Float(b)) => float(*a) < float(*b),
        (Double(a), Double(b)) => double(*a) < double(*b),
        (Decimal(a), Decimal(b)) => a < b,
        (Scalar::String(a), Scalar::String(b)) | (Scalar::Uuid(a), Scalar::Uuid(b)) => a.as_bytes() < b.as_bytes(),
        (Scalar::Bytes(a), Scalar::Bytes(b)) => a < b,
        _ => unreachable!(),
    }
}
