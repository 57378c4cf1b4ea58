//! The plan of a contract: what the body of each request may hold, and where it goes in the datum.

use std::sync::Arc;

use flywheel_schemas::avro::{Layout, LayoutField, SchemaError, Shape, outcome_schema, prediction_schema};
use flywheel_schemas::contract::{Aggregate, Block, Contract, Expect, Privacy};

use super::block::{BlockPlan, FieldPlan, Treatment};
use super::candidates;
use super::names::Names;
use super::outcome::{self, OutcomePart};
use super::prediction::{self, PredictionPart};
use super::sampling::SamplePlan;
use super::value::Bounds;
use crate::privacy::KeyRing;

/// A contract made ready for bodies; compiled once per version.
#[derive(Debug)]
pub struct Plan {
    contract: Arc<Contract>,
    local: Local,
    prediction_schema: Arc<str>,
    outcome_schema: Arc<str>,
    pub(super) prediction_keys: Names,
    pub(super) candidates_keys: Names,
    pub(super) prediction_parts: Vec<Part<PredictionPart>>,
    /// One for each of [`Block::ALL`], without fields where the contract has none.
    pub(super) blocks: [BlockPlan; 5],
    /// None where every prediction is kept.
    pub(super) sampling: Option<SamplePlan>,
    pub(super) outcome_keys: Names,
    pub(super) outcome_parts: Vec<Part<OutcomePart>>,
    pub(super) labels: BlockPlan,
    /// Per label: whether its facts are told apart by `outcome_id`.
    pub(super) is_counted: Vec<bool>,
}

/// What a sidecar adds to a contract.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Local {
    /// In place of `sampling.rate`: more than 0, at most 1.
    pub rate: Option<f64>,
    /// For fields with privacy `hmac`.
    pub keys: Option<Arc<KeyRing>>,
}

/// One field of a datum and what goes there.
#[derive(Debug)]
pub(super) struct Part<P> {
    pub what: P,
    /// The bytes of the branches null and some; none where the field is no union.
    pub branches: Option<(u8, u8)>,
}

impl<P> Part<P> {
    /// Begins a value.
    #[inline]
    pub fn some(&self, out: &mut Vec<u8>) {
        if let Some((_, some)) = self.branches {
            out.push(some);
        }
    }

    /// Writes the absence of a value; compiling has checked that such a part is a union.
    #[inline]
    pub fn null(&self, out: &mut Vec<u8>) {
        if let Some((null, _)) = self.branches {
            out.push(null);
        }
    }
}

/// Why a contract cannot be served, though it is valid.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    #[error(
        "field `{field}`: privacy `hmac` needs a key, and there is none: name a key file as `privacy.key_file` in the \
         configuration of the sidecar"
    )]
    NoKey { field: String },
    #[error(
        "sampling.key `{key}` must be prediction_id or a string, uuid, int or long field of the entity or the context \
         without privacy"
    )]
    SamplingKey { key: String },
    #[error("sampling.keep: `{field}` is no field of the prediction that a rule can go by")]
    KeepField { field: String },
    #[error("the schema has a field `{field}` that no body can fill")]
    Unfillable { field: String },
    #[error(transparent)]
    Schema(#[from] SchemaError),
}

impl Plan {
    /// Compiles what `contract` says.
    ///
    /// # Errors
    /// Where the contract asks for what transcoding cannot do.
    pub fn compile(contract: Arc<Contract>) -> Result<Plan, PlanError> {
        Plan::compile_with(contract, Local::default())
    }

    /// Compiles what `contract` says, with what this sidecar adds to it.
    ///
    /// # Errors
    /// Where the contract asks for what transcoding cannot do.
    pub fn compile_with(contract: Arc<Contract>, local: Local) -> Result<Plan, PlanError> {
        let (prediction_text, outcome_text) = (prediction_schema(&contract), outcome_schema(&contract));
        let prediction_layout = Layout::parse(&prediction_text)?;
        let outcome_layout = Layout::parse(&outcome_text)?;
        let mut blocks = Vec::new();
        for block in Block::ALL {
            blocks.push(match sub_record(&prediction_layout, block.name()) {
                Some(layout) => block_plan(
                    block.name(),
                    layout,
                    |name| {
                        let field = contract.block(block).iter().find(|field| field.name == name)?;
                        Some(Declared {
                            required: field.required,
                            privacy: field.privacy,
                            expect: field.expect.as_ref(),
                        })
                    },
                    local.keys.as_ref(),
                )?,
                None => empty_block(block.name()),
            });
        }
        let blocks: [BlockPlan; 5] =
            blocks.try_into().map_err(|_| PlanError::Unfillable { field: "blocks".to_owned() })?;
        let mut labels = match sub_record(&outcome_layout, "label") {
            Some(layout) => block_plan(
                "labels",
                layout,
                |name| contract.label(name).map(|_| Declared { required: false, privacy: Privacy::None, expect: None }),
                None,
            )?,
            None => empty_block("labels"),
        };
        labels.holds_labels = true;
        let is_counted = labels.fields.iter().map(|field| {
            let aggregate = contract.label(&field.name).map(|label| label.aggregate);
            matches!(aggregate, Some(Aggregate::Count | Aggregate::Sum))
        });
        Ok(Plan {
            is_counted: is_counted.collect(),
            prediction_parts: parts(&prediction_layout, prediction::part_of)?,
            outcome_parts: parts(&outcome_layout, outcome::part_of)?,
            sampling: SamplePlan::compile(&contract, local.rate, &blocks)?,
            prediction_keys: Names::new(prediction::KEYS),
            candidates_keys: Names::new(candidates::KEYS),
            outcome_keys: Names::new(outcome::KEYS),
            prediction_schema: prediction_text.into(),
            outcome_schema: outcome_text.into(),
            blocks,
            labels,
            contract,
            local,
        })
    }

