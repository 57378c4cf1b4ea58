//! Outcomes that name an entity, and no prediction: which prediction they are about.
//!
//! The outcomes are in a table of the user's, a row for each fact: `outcome_id` (unique), `event_time`, a column for each part
//! of the model's entity (`--entity`: for some of them), named as in the contract, and `label_<label>` for each label that is
//! asked for. The answer has `prediction_id`, `outcome_id`, `event_time` and the labels, as `flywheel-joiner import outcomes` takes them; a fact that no
//! prediction is found for is not in it.
//!
//! Of the predictions of the same entity those count that were served, not later than the outcome and less than the window
//! before it, and whose first copy the log had by the lateness after it: a prediction that comes later takes nothing away
//! from another. The last touch is the latest of these, the first touch the earliest; of several of one instant the last has
//! the greatest id, the first the least. An outcome waits until all that could count is landed, so that the answer for it is
//! the same whenever it is asked.

use flywheel_schemas::contract::Block;

use super::model::Model;
use super::{Names, Options, labels, ticks};
use crate::label::SERVED;

/// How late a prediction may have landed to count, unless said otherwise, in milliseconds.
const LATENESS_MS: i64 = 600_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Touch {
    First,
    Last,
}

/// # Errors
/// An option that is not there; a contract without an entity or without such a label.
pub(super) fn text(
    names: &Names,
    model: &Model,
    options: &Options,
    touch: Touch,
) -> Result<String, Box<dyn std::error::Error>> {
    let table = options.outcomes.as_deref().ok_or("attribution needs --outcomes TABLE, where the outcomes are")?;
    let window_ms = options.window.ok_or("attribution needs --window DURATION, such as 12h")?;
    let lateness_us = options.lateness.unwrap_or(LATENESS_MS) * 1000;
    let through_us = model.through_us.ok_or_else(|| {
        format!("no tick of `{}` is recorded as done in every partition of its tables yet", names.model)
    })?;
    let Some(contract) = model.contracts.last() else { return Err("the model has no contract".into()) };
    let mut entity: Vec<&str> =
        contract.fields().filter(|(block, _)| *block == Block::Entity).map(|(_, field)| field.name.as_str()).collect();
    if entity.is_empty() {
        return Err(format!("the contract of `{}` has no entity to attribute by", names.model).into());
    }
    if let Some(other) = options.entity.iter().find(|name| !entity.contains(&name.as_str())) {
        return Err(format!("--entity {other}: the contract's entity has {} alone", entity.join(", ")).into());
    }
    entity.retain(|name| options.entity.is_empty() || options.entity.iter().any(|wanted| wanted == name));
    if options.labels.is_empty() {
        return Err("attribution needs --label LABEL, which labels the outcomes state".into());
    }
    let mut columns = vec!["outcome_id".to_owned(), "event_time".to_owned()];
    for name in &options.labels {
        let label = contract
            .label(name)
            .ok_or_else(|| format!("--label {name}: version {} of the contract has no such label", contract.version))?;
        columns.push(labels::column(label));
    }
    let of = |owner: &str| {
        columns.iter().map(|name| format!("{owner}.{}", names.column(name))).collect::<Vec<_>>().join(", ")
    };
    let same: Vec<String> = entity
        .iter()
        .map(|name| format!("p.{} = o.{}", names.column(&Block::Entity.column(name)), names.column(name)))
        .collect();
    let order = if touch == Touch::Last { " DESC" } else { "" };
    Ok(format!(
        "WITH {},
facts AS (SELECT o.*, {} AS flywheel_at_us FROM {table} o),
touches AS (
  SELECT p.prediction_id, {},
    row_number() OVER (
      PARTITION BY o.outcome_id ORDER BY p.flywheel_event_us{order}, p.prediction_id{order}) AS flywheel_touch
  FROM facts o JOIN firsts p ON {}
    AND p.flywheel_event_us <= o.flywheel_at_us AND p.flywheel_event_us > o.flywheel_at_us - {}
    AND p.flywheel_ingest_us <= o.flywheel_at_us + {lateness_us}
  WHERE coalesce(p.exposure, '{SERVED}') = '{SERVED}' AND o.flywheel_at_us + {lateness_us} < {through_us})
SELECT t.prediction_id, {} FROM touches t WHERE t.flywheel_touch = 1",
        ticks::firsts(names),
        names.micros("o.event_time"),
        of("o"),
        same.join(" AND "),
        window_ms * 1000,
        of("t"),
    ))
}
