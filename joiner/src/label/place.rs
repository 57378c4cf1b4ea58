//! Whether a statement found a place in a label, whatever became of it there.
//!
//! An assert has a place where a label of the prediction's contract takes its value (as step 2 of the rule asks) and `t` lies in
//! that label's window (step 4). A retract has one where such a label is among those that it takes back: it is read whenever
//! its fact happened. That another statement beat it changes nothing; labels of a batch job are not looked at.

use flywheel_schemas::contract::{Contract, LabelOwner};

use super::{Op, Statement, says, window_us};

/// What a statement finds in the labels of a prediction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Found,
    /// It speaks of no label of the contract.
    NoLabel,
    /// It speaks of labels, and happened outside the window of each.
    NoWindow,
}

/// The place of `statement` in the labels that `contract` has for a prediction of `event_time_ms`.
pub fn place(contract: &Contract, event_time_ms: i64, statement: &Statement) -> Place {
    let mut place = Place::NoLabel;
    for label in contract.labels.iter().filter(|label| label.is_streaming()) {
        if says(statement, label).is_some() {
            let is_in = statement.op == Op::Retract || window_us(label, event_time_ms).contains(&statement.time_us());
            if is_in {
                return Place::Found;
            }
            place = Place::NoWindow;
        }
    }
    place
}

/// Whether a statement speaks of a label that a batch job owns: it is that job's, and never without a place.
pub fn is_of_batch(contract: &Contract, statement: &Statement) -> bool {
    let mut labels = contract.labels.iter().filter(|label| label.owner == LabelOwner::Batch);
    labels.any(|label| says(statement, label).is_some())
}
