//! The label function: what a prediction's labels are at a tick, as a pure function of the statements about it.
//!
//! There is no clock, no I/O and no state in here. What counts is the *set* of statements: their order, copies of
//! them, and the way they were batched change nothing.
//!
//! # Times
//! `p.t` (the prediction's event time), `i` (a statement's ingest time, when the log received it) and the tick `T`
//! are whole milliseconds; a statement's event time and op time are microseconds, since a client may give them.
//! Milliseconds are compared with microseconds as `1000 · ms`, saturating at the ends of 64 bits, so an outcome at
//! `p.t + window` to the microsecond is outside and one a microsecond earlier is inside.
//! `t = min(event_time, i)`: nothing happens after it was reported, whatever the reporter's clock says.
//!
//! # The rule
//! For prediction p, label ℓ and tick T, over the statements with `i < T`:
//! 1. Of the copies of one `event_id` the one with the least `(i, partition, offset)` counts.
//! 2. Of the statements of one fact, that is of one `outcome_id`, that speak of ℓ, the one with the greatest
//!    `(revision, op_time, event_id)` counts. An assert speaks of ℓ when it has a value for ℓ of ℓ's declared type;
//!    a retract when it names ℓ or names no label at all. A retract wins like any other, also when it comes first.
//! 3. Retracted facts are dropped.
//! 4. Facts with `p.t − 5 min ≤ t < p.t + window` are kept. These are the *live* facts.
//! 5. The live facts are aggregated in the order `(t, outcome_id)`:
//!
//! | aggregate | for | value | deciding facts |
//! |---|---|---|---|
//! | `any` | boolean | whether one is true | the first true, else all |
//! | `all` | boolean | whether none is false | the first false, else all |
//! | `count` | int, long | number of live facts, whatever they state | all |
//! | `sum` | int, long, decimal | exact sum; null and `overflow` when it leaves the declared type's range | all |
//! | `min` `max` | all scalar types | least, greatest | the first that has this value |
//! | `first` `last` | all scalar types | of the first, of the last fact | that one |
//!
//! `min` and `max` order floats by the IEEE 754 total order (`−NaN < −∞ < … < −0 < +0 < … < +∞ < NaN`), false before
//! true, numbers and times by value, text and bytes bytewise. A count leaves its range as a sum does. Validation
//! refuses a contract with another pair of type and aggregate; here such a label has the value null.
//!
//! `close(ℓ) = p.t + window + lateness`, and not before the close of the label it `requires`
//! ([`Contract::close_ms`]). The status is the first that holds:
//!
//! | status | when | value |
//! |---|---|---|
//! | `pending` | `T < close(ℓ)`, and always for labels of a batch job | the aggregate so far, or null; of a batch job null |
//! | `observed` | there is a live fact | the aggregate |
//! | `not_exposed` | the label it `requires` is not true at T, or the exposure is not `served` | null |
//! | `default` | the label has a default | the default |
//! | `missing` | else | null |
//!
//! A prediction without an exposure was served. `at` is the greatest `t` and `known_at` the greatest `i` of the
//! deciding facts; both are null where no fact decided.

mod aggregate;
mod place;

#[cfg(test)]
pub(crate) mod tests;

use std::ops::Range;

use flywheel_schemas::contract::{Contract, Label, Scalar};
use flywheel_schemas::types::Type;
use serde::{Deserialize, Serialize};

pub use place::{Place, is_of_batch, place};

/// How long before its prediction an outcome may have happened and still count: clocks differ.
pub const SKEW_US: i64 = 300_000_000;

/// The exposure of a prediction that somebody saw.
pub const SERVED: &str = "served";

/// One landed outcome record: a statement about one prediction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Statement {
    pub event_id: String,
    /// The fact that is stated; empty where the client gave none.
    pub outcome_id: String,
    pub revision: i64,
    pub op: Op,
    pub op_time_us: i64,
    pub event_time_us: i64,
    pub ingest_time_ms: i64,
    pub partition: i32,
    pub offset: i64,
    /// The contract under which it was stated; no part of the rule.
    pub contract_version: Option<i32>,
    /// What a retract takes back, empty for all; not read of an assert.
    pub labels: Vec<String>,
    /// What an assert states, by label name; not read of a retract.
    pub values: Vec<(String, Scalar)>,
}

