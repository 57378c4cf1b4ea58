//! The body of a prediction.

use std::ops::Range;

use flywheel_schemas::contract::{Block, Ids};
use flywheel_schemas::id;
use flywheel_schemas::types::Type;

use super::avro::{put_bytes, put_long};
use super::candidates::Common;
use super::fault::{Fault, Reason, Stop};
use super::identity::{Id, uuid_of};
use super::plan::Plan;
use super::reader::{Given, Reader};
use super::{AHEAD_MS_MAX, Receipt, Scratch};

/// A prediction that was written, or sampled out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Served {
    pub prediction_id: Id,
    /// Milliseconds since the epoch.
    pub event_time_ms: i64,
    /// Sampling left it out: nothing was written.
    pub sampled_out: bool,
}

/// The keys of the body, in the order in which they are expected.
pub(super) const KEYS: [&str; 16] = [
    "prediction_id",
    "event_time",
    "request_id",
    "parent_prediction_id",
    "model_version",
    "variant",
    "exposure",
    "rank",
    "latency_us",
    "status",
    "entity",
    "features",
    "prediction",
    "decision",
    "context",
    "feature_handle",
];

const EXPOSURES: [&str; 3] = ["served", "shadow", "holdout"];

/// What a field of the datum holds.
#[derive(Debug, Clone, Copy)]
pub(super) enum PredictionPart {
    PredictionId,
    EventTime,
    ContractVersion,
    RequestId,
    ParentPredictionId,
    TraceId,
    ModelVersion,
    Variant,
    Exposure,
    Rank,
    Status,
    LatencyUs,
    SamplingRate,
    SampleWeight,
    Block(Block),
    /// Nothing that a body says.
    Null,
}

/// The part that fills the field `name`, and whether it is always there.
pub(super) fn part_of(name: &str) -> (PredictionPart, bool) {
    match name {
        "prediction_id" => (PredictionPart::PredictionId, true),
        "event_time" => (PredictionPart::EventTime, true),
        "contract_version" => (PredictionPart::ContractVersion, true),
        "request_id" => (PredictionPart::RequestId, false),
        "parent_prediction_id" => (PredictionPart::ParentPredictionId, false),
        "trace_id" => (PredictionPart::TraceId, false),
        "model_version" => (PredictionPart::ModelVersion, true),
        "variant" => (PredictionPart::Variant, false),
        "exposure" => (PredictionPart::Exposure, true),
        "rank" => (PredictionPart::Rank, false),
        "status" => (PredictionPart::Status, false),
        "latency_us" => (PredictionPart::LatencyUs, false),
        "sampling_rate" => (PredictionPart::SamplingRate, true),
        "sample_weight" => (PredictionPart::SampleWeight, true),
        other => match Block::ALL.into_iter().find(|block| block.name() == other) {
            Some(block) => (PredictionPart::Block(block), false),
            None => (PredictionPart::Null, false),
        },
    }
}

/// What the envelope said; texts are ranges of `scratch.head`, blocks of `scratch.blocks`.
#[derive(Debug)]
pub(super) struct Envelope {
    /// The keys that came, a bit each by their place in [`KEYS`].
    pub seen: u32,
    pub prediction_id: Given<(Id, Option<i64>)>,
    pub event_time_us: Given<i64>,
    pub request_id: Given<Range<usize>>,
    pub parent_prediction_id: Given<Range<usize>>,
    pub model_version: Given<Range<usize>>,
    pub variant: Given<Range<usize>>,
    pub exposure: Given<usize>,
    pub rank: Given<i64>,
    pub latency_us: Given<i64>,
    pub status: Given<Range<usize>>,
    pub blocks: [Option<Range<usize>>; 5],
    /// That of the keep rule that holds.
    keep_rate: Option<f64>,
}

/// Transcodes `body` and appends the datum to `out`.
///
/// # Errors
/// Every fault of the body; `out` is then as it was.
pub fn prediction(
    plan: &Plan,
    scratch: &mut Scratch,
    body: &[u8],
    receipt: &Receipt<'_>,
    out: &mut Vec<u8>,
) -> Result<Served, Vec<Fault>> {
    let mut reader = Reader::open(body, scratch)?;
    let envelope = read(&mut reader, plan, None, |_, _| ());
    finish(reader, plan, envelope, receipt, |_, _, _| (), out)
}

