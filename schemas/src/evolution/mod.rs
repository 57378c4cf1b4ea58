//! What a new version of a contract may change: add a field or a label, or drop one.
//!
//! A column keeps its type and a label its rule for ever, since rows of all versions stand in one table: a name that
//! was dropped comes back only as it was. Grid, drain and the other settings that say when a row is sealed are one
//! per model, as is where its ids come from. Whatever only describes (descriptions, units, kinds, owners), checks
//! (required, expect), serves (views) or stands in each row (sampling) may change.
//! Anything else is a new model with `successor_of`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::contract::{Block, Contract, Field, Label, Privacy, Seal};
use crate::table::{self, ColumnType};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    Compatible,
    Incompatible,
}

/// One difference between two versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub verdict: Verdict,
    /// Dotted path, such as `labels.refund.window`.
    pub path: String,
    /// What changed and, where that is refused, what to do instead.
    pub message: String,
}

impl Change {
    pub fn is_compatible(&self) -> bool {
        self.verdict == Verdict::Compatible
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self.verdict {
            Verdict::Compatible => "compatible",
            Verdict::Incompatible => "incompatible",
        };
        write!(f, "{verdict}: {}: {}", self.path, self.message)
    }
}

/// Every difference between two versions of one model's contract; empty where they say the same.
pub fn diff(old: &Contract, new: &Contract) -> Vec<Change> {
    if old.to_json() == new.to_json() {
        return Vec::new();
    }
    let mut changes = Changes(Vec::new());
    if old.model != new.model {
        let message = format!("was {}, is {}; another model has a contract of its own", old.model, new.model);
        changes.refuse("model", message);
        return changes.0;
    }
    if new.version <= old.version {
        let message = format!("is {}, after {}; a changed contract needs a greater version", new.version, old.version);
        changes.refuse("version", message);
    }
    changes.settings(old, new);
    for block in Block::ALL {
        changes.fields(block, old.block(block), new.block(block));
    }
    changes.labels(&old.labels, &new.labels);
    changes.columns(old, new);
    changes.0
}

/// The differences to the newest of the registered versions, and whatever the older ones forbid besides.
///
/// Empty where `new` is one of them. A known version with another content is incompatible.
pub fn admit(registered: &[Contract], new: &Contract) -> Vec<Change> {
    let json = new.to_json();
    if registered.iter().any(|old| old.to_json() == json) {
        return Vec::new();
    }
    let mut newest_first: Vec<&Contract> = registered.iter().collect();
    newest_first.sort_by_key(|old| std::cmp::Reverse(old.version));
    let mut changes: Vec<Change> = Vec::new();
    let mut refused = BTreeSet::new();
    for (age, old) in newest_first.into_iter().enumerate() {
        for mut change in diff(old, new) {
            let repeated = !change.is_compatible() && !refused.insert(change.path.clone());
            if repeated || (age > 0 && change.is_compatible()) {
                continue;
            }
            if old.version == new.version && change.path == "version" {
                change.message = format!(
                    "{} is registered with another content; give the changed contract a new version",
                    new.version
                );
            } else if age > 0 {
                change.message = format!("{} (version {})", change.message, old.version);
            }
            changes.push(change);
        }
    }
    changes
}

struct Changes(Vec<Change>);

impl Changes {
    fn allow(&mut self, path: &str, message: impl Into<String>) {
        self.0.push(Change { verdict: Verdict::Compatible, path: path.to_owned(), message: message.into() });
    }

    fn refuse(&mut self, path: &str, message: impl Into<String>) {
        self.0.push(Change { verdict: Verdict::Incompatible, path: path.to_owned(), message: message.into() });
    }

    fn allow_if<T: PartialEq>(&mut self, path: &str, old: &T, new: &T) {
        if old != new {
            self.allow(path, "changed");
        }
    }

    fn settings(&mut self, old: &Contract, new: &Contract) {
        self.allow_if("owner", &old.owner, &new.owner);
        self.allow_if("description", &old.description, &new.description);
        self.allow_if("successor_of", &old.successor_of, &new.successor_of);
        self.allow_if("views", &old.views, &new.views);
        self.allow_if("sampling", &old.sampling, &new.sampling);
        self.allow_if("point_in_time", &old.point_in_time, &new.point_in_time);
        self.allow_if("dead_letter_body", &old.dead_letter_body, &new.dead_letter_body);
        if old.ids != new.ids {
            self.refuse("ids", "changed; rows of one table are recognised in one way: make a new model");
        }
        let Seal { when, grid_ms, drain_ms, horizon_ms } = &old.seal;
        for (path, same) in [
            ("seal.when", *when == new.seal.when),
            ("seal.grid", *grid_ms == new.seal.grid_ms),
            ("seal.drain", *drain_ms == new.seal.drain_ms),
            ("seal.horizon", *horizon_ms == new.seal.horizon_ms),
        ] {
            if !same {
                self.refuse(path, "changed; one model seals by one rule: put it back, or make a new model");
            }
        }
    }