impl Statement {
    /// Statements are counted, and of copies the first is chosen, in this order.
    pub fn order(&self) -> (i64, i32, i64) {
        (self.ingest_time_ms, self.partition, self.offset)
    }

    /// When it happened as far as labels go: the event time, but not after the ingest time. Microseconds.
    pub fn time_us(&self) -> i64 {
        self.event_time_us.min(self.ingest_time_ms.saturating_mul(1000))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Op {
    Assert,
    Retract,
}

impl Op {
    /// The word in records and tables.
    pub fn name(self) -> &'static str {
        match self {
            Op::Assert => "assert",
            Op::Retract => "retract",
        }
    }

    pub fn parse(word: &str) -> Option<Op> {
        [Op::Assert, Op::Retract].into_iter().find(|op| op.name() == word)
    }
}

/// What the rule asks of a prediction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prediction<'a> {
    pub event_time_ms: i64,
    /// None counts as `served`.
    pub exposure: Option<&'a str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    Pending,
    Observed,
    NotExposed,
    Default,
    Missing,
}

impl Status {
    /// The word in tables.
    pub fn name(self) -> &'static str {
        match self {
            Status::Pending => "pending",
            Status::Observed => "observed",
            Status::NotExposed => "not_exposed",
            Status::Default => "default",
            Status::Missing => "missing",
        }
    }
}

/// A label at a tick.
#[derive(Debug, Clone, PartialEq)]
pub struct LabelState {
    pub value: Option<Scalar>,
    pub status: Status,
    /// Greatest t of the deciding facts.
    pub at_us: Option<i64>,
    /// Greatest i of the deciding facts.
    pub known_at_ms: Option<i64>,
    /// The value is null because it left the range of the label's type.
    pub overflow: bool,
}

impl LabelState {
    /// Whether value and status are the same: values by their bits, with one NaN. A revision is due where they are
    /// not.
    pub fn says_the_same(&self, other: &LabelState) -> bool {
        let values = match (&self.value, &other.value) {
            (Some(Scalar::Float(a)), Some(Scalar::Float(b))) => {
                a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan())
            }
            (Some(Scalar::Double(a)), Some(Scalar::Double(b))) => {
                a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan())
            }
            (a, b) => a == b,
        };
        values && self.status == other.status
    }

    fn empty(status: Status) -> LabelState {
        LabelState { value: None, status, at_us: None, known_at_ms: None, overflow: false }
    }
}

/// The states of all labels of `contract` for `prediction` at `tick_ms`, in the order of the contract.
///
/// `statements` are those about this prediction, in any order, copies included; those with an ingest time at or after
/// the tick are left out here.
pub fn evaluate(
    contract: &Contract,
    prediction: &Prediction,
    tick_ms: i64,
    statements: &[Statement],
) -> Vec<LabelState> {
    let events = distinct(statements, tick_ms);
    contract.labels.iter().map(|label| state(contract, label, prediction, tick_ms, &events)).collect()
}

/// Step 1: the known statements, one per event id.
fn distinct(statements: &[Statement], tick_ms: i64) -> Vec<&Statement> {
    let mut known: Vec<&Statement> = statements.iter().filter(|statement| statement.ingest_time_ms < tick_ms).collect();
    known.sort_unstable_by_key(|s| (s.event_id.as_str(), s.ingest_time_ms, s.partition, s.offset));
    known.dedup_by_key(|statement| statement.event_id.as_str());
    known
}