/// Writes what was read, if nothing is at fault. `complete` sees the envelope of a prediction that is right.
pub(super) fn finish(
    mut reader: Reader<'_, '_>,
    plan: &Plan,
    envelope: Result<Envelope, Stop>,
    receipt: &Receipt<'_>,
    complete: impl FnOnce(&mut Envelope, &mut Scratch, &Id),
    out: &mut Vec<u8>,
) -> Result<Served, Vec<Fault>> {
    let read = envelope.and_then(|envelope| Ok((settle(&mut reader, plan, &envelope, receipt.now_ms)?, envelope)));
    let Ok((Some((prediction_id, event_time_ms)), mut envelope)) = read else {
        return Err(reader.faults.into_list());
    };
    if !reader.faults.is_empty() {
        return Err(reader.faults.into_list());
    }
    complete(&mut envelope, reader.scratch, &prediction_id);
    let (rate, sampled_out) = match &plan.sampling {
        Some(sampling) => {
            let rate = envelope.keep_rate.unwrap_or(sampling.rate);
            (rate, !sampling.is_in(reader.scratch, &prediction_id, rate))
        }
        None => (1.0, false),
    };
    let served = Served { prediction_id, event_time_ms, sampled_out };
    if !sampled_out {
        write(plan, reader.scratch, &envelope, &served, rate, receipt, out);
    }
    Ok(served)
}

/// Reads a body, or a part of one. `common`: what stands elsewhere for this prediction and others. `read_block` is told
/// after each block that came, by its place, while its segments are there.
pub(super) fn read(
    reader: &mut Reader<'_, '_>,
    plan: &Plan,
    common: Option<&Common>,
    mut read_block: impl FnMut(&Reader<'_, '_>, usize),
) -> Result<Envelope, Stop> {
    let base = |place: usize| common.map_or(&[][..], |common| common.segments(place));
    let mut envelope = Envelope {
        seen: 0,
        prediction_id: Given::Absent,
        event_time_us: Given::Absent,
        request_id: Given::Absent,
        parent_prediction_id: Given::Absent,
        model_version: Given::Absent,
        variant: Given::Absent,
        exposure: Given::Absent,
        rank: Given::Absent,
        latency_us: Given::Absent,
        status: Given::Absent,
        blocks: [const { None }; 5],
        keep_rate: None,
    };
    let ids = plan.contract().ids;
    let as_it_is = |_: &str| None;
    let unknown = "a prediction has no such field";
    envelope.seen = reader.members(&KEYS, &plan.prediction_keys, unknown, |reader, place| {
        let name = KEYS[place];
        match place {
            0 => envelope.prediction_id = reader.prediction_id(ids)?,
            1 => envelope.event_time_us = reader.instant(name)?,
            2 => envelope.request_id = reader.text(name, as_it_is)?,
            3 => {
                envelope.parent_prediction_id = reader
                    .text(name, |text| uuid_of(text).filter(|_| ids == Ids::Minted).map(|uuid| Id::from_uuid(&uuid)))?;
            }
            4 => envelope.model_version = reader.text(name, as_it_is)?,
            5 => envelope.variant = reader.text(name, as_it_is)?,
            6 => envelope.exposure = reader.word(name, &EXPOSURES)?,
            7 => envelope.rank = reader.integer(name, &Type::Int, 0, i32::MAX.into())?,
            8 => envelope.latency_us = reader.integer(name, &Type::Long, 0, i64::MAX)?,
            9 => envelope.status = reader.text(name, as_it_is)?,
            10..=14 => {
                envelope.blocks[place - 10] = reader.block(&plan.blocks[place - 10], base(place - 10))?;
                read_block(reader, place - 10);
                if let Some(sampling) = &plan.sampling {
                    envelope.keep_rate = sampling.look_at(reader, place - 10).or(envelope.keep_rate);
                }
            }
            _ => {
                let detail = "feature handles are not served yet; send the features themselves";
                reader.faults.add(&[name], Reason::NotSupported, detail)?;
                reader.skip()?;
            }
        }
        Ok(())
    })?;
    if reader.is_partial {
        return Ok(envelope);
    }
    if let Some(common) = common {
        common.complete(reader, &mut envelope)?;
    }
    if matches!(envelope.model_version, Given::Absent) {
        reader.missing(&["model_version"], "the version of the model that predicted")?;
    }
    for (place, block) in plan.blocks.iter().enumerate() {
        if envelope.seen & (1 << (place + 10)) == 0 {
            reader.absent_block(block, base(place))?;
            if let (Some(sampling), Some(_)) = (&plan.sampling, common) {
                envelope.keep_rate = sampling.look_at(reader, place).or(envelope.keep_rate);
            }
        }
    }
    Ok(envelope)
}

