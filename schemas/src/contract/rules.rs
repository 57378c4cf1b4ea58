//! The rules between the parts of a contract: names that meet in one table, references, cycles.

use std::collections::{BTreeMap, BTreeSet};

use super::parse::Placed;
use super::place::{Faults, Place};
use super::{Block, Field, Label, Privacy, Sampling, Seal, SealWhen, View, sampling};
use crate::table;
use crate::types::Type;

/// How far ahead of its prediction an outcome's clock may be; a lateness should cover that and the drain.
const CLOCK_SLACK_MS: i64 = 300_000;

/// The prefixes of columns that are not declared as fields.
const PREFIXES: [(&str, &str); 3] = [
    ("prediction_", "the columns of the prediction block"),
    ("label_", "the columns of labels"),
    ("flywheel_", "columns that Flywheel may add"),
];

/// What was read, with places for faults.
pub(super) struct Draft<'a, 'p> {
    pub root: &'p Place<'a>,
    pub blocks: [(Block, &'p [Placed<'a, Field>]); 5],
    pub views: &'p [Placed<'a, View>],
    pub labels: &'p [Placed<'a, Label>],
    pub seal: (&'p Seal, Option<&'p Place<'a>>),
    pub sampling: (&'p Sampling, Option<&'p Place<'a>>),
    pub dead_letter_body: Option<&'p Place<'a>>,
}

pub(super) fn check(draft: &Draft, warnings: &Faults) {
    columns(draft);
    views(draft);
    requires(draft);
    seal(draft, warnings);
    sampling::check_key(draft);
    let private = draft.fields().any(|(_, field)| field.value.privacy != Privacy::None);
    if let Some(place) = draft.dead_letter_body.filter(|_| !private) {
        place.fault("no field is private, so refused bodies are kept anyway; remove it");
    }
}

impl<'a, 'p> Draft<'a, 'p> {
    pub fn fields(&self) -> impl Iterator<Item = (Block, &'p Placed<'a, Field>)> + '_ {
        self.blocks.iter().flat_map(|(block, fields)| fields.iter().map(move |field| (*block, field)))
    }

    fn label(&self, name: &str) -> Option<&'p Placed<'a, Label>> {
        self.labels.iter().find(|label| label.value.name == name)
    }
}

/// A column stands once among the system's, the declared and the labels'.
fn columns(draft: &Draft) {
    let mut taken: BTreeMap<String, String> =
        table::system_columns().into_iter().map(|name| (name, "a system column".to_owned())).collect();
    let mut take = |column: String, place: &Place| match taken.get(&column) {
        Some(other) => place.fault(format!("its column `{column}` is {other} already; choose another name")),
        None => drop(taken.insert(column, format!("that of {}", place.path))),
    };
    for (block, field) in draft.fields() {
        let name = &field.value.name;
        match PREFIXES.iter().find(|(prefix, _)| block != Block::Prediction && name.starts_with(prefix)) {
            Some((prefix, whose)) => field.place.fault(format!("`{prefix}` begins {whose}; choose another name")),
            None => take(block.column(name), &field.place),
        }
    }
    for label in draft.labels {
        for column in table::label_columns(&label.value) {
            take(column.name, &label.place);
        }
    }
}

fn views(draft: &Draft) {
    for view in draft.views {
        for (key, name) in &view.value.keys {
            let found = draft
                .fields()
                .any(|(block, field)| matches!(block, Block::Entity | Block::Features) && field.value.name == *name);
            if !found {
                view.place
                    .fault(format!("the key `{key}` is `{name}`, which is no field of entity or features; declare it"));
            }
        }
    }
    for (_, field) in draft.fields() {
        if let Some(name) = &field.value.view
            && !draft.views.iter().any(|view| view.value.name == *name)
        {
            field.place.fault(format!("there is no view `{name}`; declare it under views, or correct the name"));
        }
    }
}

fn requires(draft: &Draft) {
    for label in draft.labels {
        let Some(name) = &label.value.requires else { continue };
        match draft.label(name) {
            None => {
                label.place.fault(format!("it requires `{name}`, which is no label; declare it, or correct the name"))
            }
            Some(other) if other.typed && other.value.ty != Type::Boolean => {
                label.place.fault(format!("it requires `{name}`, which is no boolean; require a boolean label"));
            }
            Some(other) if !other.value.is_streaming() => {
                label
                    .place
                    .fault(format!("it requires `{name}`, which a batch job computes; require a streaming label"));
            }
            Some(_) => {}
        }
        let mut seen = BTreeSet::new();
        let mut next = Some(name.as_str());
        while let Some(name) = next.filter(|name| seen.insert(*name)) {
            next = draft.label(name).and_then(|label| label.value.requires.as_deref());
        }
        if seen.contains(label.value.name.as_str()) {
            label.place.fault("it requires itself in the end; break the circle");
        }
    }
}

fn seal(draft: &Draft, warnings: &Faults) {
    let (seal, place) = draft.seal;
    if let SealWhen::Label(name) = &seal.when {
        let place = place.unwrap_or(draft.root);
        match draft.label(name) {
            None => place.fault(format!("`when` names the label `{name}`, which there is not; correct the name")),
            Some(label) if !label.value.is_streaming() => {
                place.fault(format!("`when` names `{name}`, which a batch job computes; name a streaming label"));
            }
            Some(_) => {}
        }
    }
    let enough_ms = CLOCK_SLACK_MS.saturating_add(seal.drain_ms);
    for label in draft.labels.iter().filter(|label| label.value.is_streaming()) {
        if label.value.lateness_ms < enough_ms {
            warnings.add(
                label.place.line,
                &label.place.path,
                format!(
                    "a lateness under {} (5m and the drain) may close the label before outcomes that are on their \
                     way; write a longer one",
                    super::duration::format(enough_ms)
                ),
            );
        }
    }
}
