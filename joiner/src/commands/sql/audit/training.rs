//! Every first copy of a prediction with its `as_of` and its labels as known then: the base rows.

use super::super::labels::{self, part};
use super::super::model::Model;
use super::super::{Names, live, ticks};
use super::compare::{self, Column, Sides};

pub(super) fn text(names: &Names, model: &Model, through_us: i64) -> String {
    let due = format!(
        "due AS (
  SELECT p.prediction_id, p.flywheel_as_of_us AS tick_us, p.flywheel_event_us AS event_us, p.exposure, p.contract_version
  FROM sealed p WHERE p.flywheel_as_of_us <= {through_us})"
    );
    let mut queries = vec![ticks::bars(names, model), ticks::firsts(names), ticks::sealed(model), due];
    queries.push(labels::rules(model));
    queries.push(labels::stated(names));
    queries.extend(labels::queries(names, model));
    let columns = model.training.iter().map(|(name, ty)| {
        let right = match (name.as_str(), part(model, name)) {
            ("as_of", _) => format!("CAST(s.tick_us AS {})", names.text_type()),
            ("flags", _) => names.told(&live::flags(names, model), ty),
            (_, Some((part, label))) => labels::told(names, part, label, ty),
            (_, None) => names.told(&format!("p.{}", names.column(name)), ty),
        };
        Column { name: name.clone(), right, found: names.told(&format!("t.{}", names.column(name)), ty) }
    });
    let as_of = names.micros("t.as_of");
    let sides = Sides {
        table: "training",
        columns: columns.collect(),
        right: "sealed p JOIN states s ON s.prediction_id = p.prediction_id".to_owned(),
        found: format!("{} t WHERE {as_of} <= {through_us}", names.table("training")),
        queries,
        key: &[],
    };
    compare::text(names, sides)
}
