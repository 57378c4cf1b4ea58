//! An object of declared fields: the blocks of a prediction, and the labels of an outcome.
//!
//! Fields are written as they come. While they come in the order of the schema, gaps are filled with null at once and
//! the bytes stand as they must; else the recorded segments are put in order at the end.

use std::ops::Range;
use std::sync::Arc;

use flywheel_schemas::types::Type;

use super::avro::{close_array, put_bytes, take_long};
use super::fault::{Reason, Stop};
use super::names::Names;
use super::reader::Reader;
use super::value::{self, Bounds, Trouble, mismatch};
use crate::privacy::KeyRing;

/// What stands for a masked string.
const MASK: &[u8] = b"***";

/// An object of the body and the record it becomes.
#[derive(Debug)]
pub(super) struct BlockPlan {
    /// The key of the object.
    pub name: &'static str,
    /// In the order of the schema.
    pub fields: Vec<FieldPlan>,
    pub names: Names,
    pub holds_labels: bool,
    pub has_required: bool,
}

#[derive(Debug)]
pub(super) struct FieldPlan {
    pub name: String,
    pub ty: Type,
    /// The bytes that Avro puts for the two branches of the union.
    pub null: u8,
    pub some: u8,
    pub required: bool,
    pub treatment: Treatment,
    pub bounds: Option<Bounds>,
}

/// What becomes of a value that is right, before anything can keep it.
#[derive(Debug, Clone)]
pub(super) enum Treatment {
    None,
    Drop,
    Mask,
    Pseudonym(Arc<KeyRing>),
}

/// Where the bytes of a field stand.
#[derive(Debug, Clone, Copy)]
pub(super) struct Segment {
    start: usize,
    end: usize,
}

impl Segment {
    const UNSEEN: Segment = Segment { start: usize::MAX, end: usize::MAX };

    fn is_seen(self) -> bool {
        self.start != usize::MAX
    }
}

impl Reader<'_, '_> {
    /// Reads the object at the scanner and appends its record to `scratch.blocks`; `scratch.segments` then says where
    /// each field that came stands. None, and no segments, where there was null or no object.
    ///
    /// `base`: where the fields stand that the same block has elsewhere; empty where there is none. They become part of the
    /// record, and none of them may come again.
    pub fn block(&mut self, plan: &BlockPlan, base: &[Segment]) -> Result<Option<Range<usize>>, Stop> {
        self.scratch.segments.clear();
        if self.null()? {
            self.absent_block(plan, base)?;
            return Ok(None);
        }
        if self.scanner.peek() != b'{' {
            let detail = format!("must be an object, found {}", self.scanner.found());
            self.faults.add(&[plan.name], Reason::WrongType, detail)?;
            self.skip()?;
            return Ok(None);
        }
        let start = self.scratch.blocks.len();
        self.scratch.segments.extend_from_slice(base);
        self.scratch.segments.resize(plan.fields.len(), Segment::UNSEEN);
        // The place behind the last field that came, and whether one came that belongs before another.
        let mut next = 0;
        let mut is_ordered = base.is_empty();
        let mut count = base.iter().filter(|segment| segment.is_seen()).count();
        let mut more = self.member(true)?;
        while more {
            match self.key(next, &plan.names)? {
                Some(place) => {
                    let field = &plan.fields[place];
                    if self.scratch.segments[place].is_seen() {
                        let detail = if base.get(place).is_some_and(|segment| segment.is_seen()) {
                            "the key stands in `shared` too; leave it out of one of the two"
                        } else {
                            "the key has come before in this object"
                        };
                        self.faults.add(&[plan.name, &field.name], Reason::DuplicateKey, detail)?;
                        self.skip()?;
                    } else {
                        if is_ordered && place > next {
                            let gap = plan.fields[next..place].iter().map(|field| field.null);
                            self.scratch.blocks.extend(gap);
                        }
                        is_ordered &= place >= next;
                        next = place + 1;
                        count += 1;
                        let start = self.scratch.blocks.len();
                        self.field(plan, field)?;
                        self.scratch.segments[place] = Segment { start, end: self.scratch.blocks.len() };
                    }
                }
                None => {
                    let (reason, detail) = if plan.holds_labels {
                        (Reason::UnknownLabel, "the contract has no such label")
                    } else {
                        (Reason::UnknownField, "the contract has no such field in this block")
                    };
                    self.faults.add(&[plan.name, &self.scratch.key], reason, detail)?;
                    self.skip()?;
                }
            }
            more = self.member(false)?;
        }
        if count < plan.fields.len() {
            if plan.has_required && !self.is_partial {
                self.missing_fields(plan)?;
            }
            if is_ordered {
                let rest = plan.fields[next..].iter().map(|field| field.null);
                self.scratch.blocks.extend(rest);
            }
        }
        if !is_ordered {
            self.put_in_order(plan, start);
        }
        Ok(Some(start..self.scratch.blocks.len()))
    }

    /// Lists the required fields of a block that did not come at all, but for those of `base`, whose segments are then
    /// those of the block.
    pub fn absent_block(&mut self, plan: &BlockPlan, base: &[Segment]) -> Result<(), Stop> {
        self.scratch.segments.clear();
        self.scratch.segments.extend_from_slice(base);
        if plan.has_required && !self.is_partial {
            self.scratch.segments.resize(plan.fields.len(), Segment::UNSEEN);
            self.missing_fields(plan)?;
        }
        Ok(())
    }

