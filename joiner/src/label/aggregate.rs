//! Step 5: one value of the live facts, and which of them decided it.

use std::cmp::Ordering;

use flywheel_schemas::contract::{Aggregate, Label, Scalar};
use flywheel_schemas::types::Type;

use super::{Fact, LabelState, Status};

/// The aggregate of `facts`, which are in the order `(t, outcome_id)`, as an observed state; none without facts.
pub(super) fn apply(label: &Label, facts: &[Fact]) -> Option<LabelState> {
    let (first, last) = (facts.first()?, facts.last()?);
    Some(match label.aggregate {
        Aggregate::Any => decided_by_first(facts, true),
        Aggregate::All => decided_by_first(facts, false),
        Aggregate::Count => total(&label.ty, i128::try_from(facts.len()).ok(), facts),
        Aggregate::Sum => total(&label.ty, sum(facts.iter().filter_map(|fact| whole(fact.value))), facts),
        Aggregate::Min => chosen(extreme(first, facts, Ordering::Less)),
        Aggregate::Max => chosen(extreme(first, facts, Ordering::Greater)),
        Aggregate::First => chosen(first),
        Aggregate::Last => chosen(last),
    })
}

/// `any` (decisive: true) and `all` (decisive: false): the first decisive fact settles it, else all the others do.
fn decided_by_first(facts: &[Fact], decisive: bool) -> LabelState {
    match facts.iter().find(|fact| *fact.value == Scalar::Boolean(decisive)) {
        Some(fact) => chosen(fact),
        None if facts.iter().all(|fact| matches!(fact.value, Scalar::Boolean(_))) => {
            by_all(facts, Some(Scalar::Boolean(!decisive)), false)
        }
        None => by_all(facts, None, false),
    }
}

fn total(ty: &Type, exact: Option<i128>, facts: &[Fact]) -> LabelState {
    let value = exact.and_then(|exact| match ty {
        Type::Int => i32::try_from(exact).ok().map(Scalar::Int),
        Type::Long => i64::try_from(exact).ok().map(Scalar::Long),
        Type::Decimal { precision, .. } => {
            (exact.unsigned_abs() < 10_u128.pow(u32::from(*precision).min(38))).then_some(Scalar::Decimal(exact))
        }
        _ => None,
    });
    let overflow = value.is_none() && matches!(ty, Type::Int | Type::Long | Type::Decimal { .. });
    by_all(facts, value, overflow)
}

/// The exact sum; none where it does not fit 128 bits. Sums of the halves cannot overflow and do not depend on the
/// order, as a running sum of 38 digits would.
fn sum(values: impl Iterator<Item = i128>) -> Option<i128> {
    let (high, low) = values
        .fold((0_i128, 0_i128), |(high, low), value| (high + (value >> 64), low + (value & i128::from(u64::MAX))));
    let high = i64::try_from(high + (low >> 64)).ok()?;
    Some((i128::from(high) << 64) | (low & i128::from(u64::MAX)))
}

fn whole(value: &Scalar) -> Option<i128> {
    match value {
        Scalar::Int(value) => Some(i128::from(*value)),
        Scalar::Long(value) => Some(i128::from(*value)),
        Scalar::Decimal(value) => Some(*value),
        _ => None,
    }
}

/// The first fact whose value none of the others passes in the `wanted` direction.
fn extreme<'f, 'a>(first: &'f Fact<'a>, facts: &'f [Fact<'a>], wanted: Ordering) -> &'f Fact<'a> {
    facts.iter().fold(first, |best, fact| if compare(fact.value, best.value) == wanted { fact } else { best })
}

/// The order of values of one type.
fn compare(a: &Scalar, b: &Scalar) -> Ordering {
    match (a, b) {
        (Scalar::Boolean(a), Scalar::Boolean(b)) => a.cmp(b),
        (Scalar::Int(a), Scalar::Int(b)) | (Scalar::Date(a), Scalar::Date(b)) => a.cmp(b),
        (Scalar::Long(a), Scalar::Long(b)) | (Scalar::Timestamp(a), Scalar::Timestamp(b)) => a.cmp(b),
        (Scalar::Float(a), Scalar::Float(b)) => a.total_cmp(b),
        (Scalar::Double(a), Scalar::Double(b)) => a.total_cmp(b),
        (Scalar::Decimal(a), Scalar::Decimal(b)) => a.cmp(b),
        (Scalar::String(a) | Scalar::Uuid(a), Scalar::String(b) | Scalar::Uuid(b)) => a.cmp(b),
        (Scalar::Bytes(a), Scalar::Bytes(b)) => a.cmp(b),
        // Facts of a label are all of its type.
        _ => Ordering::Equal,
    }
}

fn chosen(fact: &Fact) -> LabelState {
    by_all(std::slice::from_ref(fact), Some(fact.value.clone()), false)
}

fn by_all(facts: &[Fact], value: Option<Scalar>, overflow: bool) -> LabelState {
    LabelState {
        value,
        status: Status::Observed,
        at_us: facts.iter().map(|fact| fact.time_us).max(),
        known_at_ms: facts.iter().map(|fact| fact.ingest_time_ms).max(),
        overflow,
    }
}
