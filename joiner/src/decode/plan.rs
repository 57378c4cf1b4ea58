//! A writer's schema as the walk over its datums: which bytes come in which order, and what each is for.

use flywheel_schemas::avro::{Layout, LayoutField, Shape};
use flywheel_schemas::contract::Block;
use flywheel_schemas::types::Type;
use flywheel_schemas::wire::Kind;

use super::cursor::{Cursor, Value};
use super::{DatumFault, DecodeError};

/// A compiled schema.
#[derive(Debug)]
pub(super) struct Plan {
    /// None for records that are of no model.
    pub(super) kind: Option<Kind>,
    entries: Vec<Entry>,
    pub(super) leaves: Vec<Leaf>,
    pub(super) ignored: Vec<String>,
}

/// A field that holds values of its own: one column, if any.
#[derive(Debug)]
pub(super) struct Leaf {
    /// Its column; none where no table takes it.
    pub(super) column: Option<String>,
    /// Whether the schema leaves no room for a null.
    pub(super) always: bool,
    pub(super) role: Role,
    pub(super) shape: LeafShape,
}

/// What a plain field becomes.
struct Target {
    column: Option<String>,
    always: bool,
    role: Role,
}

#[derive(Debug, PartialEq)]
pub(super) enum LeafShape {
    Scalar(Type),
    List(Type),
    /// A list of records with these fields.
    Records(Vec<(String, Type)>),
}

/// What a leaf means beyond being a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    None,
    PredictionId,
    EventTime,
    ContractVersion,
    Exposure,
    EventId,
    OutcomeId,
    Revision,
    Op,
    OpTime,
    Labels,
    /// A label's value; the column is `label_<name>`.
    Label,
}

#[derive(Debug)]
struct Entry {
    /// For messages: dotted.
    path: String,
    null_branch: Option<u8>,
    node: Node,
}

#[derive(Debug)]
enum Node {
    Scalar { leaf: usize, ty: Type },
    List { leaf: usize, item: Type },
    Record(Vec<Entry>),
    Records { leaf: usize, fields: Vec<ItemField> },
}

#[derive(Debug)]
struct ItemField {
    path: String,
    null_branch: Option<u8>,
    ty: Type,
}