    pub fn contract(&self) -> &Arc<Contract> {
        &self.contract
    }

    pub fn local(&self) -> &Local {
        &self.local
    }

    /// The rate of predictions for which no keep rule holds.
    pub fn rate(&self) -> f64 {
        self.local.rate.unwrap_or(self.contract.sampling.rate)
    }

    /// The text of the Avro schema that predictions are written by.
    pub fn prediction_schema(&self) -> &Arc<str> {
        &self.prediction_schema
    }

    /// The text of the Avro schema that outcomes are written by.
    pub fn outcome_schema(&self) -> &Arc<str> {
        &self.outcome_schema
    }
}

/// What the contract says about one field beyond its type.
struct Declared<'c> {
    required: bool,
    privacy: Privacy,
    expect: Option<&'c Expect>,
}

fn sub_record<'l>(layout: &'l Layout, name: &str) -> Option<&'l Layout> {
    match &layout.field(name)?.shape {
        Shape::Record(record) => Some(record),
        Shape::Plain(_) | Shape::Records(_) => None,
    }
}

fn block_plan<'c>(
    name: &'static str,
    layout: &Layout,
    declared: impl Fn(&str) -> Option<Declared<'c>>,
    keys: Option<&Arc<KeyRing>>,
) -> Result<BlockPlan, PlanError> {
    let mut fields = Vec::new();
    for field in &layout.fields {
        let unfillable = || PlanError::Unfillable { field: format!("{name}.{}", field.name) };
        let Shape::Plain(ty) = &field.shape else { return Err(unfillable()) };
        let (null, some) = branches(field).ok_or_else(unfillable)?;
        let declared = declared(&field.name).ok_or_else(unfillable)?;
        fields.push(FieldPlan {
            name: field.name.clone(),
            ty: ty.clone(),
            null,
            some,
            required: declared.required,
            treatment: treatment(&field.name, declared.privacy, keys)?,
            bounds: declared.expect.map(|expect| Bounds::new(expect.min, expect.max)),
        });
    }
    Ok(BlockPlan {
        name,
        names: Names::new(fields.iter().map(|field| field.name.as_str())),
        has_required: fields.iter().any(|field| field.required),
        holds_labels: false,
        fields,
    })
}

fn treatment(field: &str, privacy: Privacy, keys: Option<&Arc<KeyRing>>) -> Result<Treatment, PlanError> {
    Ok(match privacy {
        Privacy::None => Treatment::None,
        Privacy::Drop => Treatment::Drop,
        Privacy::Mask => Treatment::Mask,
        Privacy::Hmac => match keys {
            Some(keys) => Treatment::Pseudonym(keys.clone()),
            None => return Err(PlanError::NoKey { field: field.to_owned() }),
        },
    })
}

fn empty_block(name: &'static str) -> BlockPlan {
    BlockPlan { name, fields: Vec::new(), names: Names::new([]), holds_labels: false, has_required: false }
}

/// The bytes that stand for the branches of a field's union: the zig-zag of their index.
fn branches(field: &LayoutField) -> Option<(u8, u8)> {
    field.null_branch.map(|null| if null == 0 { (0, 2) } else { (2, 0) })
}

/// A field that no part fills is null; one that may be absent must be a union.
fn parts<P>(layout: &Layout, part_of: impl Fn(&str) -> (P, bool)) -> Result<Vec<Part<P>>, PlanError> {
    let parts = layout.fields.iter().map(|field| {
        let (what, is_always_there) = part_of(&field.name);
        let branches = branches(field);
        if branches.is_none() && !is_always_there {
            return Err(PlanError::Unfillable { field: field.name.clone() });
        }
        Ok(Part { what, branches })
    });
    parts.collect()
}