    fn fields(&mut self, block: Block, old: &[Field], new: &[Field]) {
        let path = |field: &Field| format!("{}.{}", block.name(), field.name);
        for field in old.iter().filter(|field| !new.iter().any(|other| other.name == field.name)) {
            self.allow(&path(field), "dropped");
        }
        for field in new {
            let path = path(field);
            match old.iter().find(|other| other.name == field.name) {
                Some(old) => self.field(&path, old, field),
                None if field.required => self.allow(&path, "added; callers must send it from now on"),
                None => self.allow(&path, "added"),
            }
        }
    }

    /// The type is left to [`Changes::columns`].
    fn field(&mut self, path: &str, old: &Field, new: &Field) {
        if old.required != new.required {
            let message =
                if new.required { "required; callers must send it from now on" } else { "not required any more" };
            self.allow(path, message);
        }
        self.allow_if(&format!("{path}.unit"), &old.unit, &new.unit);
        self.allow_if(&format!("{path}.description"), &old.description, &new.description);
        self.allow_if(&format!("{path}.kind"), &old.kind, &new.kind);
        self.allow_if(&format!("{path}.expect"), &old.expect, &new.expect);
        self.allow_if(&format!("{path}.view"), &old.view, &new.view);
        if old.privacy != new.privacy {
            let path = format!("{path}.privacy");
            if old.privacy == Privacy::Drop || new.privacy == Privacy::Drop {
                self.allow(&path, "changed");
            } else {
                let message = "changed; masked, hashed and plain values do not belong into one column: drop the field \
                               and add one of another name";
                self.refuse(&path, message);
            }
        }
    }

    fn labels(&mut self, old: &[Label], new: &[Label]) {
        let path = |label: &Label| format!("labels.{}", label.name);
        for label in old.iter().filter(|label| !new.iter().any(|other| other.name == label.name)) {
            self.allow(&path(label), "dropped");
        }
        for label in new {
            match old.iter().find(|other| other.name == label.name) {
                Some(old) => self.label(&path(label), old, label),
                None => self.allow(&path(label), "added; predictions served before get it by a backfill"),
            }
        }
    }

    /// The type is left to [`Changes::columns`].
    fn label(&mut self, path: &str, old: &Label, new: &Label) {
        self.allow_if(&format!("{path}.unit"), &old.unit, &new.unit);
        self.allow_if(&format!("{path}.description"), &old.description, &new.description);
        self.allow_if(&format!("{path}.gate"), &old.gate, &new.gate);
        // As text, in which a NaN is one.
        let default = |label: &Label| label.to_json().get("default").cloned();
        for (key, same) in [
            ("window", old.window_ms == new.window_ms),
            ("lateness", old.lateness_ms == new.lateness_ms),
            ("aggregate", old.aggregate == new.aggregate),
            ("default", old.ty != new.ty || default(old) == default(new)),
            ("requires", old.requires == new.requires),
            ("owner", old.owner == new.owner),
        ] {
            if !same {
                let message = "changed; a label has one rule for all rows: put it back, or add a label of another name";
                self.refuse(&format!("{path}.{key}"), message);
            }
        }
    }

    /// A column has one type for ever, whichever part of the contract it comes from.
    fn columns(&mut self, old: &Contract, new: &Contract) {
        let old = declared_columns(old);
        for (column, (path, ty)) in declared_columns(new) {
            if let Some((_, before)) = old.get(&column).filter(|(_, before)| *before != ty) {
                let message = format!(
                    "its column `{column}` was {before} and would be {ty}; a column keeps its type: choose another name"
                );
                self.refuse(&path, message);
            }
        }
    }
}

/// Every column that a contract declares: its path in the contract and its type.
fn declared_columns(contract: &Contract) -> BTreeMap<String, (String, String)> {
    let fields = contract.fields().map(|(block, field)| {
        (block.column(&field.name), (format!("{}.{}.type", block.name(), field.name), field.ty.to_string()))
    });
    let labels = contract.labels.iter().flat_map(|label| {
        table::label_columns(label).into_iter().filter_map(move |column| match column.ty {
            ColumnType::Plain(ty) => Some((column.name, (format!("labels.{}.type", label.name), ty.to_string()))),
            ColumnType::Provenance => None,
        })
    });
    fields.chain(labels).collect()
}

#[cfg(test)]
mod tests;