/// Takes what a walk finds. Nulls are not told.
pub(super) trait Sink<'d> {
    fn scalar(&mut self, leaf: usize, value: Value<'d>);
    /// An item of a list of scalars.
    fn item(&mut self, _leaf: usize, _value: Value<'d>) {}
    /// A field, by its number, of the current record of a list of records.
    fn item_field(&mut self, _leaf: usize, _field: usize, _value: Value<'d>) {}
    fn end_record(&mut self, _leaf: usize) {}
    /// The list is whole.
    fn end_list(&mut self, _leaf: usize) {}
}

impl Plan {
    /// For the records of `kind`; with none, for records whose fields are columns as they stand.
    pub(super) fn compile(layout: &Layout, kind: Option<Kind>) -> Result<Plan, DecodeError> {
        let mut plan = Plan { kind, entries: Vec::new(), leaves: Vec::new(), ignored: Vec::new() };
        for field in &layout.fields {
            let entry = plan.top(field)?;
            plan.entries.push(entry);
        }
        for (kind, (role, field)) in kind.iter().flat_map(|kind| required(*kind).iter().map(|field| (*kind, field))) {
            if !plan.leaves.iter().any(|leaf| leaf.role == *role) {
                return Err(DecodeError::Missing { kind, field });
            }
        }
        let mut columns: Vec<&str> = plan.leaves.iter().filter_map(|leaf| leaf.column.as_deref()).collect();
        columns.sort_unstable();
        match columns.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(DecodeError::Duplicate { column: pair[0].to_owned() }),
            None => Ok(plan),
        }
    }

    fn top(&mut self, field: &LayoutField) -> Result<Entry, DecodeError> {
        let name = field.name.as_str();
        let always = field.null_branch.is_none();
        let node = match &field.shape {
            Shape::Plain(ty) => {
                let (column, role) = match self.kind.map(|kind| system(kind, name)) {
                    None => (Some(name.to_owned()), Role::None),
                    Some(Some((expected, role))) => {
                        // A uuid is text in tables, so it may be one here.
                        let same = *ty == expected || (*ty == Type::Uuid && expected == Type::String);
                        if !same {
                            return Err(DecodeError::Type { field: name.to_owned(), expected, found: ty.to_string() });
                        }
                        (Some(name.to_owned()), role)
                    }
                    Some(None) => {
                        self.ignored.push(name.to_owned());
                        (None, Role::None)
                    }
                };
                self.plain(name, ty, Target { column, always, role })?
            }
            Shape::Record(record) => Node::Record(self.block(name, record)?),
            Shape::Records(record) if self.kind == Some(Kind::Predictions) && name == PROVENANCE => {
                self.records(name, record)?
            }
            Shape::Records(_) => return Err(shape(name, "an array of records")),
        };
        Ok(Entry { path: name.to_owned(), null_branch: field.null_branch, node })
    }

    /// The fields of a record at the top.
    fn block(&mut self, name: &str, record: &Layout) -> Result<Vec<Entry>, DecodeError> {
        let block = Block::ALL.into_iter().find(|block| self.kind == Some(Kind::Predictions) && block.name() == name);
        let role = if block.is_some() { Role::None } else { Role::Label };
        let column = |field: &str| match block {
            Some(block) => Some(block.column(field)),
            None => (self.kind == Some(Kind::Outcomes) && name == LABEL).then(|| format!("label_{field}")),
        };
        let columns: Vec<Option<String>> = record.fields.iter().map(|field| column(&field.name)).collect();
        record
            .fields
            .iter()
            .zip(columns)
            .map(|(field, column)| {
                let path = format!("{name}.{}", field.name);
                let column = column.ok_or_else(|| shape(name, "a record of this name"))?;
                let Shape::Plain(ty) = &field.shape else {
                    return Err(shape(&path, "a record within a record"));
                };
                if role == Role::Label && matches!(ty, Type::List(_)) {
                    return Err(shape(&path, "a list as a label"));
                }
                let node = self.plain(&path, ty, Target { column: Some(column), always: false, role })?;
                Ok(Entry { path, null_branch: field.null_branch, node })
            })
            .collect()
    }

    fn plain(&mut self, path: &str, ty: &Type, target: Target) -> Result<Node, DecodeError> {
        let Target { column, always, role } = target;
        let leaf = self.leaves.len();
        let (shape, node) = match ty {
            Type::List(item) if matches!(**item, Type::List(_)) => return Err(shape(path, "a list of lists")),
            Type::List(item) => (LeafShape::List((**item).clone()), Node::List { leaf, item: (**item).clone() }),
            _ => (LeafShape::Scalar(ty.clone()), Node::Scalar { leaf, ty: ty.clone() }),
        };
        self.leaves.push(Leaf { column, always, role, shape });
        Ok(node)
    }

    fn records(&mut self, name: &str, record: &Layout) -> Result<Node, DecodeError> {
        if record.fields.is_empty() {
            // Items without a byte would make the work unbounded.
            return Err(shape(name, "an array of records without fields"));
        }
        let fields = record
            .fields
            .iter()
            .map(|field| {
                let path = format!("{name}.{}", field.name);
                match &field.shape {
                    Shape::Plain(ty) if !matches!(ty, Type::List(_)) => {
                        Ok(ItemField { path, null_branch: field.null_branch, ty: ty.clone() })
                    }
                    _ => Err(shape(&path, "anything but a scalar in a record of an array")),
                }
            })
            .collect::<Result<Vec<_>, _>>()?;
        let leaf = self.leaves.len();
        let named = record.fields.iter().zip(&fields).map(|(field, item)| (field.name.clone(), item.ty.clone()));
        self.leaves.push(Leaf {
            column: Some(name.to_owned()),
            always: false,
            role: Role::None,
            shape: LeafShape::Records(named.collect()),
        });
        Ok(Node::Records { leaf, fields })
    }

    /// Walks the whole datum and tells `sink` what is in it; on an error the sink has been told what came before.
    pub(super) fn walk<'d, S: Sink<'d>>(&self, datum: &'d [u8], sink: &mut S) -> Result<(), DecodeError> {
        let mut cursor = Cursor::new(datum);
        record(&self.entries, &mut cursor, sink)?;
        match cursor.remaining() {
            0 => Ok(()),
            _ => Err(DecodeError::datum("", cursor.position(), DatumFault::Trailing)),
        }
    }
}

fn record<'d, S: Sink<'d>>(entries: &[Entry], cursor: &mut Cursor<'d>, sink: &mut S) -> Result<(), DecodeError> {
    for entry in entries {
        let position = cursor.position();
        let refused = |fault| DecodeError::datum(&entry.path, position, fault);
        if is_null(entry.null_branch, cursor).map_err(refused)? {
            continue;
        }
        match &entry.node {
            Node::Scalar { leaf, ty } => sink.scalar(*leaf, cursor.scalar(ty).map_err(refused)?),
            Node::List { leaf, item } => {
                array(cursor, &entry.path, |cursor| {
                    sink.item(*leaf, cursor.scalar(item).map_err(refused)?);
                    Ok(())
                })?;
                sink.end_list(*leaf);
            }
            Node::Record(entries) => record(entries, cursor, sink)?,
            Node::Records { leaf, fields } => {
                array(cursor, &entry.path, |cursor| {
                    for (index, field) in fields.iter().enumerate() {
                        let position = cursor.position();
                        let refused = |fault| DecodeError::datum(&field.path, position, fault);
                        if !is_null(field.null_branch, cursor).map_err(refused)? {
                            sink.item_field(*leaf, index, cursor.scalar(&field.ty).map_err(refused)?);
                        }
                    }
                    sink.end_record(*leaf);
                    Ok(())
                })?;
                sink.end_list(*leaf);
            }
        }
    }
    Ok(())
}

fn is_null(null_branch: Option<u8>, cursor: &mut Cursor) -> Result<bool, DatumFault> {
    match null_branch {
        Some(null) => Ok(cursor.branch()? == null),
        None => Ok(false),
    }
}

fn array<'d>(
    cursor: &mut Cursor<'d>,
    path: &str,
    mut item: impl FnMut(&mut Cursor<'d>) -> Result<(), DecodeError>,
) -> Result<(), DecodeError> {
    loop {
        let position = cursor.position();
        let (items, end) = cursor.block().map_err(|fault| DecodeError::datum(path, position, fault))?;
        for _ in 0..items {
            item(cursor)?;
        }
        if end.is_some_and(|end| end != cursor.position()) {
            return Err(DecodeError::datum(path, position, DatumFault::BlockSize));
        }
        if items == 0 {
            return Ok(());
        }
    }
}

const PROVENANCE: &str = "feature_provenance";
const LABEL: &str = "label";

/// The fields without which a record cannot be landed.
fn required(kind: Kind) -> &'static [(Role, &'static str)] {
    const PREDICTION: &[(Role, &str)] = &[(Role::PredictionId, "prediction_id"), (Role::EventTime, "event_time")];
    const OUTCOME: &[(Role, &str)] =
        &[(Role::PredictionId, "prediction_id"), (Role::EventTime, "event_time"), (Role::EventId, "event_id")];
    match kind {
        Kind::Predictions => PREDICTION,
        Kind::Outcomes => OUTCOME,
    }
}

