//! The candidates of one request: what they have in common is read once and stays in the buffers while item after item
//! is read behind it.
//!
//! The body is passed over first, which finds the items and shows that all of it is JSON: an item that is at fault takes
//! nothing from the others, and a body that breaks off gives no row at all.

use super::avro::put_bytes;
use super::block::Segment;
use super::fault::{Fault, Faults, Reason, Stop, Within};
use super::identity::Id;
use super::plan::Plan;
use super::prediction::{self, Envelope, Served};
use super::reader::{Given, Reader};
use super::{Receipt, Scratch};

pub(super) const KEYS: [&str; 2] = ["shared", "items"];

/// The keys of a prediction, by place, that an item alone can have: `prediction_id` and `rank`.
const OWN: [usize; 2] = [0, 7];

/// A body of candidates, taken apart.
#[derive(Debug)]
pub struct Candidates<'b> {
    shared: Option<&'b str>,
    items: Vec<&'b str>,
}

/// What was read of `shared`, and what its items have in common beyond that. It belongs to the [`Scratch`] it was read with.
#[derive(Debug)]
pub struct Group {
    common: Common,
    head_bytes: usize,
    blocks_bytes: usize,
    /// The id of the first item that is right.
    first: Option<Id>,
}

/// What stands in `shared`: texts as ranges of `scratch.head`, fields as segments of `scratch.blocks`.
#[derive(Debug)]
pub(super) struct Common {
    envelope: Envelope,
    segments: [Vec<Segment>; 5],
}

impl<'b> Candidates<'b> {
    /// Whether `body` begins as one of candidates does.
    pub fn are_in(body: &[u8]) -> bool {
        let Some(rest) = body.trim_ascii_start().strip_prefix(b"{") else { return false };
        let rest = rest.trim_ascii_start();
        rest.starts_with(b"\"items\"") || rest.starts_with(b"\"shared\"")
    }