/// Finds id and event time, each from the other or from the receipt.
fn settle(
    reader: &mut Reader<'_, '_>,
    plan: &Plan,
    envelope: &Envelope,
    now_ms: i64,
) -> Result<Option<(Id, i64)>, Stop> {
    let ids = plan.contract().ids;
    let (named, event_time_ms) = match (&envelope.event_time_us, &envelope.prediction_id) {
        (Given::Is(micros), _) => ("event_time", Some(micros.div_euclid(1000))),
        (Given::Absent, Given::Is((_, Some(id_time_ms)))) => ("prediction_id", Some(*id_time_ms)),
        (Given::Absent, Given::Absent) if ids == Ids::Minted => ("event_time", Some(now_ms)),
        (Given::Absent, _) if ids == Ids::Caller => {
            reader.missing(&["event_time"], "a contract with ids: caller needs the event time of every prediction")?;
            ("event_time", None)
        }
        _ => ("event_time", None),
    };
    if event_time_ms.is_some_and(|time_ms| time_ms > now_ms.saturating_add(AHEAD_MS_MAX)) {
        let detail = "more than 5 minutes ahead of receipt; is the client's clock right?";
        reader.faults.add(&[named], Reason::EventTimeAhead, detail)?;
    }
    let prediction_id = match &envelope.prediction_id {
        Given::Is((id, id_time_ms)) => {
            if let (Some(id_time_ms), Some(event_time_ms)) = (id_time_ms, event_time_ms)
                && *id_time_ms != event_time_ms
            {
                let detail = format!(
                    "the id was made for {id_time_ms} and event_time is {event_time_ms} (ms since the epoch); make the \
                     id from the event time, or send one of the two"
                );
                reader.faults.add(&["prediction_id"], Reason::IdTimeMismatch, detail)?;
            }
            Some(*id)
        }
        Given::Faulty => None,
        Given::Absent if ids == Ids::Caller => {
            reader.missing(&["prediction_id"], "a contract with ids: caller needs the id of every prediction")?;
            None
        }
        Given::Absent => event_time_ms.map(|event_time_ms| Id::from_uuid(&id::mint(event_time_ms))),
    };
    Ok(prediction_id.zip(event_time_ms))
}

fn write(
    plan: &Plan,
    scratch: &Scratch,
    envelope: &Envelope,
    served: &Served,
    rate: f64,
    receipt: &Receipt<'_>,
    out: &mut Vec<u8>,
) {
    // The fixed parts with the longest id take less than this.
    out.reserve(scratch.head.len() + scratch.blocks.len() + 256);
    for part in &plan.prediction_parts {
        let encoded = |range: &Given<Range<usize>>| match range {
            Given::Is(range) => scratch.head.get(range.clone()),
            Given::Absent | Given::Faulty => None,
        };
        let copied = match part.what {
            PredictionPart::RequestId => encoded(&envelope.request_id),
            PredictionPart::ParentPredictionId => encoded(&envelope.parent_prediction_id),
            PredictionPart::ModelVersion => encoded(&envelope.model_version),
            PredictionPart::Variant => encoded(&envelope.variant),
            PredictionPart::Status => encoded(&envelope.status),
            PredictionPart::Block(block) => {
                envelope.blocks[block as usize].clone().and_then(|range| scratch.blocks.get(range))
            }
            PredictionPart::Null => None,
            PredictionPart::PredictionId => {
                part.some(out);
                put_bytes(out, served.prediction_id.as_bytes());
                continue;
            }
            PredictionPart::EventTime => {
                part.some(out);
                put_long(out, served.event_time_ms.saturating_mul(1000));
                continue;
            }
            PredictionPart::ContractVersion => {
                part.some(out);
                put_long(out, plan.contract().version.into());
                continue;
            }
            PredictionPart::TraceId => {
                match receipt.trace_id {
                    Some(trace_id) => {
                        part.some(out);
                        put_bytes(out, trace_id.as_bytes());
                    }
                    None => part.null(out),
                }
                continue;
            }
            PredictionPart::Exposure => {
                part.some(out);
                let Given::Is(place) = envelope.exposure else {
                    put_bytes(out, EXPOSURES[0].as_bytes());
                    continue;
                };
                put_bytes(out, EXPOSURES[place].as_bytes());
                continue;
            }
            PredictionPart::Rank | PredictionPart::LatencyUs => {
                let is_rank = matches!(part.what, PredictionPart::Rank);
                match if is_rank { envelope.rank } else { envelope.latency_us } {
                    Given::Is(value) => {
                        part.some(out);
                        put_long(out, value);
                    }
                    Given::Absent | Given::Faulty => part.null(out),
                }
                continue;
            }
            PredictionPart::SamplingRate | PredictionPart::SampleWeight => {
                part.some(out);
                let is_rate = matches!(part.what, PredictionPart::SamplingRate);
                out.extend_from_slice(&(if is_rate { rate } else { 1.0 / rate }).to_le_bytes());
                continue;
            }
        };
        match copied {
            Some(bytes) => {
                part.some(out);
                out.extend_from_slice(bytes);
            }
            None => part.null(out),
        }
    }
}