/// The system fields at the top of a record, which are columns of the same name: type and role.
fn system(kind: Kind, name: &str) -> Option<(Type, Role)> {
    let strings = || Type::List(Box::new(Type::String));
    let shared = match name {
        "prediction_id" => Some((Type::String, Role::PredictionId)),
        "event_time" => Some((Type::Timestamp, Role::EventTime)),
        "contract_version" => Some((Type::Int, Role::ContractVersion)),
        _ => None,
    };
    shared.or(match (kind, name) {
        (Kind::Predictions, "exposure") => Some((Type::String, Role::Exposure)),
        (
            Kind::Predictions,
            "request_id" | "parent_prediction_id" | "trace_id" | "model_version" | "variant" | "status",
        ) => Some((Type::String, Role::None)),
        (Kind::Predictions, "rank") => Some((Type::Int, Role::None)),
        (Kind::Predictions, "latency_us") => Some((Type::Long, Role::None)),
        (Kind::Predictions, "sampling_rate" | "sample_weight") => Some((Type::Double, Role::None)),
        (Kind::Predictions, "flags") => Some((strings(), Role::None)),
        (Kind::Outcomes, "event_id") => Some((Type::String, Role::EventId)),
        (Kind::Outcomes, "outcome_id") => Some((Type::String, Role::OutcomeId)),
        (Kind::Outcomes, "revision") => Some((Type::Long, Role::Revision)),
        (Kind::Outcomes, "op") => Some((Type::String, Role::Op)),
        (Kind::Outcomes, "op_time") => Some((Type::Timestamp, Role::OpTime)),
        (Kind::Outcomes, "source") => Some((Type::String, Role::None)),
        (Kind::Outcomes, "labels") => Some((strings(), Role::Labels)),
        _ => None,
    })
}

fn shape(field: &str, found: &'static str) -> DecodeError {
    DecodeError::Shape { field: field.to_owned(), found }
}