fn state(
    contract: &Contract,
    label: &Label,
    prediction: &Prediction,
    tick_ms: i64,
    events: &[&Statement],
) -> LabelState {
    if !label.is_streaming() {
        return LabelState::empty(Status::Pending);
    }
    let facts = live(label, prediction, events);
    let closed = tick_ms >= prediction.event_time_ms.saturating_add(contract.close_ms(label));
    if !closed {
        return aggregate::apply(label, &facts)
            .unwrap_or_else(|| LabelState::empty(Status::Pending))
            .with_status(Status::Pending);
    }
    if let Some(observed) = aggregate::apply(label, &facts) {
        return observed;
    }
    // The label that is required has closed too, and validation has excluded cycles, so this ends.
    let required = label.requires.as_deref().map(|name| {
        contract.label(name).and_then(|required| state(contract, required, prediction, tick_ms, events).value)
    });
    let exposed = required.is_none_or(|value| value == Some(Scalar::Boolean(true)))
        && prediction.exposure.is_none_or(|exposure| exposure == SERVED);
    if !exposed {
        return LabelState::empty(Status::NotExposed);
    }
    match &label.default {
        Some(default) => LabelState { value: Some(default.clone()), ..LabelState::empty(Status::Default) },
        None => LabelState::empty(Status::Missing),
    }
}

impl LabelState {
    fn with_status(self, status: Status) -> LabelState {
        LabelState { status, ..self }
    }
}

/// A live fact.
struct Fact<'a> {
    /// Microseconds.
    time_us: i64,
    ingest_time_ms: i64,
    outcome_id: &'a str,
    value: &'a Scalar,
}

/// Steps 2 to 4: the live facts of a label, in the order `(t, outcome_id)`.
fn live<'a>(label: &Label, prediction: &Prediction, events: &[&'a Statement]) -> Vec<Fact<'a>> {
    let mut said: Vec<(&Statement, Option<&Scalar>)> =
        events.iter().filter_map(|statement| says(statement, label).map(|value| (*statement, value))).collect();
    // The statement that counts comes first among those of its outcome id.
    said.sort_unstable_by(|(a, _), (b, _)| {
        let rank = |s: &'a Statement| (s.revision, s.op_time_us, s.event_id.as_str());
        a.outcome_id.cmp(&b.outcome_id).then_with(|| rank(b).cmp(&rank(a)))
    });
    said.dedup_by_key(|(statement, _)| statement.outcome_id.as_str());

    let window = window_us(label, prediction.event_time_ms);
    let mut facts: Vec<Fact> = said
        .into_iter()
        .filter_map(|(statement, value)| {
            let time_us = statement.time_us();
            let ingest_time_ms = statement.ingest_time_ms;
            // A retract has no value.
            value.filter(|_| window.contains(&time_us)).map(|value| Fact {
                time_us,
                ingest_time_ms,
                outcome_id: &statement.outcome_id,
                value,
            })
        })
        .collect();
    facts.sort_unstable_by_key(|fact| (fact.time_us, fact.outcome_id));
    facts
}

/// When a fact counts, in microseconds.
fn window_us(label: &Label, event_time_ms: i64) -> Range<i64> {
    let start_us = event_time_ms.saturating_mul(1000);
    start_us.saturating_sub(SKEW_US)..start_us.saturating_add(label.window_ms.saturating_mul(1000))
}

/// What a statement says of a label: nothing (outer none), a value, or that it is taken back (inner none).
fn says<'a>(statement: &'a Statement, label: &Label) -> Option<Option<&'a Scalar>> {
    match statement.op {
        Op::Assert => statement
            .values
            .iter()
            .find(|(name, value)| *name == label.name && is_of(value, &label.ty))
            .map(|(_, value)| Some(value)),
        Op::Retract => (statement.labels.is_empty() || statement.labels.contains(&label.name)).then_some(None),
    }
}

/// Tables hold a uuid as text, so text states one.
fn is_of(value: &Scalar, ty: &Type) -> bool {
    matches!(
        (value, ty),
        (Scalar::Boolean(_), Type::Boolean)
            | (Scalar::Int(_), Type::Int)
            | (Scalar::Long(_), Type::Long)
            | (Scalar::Float(_), Type::Float)
            | (Scalar::Double(_), Type::Double)
            | (Scalar::Decimal(_), Type::Decimal { .. })
            | (Scalar::String(_), Type::String)
            | (Scalar::Bytes(_), Type::Bytes)
            | (Scalar::Date(_), Type::Date)
            | (Scalar::Timestamp(_), Type::Timestamp)
            | (Scalar::Uuid(_) | Scalar::String(_), Type::Uuid)
    )
}