    #[cold]
    fn missing_fields(&mut self, plan: &BlockPlan) -> Result<(), Stop> {
        for (place, field) in plan.fields.iter().enumerate() {
            if field.required && !self.scratch.segments[place].is_seen() {
                self.missing(&[plan.name, &field.name], "the contract requires the field")?;
            }
        }
        Ok(())
    }

    /// Puts the record that stands in `scratch.blocks` from `start` on into the order of the schema.
    fn put_in_order(&mut self, plan: &BlockPlan, start: usize) {
        let (blocks, ordered) = (&mut self.scratch.blocks, &mut self.scratch.ordered);
        ordered.clear();
        for (field, segment) in plan.fields.iter().zip(&mut self.scratch.segments) {
            let at = ordered.len();
            if segment.is_seen() {
                ordered.extend_from_slice(&blocks[segment.start..segment.end]);
                *segment = Segment { start: start + at, end: start + ordered.len() };
            } else {
                ordered.push(field.null);
            }
        }
        blocks.truncate(start);
        blocks.extend_from_slice(ordered);
    }

    /// The Avro bytes of a field of the block just read, without those of its branch; none where it is absent or null.
    pub fn value(&self, place: usize) -> Option<&[u8]> {
        let segment = self.scratch.segments.get(place).filter(|segment| segment.is_seen())?;
        let (_, value) = self.scratch.blocks.get(segment.start..segment.end)?.split_first()?;
        // Every value has a byte at least.
        Some(value).filter(|value| !value.is_empty())
    }

    #[inline]
    fn field(&mut self, plan: &BlockPlan, field: &FieldPlan) -> Result<(), Stop> {
        if self.scanner.peek() == b'n' {
            return self.null_field(plan, field);
        }
        let start = self.scratch.blocks.len();
        self.scratch.blocks.push(field.some);
        if let Type::List(item) = &field.ty {
            self.list(plan, field, item)?;
        } else {
            let (text, blocks) = (&mut self.scratch.text, &mut self.scratch.blocks);
            if let Err(trouble) = value::write(&mut self.scanner, &field.ty, field.bounds.as_ref(), text, blocks) {
                self.trouble(&[plan.name, &field.name], trouble)?;
            }
        }
        if !matches!(field.treatment, Treatment::None) {
            self.treat(field, start);
        }
        Ok(())
    }

    /// Puts what may be kept in the place of the value that was written from `start` on.
    fn treat(&mut self, field: &FieldPlan, start: usize) {
        let (text, blocks) = (&mut self.scratch.text, &mut self.scratch.blocks);
        let kept = match &field.treatment {
            Treatment::Mask if field.ty == Type::String => Some(MASK),
            // None where the value was at fault; then nothing of the body is written.
            Treatment::Pseudonym(keys) if field.ty == Type::String => {
                take_long(&blocks[start + 1..]).map(|(_, value)| {
                    keys.write_newest(value, text);
                    text.as_bytes()
                })
            }
            _ => None,
        };
        blocks.truncate(start);
        match kept {
            Some(kept) => {
                blocks.push(field.some);
                put_bytes(blocks, kept);
            }
            None => blocks.push(field.null),
        }
    }

    fn null_field(&mut self, plan: &BlockPlan, field: &FieldPlan) -> Result<(), Stop> {
        self.scanner.literal("null").map_err(|broken| self.stop(broken))?;
        self.scratch.blocks.push(field.null);
        let path = [plan.name, &field.name];
        if plan.holds_labels {
            let detail = "a label is stated with a value; to take one back, send \"op\": \"retract\"";
            self.faults.add(&path, Reason::NullLabel, detail)?;
        } else if field.required {
            self.missing(&path, "the contract requires the field; null is no value")?;
        }
        Ok(())
    }

    fn list(&mut self, plan: &BlockPlan, field: &FieldPlan, item: &Type) -> Result<(), Stop> {
        if self.scanner.peek() != b'[' {
            let trouble = mismatch(&mut self.scanner, &field.ty);
            return self.trouble(&[plan.name, &field.name], trouble);
        }
        let start = self.scratch.blocks.len();
        let mut count = 0;
        let mut more = self.scanner.first_item();
        while more {
            let (text, blocks) = (&mut self.scratch.text, &mut self.scratch.blocks);
            let written = if self.scanner.peek() == b'n' {
                Err(mismatch(&mut self.scanner, item))
            } else {
                value::write(&mut self.scanner, item, field.bounds.as_ref(), text, blocks)
            };
            if let Err(trouble) = written {
                self.list_trouble(plan, field, count, trouble)?;
            }
            count += 1;
            more = self.scanner.next_item().map_err(|broken| self.stop(broken))?;
        }
        close_array(&mut self.scratch.blocks, start, count);
        Ok(())
    }

    #[cold]
    fn list_trouble(
        &mut self,
        plan: &BlockPlan,
        field: &FieldPlan,
        place: usize,
        trouble: Trouble,
    ) -> Result<(), Stop> {
        self.trouble(&[plan.name, &field.name, &place.to_string()], trouble)
    }
}
