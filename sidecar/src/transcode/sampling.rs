//! Which predictions are kept: the rate by the rules of the contract, the key from the block that holds it.
//!
//! Rules and key look at the Avro bytes of a block that was just read, so nothing is read twice.

use flywheel_schemas::contract::{Block, Condition, Contract, Keep, Scalar};
use flywheel_schemas::sampling;
use flywheel_schemas::types::Type;

use super::Scratch;
use super::avro::take_long;
use super::block::{BlockPlan, FieldPlan, Treatment};
use super::identity::Id;
use super::plan::PlanError;
use super::reader::Reader;
use super::value::Bounds;

/// How a contract's predictions are sampled.
#[derive(Debug)]
pub(super) struct SamplePlan {
    /// Where no rule holds.
    pub rate: f64,
    key: Key,
    keep: Vec<KeepPlan>,
}

/// What the decision goes by.
#[derive(Debug, Clone, Copy)]
enum Key {
    PredictionId,
    Field { block: Block, place: usize, is_integer: bool },
}

#[derive(Debug)]
struct KeepPlan {
    /// Of the field, in the prediction block.
    place: usize,
    test: Test,
    rate: f64,
}

#[derive(Debug)]
enum Test {
    Integer(Bounds),
    Float(Bounds),
    Double(Bounds),
    Boolean(bool),
    Text(String),
}

impl SamplePlan {
    /// None where every prediction is kept. `rate`: in place of the contract's.
    pub fn compile(
        contract: &Contract,
        rate: Option<f64>,
        blocks: &[BlockPlan; 5],
    ) -> Result<Option<SamplePlan>, PlanError> {
        let sampling = &contract.sampling;
        let rate = rate.unwrap_or(sampling.rate);
        if rate >= 1.0 && sampling.keep.iter().all(|rule| rule.rate >= 1.0) {
            return Ok(None);
        }
        let predicted = &blocks[Block::Prediction as usize].fields;
        let keep = sampling.keep.iter().map(|rule| KeepPlan::compile(rule, predicted)).collect::<Result<_, _>>()?;
        Ok(Some(SamplePlan { rate, key: Key::compile(&sampling.key, blocks)?, keep }))
    }

    /// Looks at the block just read: keeps the text that the decision goes by, and gives the rate of the first rule that
    /// holds, where that is to be found there.
    pub fn look_at(&self, reader: &mut Reader<'_, '_>, block_place: usize) -> Option<f64> {
        if let Key::Field { block, place, is_integer } = self.key
            && block as usize == block_place
        {
            keep_key(reader, place, is_integer);
        }
        if block_place != Block::Prediction as usize {
            return None;
        }
        let holds = |rule: &&KeepPlan| reader.value(rule.place).is_some_and(|bytes| rule.test.holds(bytes));
        self.keep.iter().find(holds).map(|rule| rule.rate)
    }

    pub fn is_in(&self, scratch: &Scratch, prediction_id: &Id, rate: f64) -> bool {
        let key = if scratch.has_sample { &*scratch.sample } else { prediction_id.as_bytes() };
        sampling::is_in(key, rate)
    }
}

impl Key {
    fn compile(key: &str, blocks: &[BlockPlan; 5]) -> Result<Key, PlanError> {
        if key == "prediction_id" {
            return Ok(Key::PredictionId);
        }
        for block in [Block::Entity, Block::Context] {
            let fields = &blocks[block as usize].fields;
            if let Some(place) = fields.iter().position(|field| field.name == key)
                && matches!(fields[place].treatment, Treatment::None)
            {
                let is_integer = match fields[place].ty {
                    Type::Int | Type::Long => true,
                    Type::String | Type::Uuid => false,
                    _ => break,
                };
                return Ok(Key::Field { block, place, is_integer });
            }
        }
        Err(PlanError::SamplingKey { key: key.to_owned() })
    }
}

impl KeepPlan {
    fn compile(rule: &Keep, fields: &[FieldPlan]) -> Result<KeepPlan, PlanError> {
        let unusable = || PlanError::KeepField { field: rule.field.clone() };
        let place = fields.iter().position(|field| field.name == rule.field).ok_or_else(unusable)?;
        let field = &fields[place];
        if !matches!(field.treatment, Treatment::None) {
            return Err(unusable());
        }
        let test = match (&field.ty, &rule.condition) {
            (Type::Int | Type::Long, Condition::Between { min, max }) => Test::Integer(Bounds::new(*min, *max)),
            (Type::Float, Condition::Between { min, max }) => Test::Float(Bounds::new(*min, *max)),
            (Type::Double, Condition::Between { min, max }) => Test::Double(Bounds::new(*min, *max)),
            (Type::Boolean, Condition::Equals(Scalar::Boolean(value))) => Test::Boolean(*value),
            (Type::String, Condition::Equals(Scalar::String(value))) => Test::Text(value.clone()),
            _ => return Err(unusable()),
        };
        Ok(KeepPlan { place, test, rate: rule.rate })
    }
}

impl Test {
    /// `bytes`: the value as Avro has it.
    fn holds(&self, bytes: &[u8]) -> bool {
        match self {
            Test::Integer(bounds) => take_long(bytes).is_some_and(|(value, _)| bounds.holds_long(value)),
            Test::Float(bounds) => bytes.try_into().is_ok_and(|bytes| bounds.holds_float(f32::from_le_bytes(bytes))),
            Test::Double(bounds) => bytes.try_into().is_ok_and(|bytes| bounds.holds_double(f64::from_le_bytes(bytes))),
            Test::Boolean(wanted) => bytes == [u8::from(*wanted)],
            Test::Text(wanted) => take_long(bytes).is_some_and(|(_, text)| text == wanted.as_bytes()),
        }
    }
}

/// Keeps the text of the field at `place` of the block just read, if it is there.
fn keep_key(reader: &mut Reader<'_, '_>, place: usize, is_integer: bool) {
    let mut sample = std::mem::take(&mut reader.scratch.sample);
    sample.clear();
    reader.scratch.has_sample = false;
    if let Some((value, text)) = reader.value(place).and_then(take_long) {
        if is_integer {
            sample.extend_from_slice(value.to_string().as_bytes());
        } else {
            sample.extend_from_slice(text);
        }
        reader.scratch.has_sample = true;
    }
    reader.scratch.sample = sample;
}
