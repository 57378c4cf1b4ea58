//! The contract: what a team declares about one model, and the only input from which topics, schemas, tables and
//! label rules follow.

mod duration;
mod fault;
mod json;
mod node;
mod parse;
mod place;
mod rules;
mod sampling;
mod scalar;

pub use duration::{format as format_duration, parse as parse_duration};
pub use fault::Fault;
pub use parse::Checked;
pub use sampling::{Condition, Keep, Sampling};

use crate::types::Type;

/// One version of one model's contract. Only [`Contract::parse`] and [`Contract::from_json`] make one, so a value of
/// this type is valid.
#[derive(Debug, Clone, PartialEq)]
pub struct Contract {
    /// `[a-z][a-z0-9_]{0,62}`.
    pub model: String,
    /// From 1.
    pub version: i32,
    pub owner: Option<String>,
    pub description: Option<String>,
    /// The model whose place this one takes where a change was none of add and drop.
    pub successor_of: Option<String>,
    pub entity: Vec<Field>,
    pub views: Vec<View>,
    pub features: Vec<Field>,
    pub prediction: Vec<Field>,
    pub decision: Vec<Field>,
    pub context: Vec<Field>,
    pub labels: Vec<Label>,
    pub seal: Seal,
    pub ids: Ids,
    pub sampling: Sampling,
    pub point_in_time: Option<PointInTime>,
    /// Whether a refused body goes to the dead letters although a field is private.
    pub dead_letter_body: bool,
}

/// The five blocks of declared fields, in the order in which they stand in schemas and tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Block {
    Entity,
    Features,
    Prediction,
    Decision,
    Context,
}

impl Block {
    pub const ALL: [Block; 5] = [Block::Entity, Block::Features, Block::Prediction, Block::Decision, Block::Context];