    /// Takes `body` apart. Of more than `items_max` items it keeps one more than that.
    ///
    /// # Errors
    /// Every fault of the body beside those of its parts.
    pub fn find(
        plan: &Plan,
        scratch: &mut Scratch,
        body: &'b [u8],
        items_max: usize,
    ) -> Result<Candidates<'b>, Vec<Fault>> {
        let mut reader = Reader::open(body, scratch)?;
        let (mut shared, mut items) = (None, Vec::new());
        let unknown = "beside `shared` and `items` there is nothing; what all items have in common stands in `shared`";
        let read = reader.members(&KEYS, &plan.candidates_keys, unknown, |reader, place| {
            let start = reader.scanner.at;
            if place == 0 {
                reader.skip()?;
                shared = Some(reader.scanner.text_since(start)).filter(|text| *text != "null");
                return Ok(());
            }
            if reader.scanner.peek() != b'[' {
                let detail = format!("must be an array, found {}", reader.scanner.found());
                reader.faults.add(&[KEYS[1]], Reason::WrongType, detail)?;
                return reader.skip();
            }
            let mut more = reader.scanner.first_item();
            while more {
                let start = reader.scanner.at;
                reader.skip()?;
                if items.len() <= items_max {
                    items.push(reader.scanner.text_since(start));
                }
                more = reader.scanner.next_item().map_err(|broken| reader.stop(broken))?;
            }
            Ok(())
        });
        if read.is_ok_and(|seen| seen & 2 == 0 || (items.is_empty() && reader.faults.is_empty())) {
            // A full list ends the reading, which is over anyway.
            let _: Result<(), Stop> = reader.missing(&[KEYS[1]], "a body of candidates has one item at least");
        }
        if reader.faults.is_empty() { Ok(Candidates { shared, items }) } else { Err(reader.faults.into_list()) }
    }

    pub fn items(&self) -> &[&'b str] {
        &self.items
    }

    /// Reads what the items have in common. The items must be read with the same plan and buffers, and nothing between.
    ///
    /// # Errors
    /// Every fault of it.
    pub fn group(&self, plan: &Plan, scratch: &mut Scratch) -> Result<Group, Vec<Fault>> {
        scratch.clear();
        let text = self.shared.unwrap_or("{}");
        let mut reader = Reader::begin(text, Faults::of(Within::Shared), scratch)?;
        reader.is_partial = true;
        let mut segments = [const { Vec::new() }; 5];
        let read = prediction::read(&mut reader, plan, None, |reader, place| {
            segments[place].clone_from(&reader.scratch.segments);
        });
        let read = read.and_then(|envelope| {
            for place in OWN.into_iter().filter(|place| envelope.seen & (1 << place) != 0) {
                let detail = "it is of one prediction alone; send it in the item";
                reader.faults.add(&[prediction::KEYS[place]], Reason::UnknownField, detail)?;
            }
            Ok(envelope)
        });
        match read {
            Ok(envelope) if reader.faults.is_empty() => Ok(Group {
                common: Common { envelope, segments },
                head_bytes: reader.scratch.head.len(),
                blocks_bytes: reader.scratch.blocks.len(),
                first: None,
            }),
            _ => Err(reader.faults.into_list()),
        }
    }

    /// Transcodes the item at `place` and appends its datum to `out`.
    ///
    /// # Errors
    /// Every fault of the item; `out` is then as it was.
    pub fn item(
        &self,
        plan: &Plan,
        scratch: &mut Scratch,
        group: &mut Group,
        place: usize,
        receipt: &Receipt<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Served, Vec<Fault>> {
        scratch.head.truncate(group.head_bytes);
        scratch.blocks.truncate(group.blocks_bytes);
        scratch.has_sample = false;
        let text = self.items.get(place).copied().unwrap_or_default();
        let mut reader = Reader::begin(text, Faults::of(Within::Item(place)), scratch)?;
        let envelope = prediction::read(&mut reader, plan, Some(&group.common), |_, _| ());
        let first = &mut group.first;
        let complete = |envelope: &mut Envelope, scratch: &mut Scratch, id: &Id| {
            let first = first.get_or_insert(*id);
            if matches!(envelope.request_id, Given::Absent) {
                let start = scratch.head.len();
                put_bytes(&mut scratch.head, first.as_bytes());
                envelope.request_id = Given::Is(start..scratch.head.len());
            }
            if matches!(envelope.rank, Given::Absent) {
                // A batch has far fewer items.
                envelope.rank = Given::Is(i64::try_from(place).unwrap_or(i64::MAX));
            }
        };
        prediction::finish(reader, plan, envelope, receipt, complete, out)
    }
}

impl Common {
    /// Where the fields of a block stand; empty where it has none.
    pub fn segments(&self, block_place: usize) -> &[Segment] {
        &self.segments[block_place]
    }

    /// Gives an item what it does not have itself, and lists what both have.
    pub fn complete(&self, reader: &mut Reader<'_, '_>, envelope: &mut Envelope) -> Result<(), Stop> {
        const BLOCKS: u32 = 0x1f << 10;
        let both = envelope.seen & self.envelope.seen & !BLOCKS;
        for (place, key) in prediction::KEYS.into_iter().enumerate() {
            if both & (1 << place) != 0 {
                let detail = "the key stands in `shared` too; leave it out of one of the two";
                reader.faults.add(&[key], Reason::DuplicateKey, detail)?;
            }
        }
        let from = &self.envelope;
        inherit(&mut envelope.event_time_us, &from.event_time_us);
        inherit(&mut envelope.request_id, &from.request_id);
        inherit(&mut envelope.parent_prediction_id, &from.parent_prediction_id);
        inherit(&mut envelope.model_version, &from.model_version);
        inherit(&mut envelope.variant, &from.variant);
        inherit(&mut envelope.exposure, &from.exposure);
        inherit(&mut envelope.latency_us, &from.latency_us);
        inherit(&mut envelope.status, &from.status);
        for (own, common) in envelope.blocks.iter_mut().zip(&from.blocks) {
            if own.is_none() {
                own.clone_from(common);
            }
        }
        Ok(())
    }
}

fn inherit<T: Clone>(own: &mut Given<T>, common: &Given<T>) {
    if matches!(own, Given::Absent) {
        own.clone_from(common);
    }
}