    /// The key of the block in the contract, in the request body and in the Avro record.
    pub fn name(self) -> &'static str {
        match self {
            Block::Entity => "entity",
            Block::Features => "features",
            Block::Prediction => "prediction",
            Block::Decision => "decision",
            Block::Context => "context",
        }
    }

    /// The column of a field of this block.
    pub fn column(self, field: &str) -> String {
        match self {
            Block::Prediction => format!("prediction_{field}"),
            _ => field.to_owned(),
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    /// `[a-z][a-z0-9_]{0,62}`.
    pub name: String,
    pub ty: Type,
    pub required: bool,
    pub unit: Option<String>,
    pub description: Option<String>,
    /// `categorical`, `embedding[32]`, …: for readers of the table, not interpreted.
    pub kind: Option<String>,
    pub privacy: Privacy,
    pub expect: Option<Expect>,
    /// The feature view that serves it.
    pub view: Option<String>,
}

/// The range outside of which a number is refused; both ends belong to it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Expect {
    pub min: Option<f64>,
    pub max: Option<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Privacy {
    None,
    Drop,
    Mask,
    Hmac,
}

#[derive(Debug, Clone, PartialEq)]
pub struct View {
    pub name: String,
    pub store: String,
    /// Join key of the store → field of the entity or of the features.
    pub keys: Vec<(String, String)>,
    pub ttl_ms: Option<i64>,
    pub max_age_ms: Option<i64>,
    pub deadline_ms: Option<i64>,
    pub owner: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Label {
    pub name: String,
    pub ty: Type,
    pub description: Option<String>,
    pub unit: Option<String>,
    /// How long after the prediction an outcome still counts.
    pub window_ms: i64,
    /// How long after its window the label still waits.
    pub lateness_ms: i64,
    pub aggregate: Aggregate,
    /// The value when nothing was observed; without one the label is `missing`.
    pub default: Option<Scalar>,
    /// A boolean streaming label that must be true for this one to mean anything.
    pub requires: Option<String>,
    pub owner: LabelOwner,
    pub gate: Option<Gate>,
}

impl Label {
    pub fn is_streaming(&self) -> bool {
        self.owner == LabelOwner::Streaming
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aggregate {
    Any,
    All,
    Count,
    Sum,
    Min,
    Max,
    First,
    Last,
}

impl Aggregate {
    pub const ALL: [(&'static str, Aggregate); 8] = [
        ("any", Aggregate::Any),
        ("all", Aggregate::All),
        ("count", Aggregate::Count),
        ("sum", Aggregate::Sum),
        ("min", Aggregate::Min),
        ("max", Aggregate::Max),
        ("first", Aggregate::First),
        ("last", Aggregate::Last),
    ];

    pub fn name(self) -> &'static str {
        Aggregate::ALL.iter().find(|(_, aggregate)| *aggregate == self).map_or("", |(name, _)| name)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LabelOwner {
    /// The joiner computes it.
    Streaming,
    /// A batch job computes it.
    Batch,
}

/// When a label's source counts as dead, so that no tick is open.
#[derive(Debug, Clone, PartialEq)]
pub enum Gate {
    /// Fewer outcomes with this label come in than so many for each prediction.
    Rate { per_prediction: f64 },
    /// This source has not said that it is complete so far.
    Progress { source: String },
}

#[derive(Debug, Clone, PartialEq)]
pub struct Seal {
    pub when: SealWhen,
    /// The distance of two ticks; a divisor of a day.
    pub grid_ms: i64,
    pub drain_ms: i64,
    pub horizon_ms: i64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SealWhen {
    AllClosed,
    Label(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ids {
    Minted,
    Caller,
}

#[derive(Debug, Clone, PartialEq)]
pub struct PointInTime {
    pub name: String,
    pub max_feature_ahead_ms: i64,
}

/// A value of a scalar type, as label defaults and label values have it.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub enum Scalar {
    Boolean(bool),
    Int(i32),
    Long(i64),
    Float(f32),
    Double(f64),
    /// Unscaled; the scale is the type's.
    Decimal(i128),
    String(String),
    Bytes(Vec<u8>),
    /// Days since the epoch.
    Date(i32),
    /// Microseconds since the epoch.
    Timestamp(i64),
    /// Lower-case hyphenated text.
    Uuid(String),
}

impl Contract {
    /// The fields of a block, in declared order.
    pub fn block(&self, block: Block) -> &[Field] {
        match block {
            Block::Entity => &self.entity,
            Block::Features => &self.features,
            Block::Prediction => &self.prediction,
            Block::Decision => &self.decision,
            Block::Context => &self.context,
        }
    }

    /// Every declared field with its block, in the order of schemas and tables.
    pub fn fields(&self) -> impl Iterator<Item = (Block, &Field)> {
        Block::ALL.into_iter().flat_map(|block| self.block(block).iter().map(move |field| (block, field)))
    }

    pub fn label(&self, name: &str) -> Option<&Label> {
        self.labels.iter().find(|label| label.name == name)
    }

    /// The greatest window + lateness over the streaming labels, each with those of its `requires`; 0 if there is none.
    pub fn longest_ms(&self) -> i64 {
        self.labels.iter().filter(|label| label.is_streaming()).map(|label| self.close_ms(label)).max().unwrap_or(0)
    }

    /// When `label` closes, in milliseconds after the prediction: window + lateness, and not before its `requires`.
    pub fn close_ms(&self, label: &Label) -> i64 {
        let own = label.window_ms + label.lateness_ms;
        // Validation has excluded cycles, so this ends.
        match label.requires.as_deref().and_then(|name| self.label(name)) {
            Some(required) => own.max(self.close_ms(required)),
            None => own,
        }
    }

    /// When the base row is written, in milliseconds after the prediction: the close that `seal.when` names.
    pub fn seal_ms(&self) -> i64 {
        match &self.seal.when {
            SealWhen::AllClosed => self.longest_ms(),
            SealWhen::Label(name) => self.label(name).map_or(0, |label| self.close_ms(label)),
        }
    }

    pub fn has_private_field(&self) -> bool {
        self.fields().any(|(_, field)| field.privacy != Privacy::None)
    }
}

/// A contract in which every key stands.
#[cfg(test)]
pub(crate) fn full_contract() -> Contract {
    Contract::parse(parse::tests::FULL).unwrap_or_else(|faults| panic!("{faults:?}"))
}
