//! The body of an outcome.

use std::ops::Range;

use flywheel_schemas::id;
use flywheel_schemas::types::Type;

use super::avro::{put_bytes, put_length, put_long};
use super::fault::{Fault, Reason, Stop};
use super::identity::{Id, uuid_of};
use super::plan::Plan;
use super::reader::{Given, Reader};
use super::value;
use super::{AHEAD_MS_MAX, Receipt, Scratch};

/// A statement that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stated {
    pub prediction_id: Id,
    pub event_id: Id,
    /// Microseconds since the epoch.
    pub event_time_us: i64,
}

/// The keys of the body, in the order in which they are expected.
pub(super) const KEYS: [&str; 9] =
    ["prediction_id", "labels", "event_time", "outcome_id", "revision", "op", "op_time", "event_id", "source"];

const OPS: [&str; 2] = ["assert", "retract"];
const RETRACT: usize = 1;

/// What a field of the datum holds.
#[derive(Debug, Clone, Copy)]
pub(super) enum OutcomePart {
    PredictionId,
    EventId,
    OutcomeId,
    Revision,
    Op,
    OpTime,
    EventTime,
    ContractVersion,
    Source,
    Labels,
    Values,
    /// Nothing that a body says.
    Null,
}

/// The part that fills the field `name`, and whether it is always there.
pub(super) fn part_of(name: &str) -> (OutcomePart, bool) {
    match name {
        "prediction_id" => (OutcomePart::PredictionId, true),
        "event_id" => (OutcomePart::EventId, true),
        "outcome_id" => (OutcomePart::OutcomeId, true),
        "revision" => (OutcomePart::Revision, true),
        "op" => (OutcomePart::Op, true),
        "op_time" => (OutcomePart::OpTime, true),
        "event_time" => (OutcomePart::EventTime, true),
        "contract_version" => (OutcomePart::ContractVersion, true),
        "source" => (OutcomePart::Source, false),
        "labels" => (OutcomePart::Labels, false),
        "label" => (OutcomePart::Values, false),
        _ => (OutcomePart::Null, false),
    }
}

/// The value of the key `labels`.
enum Labels {
    Absent,
    Faulty,
    /// An object; its record is a range of `scratch.blocks`.
    Values(Range<usize>),
    /// An array of names, as places among the labels.
    Names(Vec<usize>),
}

/// What the body said; texts are ranges of `scratch.head`.
struct Statement {
    prediction_id: Given<(Id, Option<i64>)>,
    labels: Labels,
    event_time_us: Given<i64>,
    outcome_id: Given<Range<usize>>,
    revision: Given<i64>,
    op: Given<usize>,
    op_time_us: Given<i64>,
    event_id: Given<Id>,
    source: Given<Range<usize>>,
}

/// Transcodes `body` and appends the datum to `out`.
///
/// # Errors
/// Every fault of the body; `out` is then as it was.
pub fn outcome(
    plan: &Plan,
    scratch: &mut Scratch,
    body: &[u8],
    receipt: &Receipt<'_>,
    out: &mut Vec<u8>,
) -> Result<Stated, Vec<Fault>> {
    let mut reader = Reader::open(body, scratch)?;
    let statement = read(&mut reader, plan)
        .and_then(|statement| check(&mut reader, plan, &statement, receipt.now_ms).map(|()| statement));
    let (Ok(statement), true) = (statement, reader.faults.is_empty()) else {
        return Err(reader.faults.into_list());
    };
    let Given::Is((prediction_id, _)) = statement.prediction_id else {
        return Err(reader.faults.into_list());
    };
    let now_us = receipt.now_ms.saturating_mul(1000);
    let event_id = match statement.event_id {
        Given::Is(id) => id,
        Given::Absent | Given::Faulty => Id::from_uuid(&id::mint(receipt.now_ms)),
    };
    let stated = Stated { prediction_id, event_id, event_time_us: or(&statement.event_time_us, now_us) };
    write(plan, reader.scratch, &statement, &stated, now_us, out);
    Ok(stated)
}

fn or(given: &Given<i64>, default: i64) -> i64 {
    match given {
        Given::Is(value) => *value,
        Given::Absent | Given::Faulty => default,
    }
}

fn read(reader: &mut Reader<'_, '_>, plan: &Plan) -> Result<Statement, Stop> {
    let mut statement = Statement {
        prediction_id: Given::Absent,
        labels: Labels::Absent,
        event_time_us: Given::Absent,
        outcome_id: Given::Absent,
        revision: Given::Absent,
        op: Given::Absent,
        op_time_us: Given::Absent,
        event_id: Given::Absent,
        source: Given::Absent,
    };
    let unknown = "an outcome has no such field";
    reader.members(&KEYS, &plan.outcome_keys, unknown, |reader, place| {
        let name = KEYS[place];
        match place {
            0 => statement.prediction_id = reader.prediction_id(plan.contract().ids)?,
            1 => statement.labels = labels(reader, plan)?,
            2 => statement.event_time_us = reader.instant(name)?,
            3 => statement.outcome_id = reader.text(name, |_| None)?,
            4 => statement.revision = reader.integer(name, &Type::Long, i64::MIN, i64::MAX)?,
            5 => statement.op = reader.word(name, &OPS)?,
            6 => statement.op_time_us = reader.instant(name)?,
            7 => statement.event_id = event_id(reader)?,
            _ => statement.source = reader.text(name, |_| None)?,
        }
        Ok(())
    })?;
    Ok(statement)
}

fn event_id(reader: &mut Reader<'_, '_>) -> Result<Given<Id>, Stop> {
    const NAME: &str = "event_id";
    if reader.null()? {
        return Ok(Given::Absent);
    }
    match value::read_text(&mut reader.scanner, &Type::String, &mut reader.scratch.text) {
        Ok(text) => match uuid_of(text) {
            Some(uuid) => Ok(Given::Is(Id::from_uuid(&uuid))),
            None => {
                reader.faults.add(&[NAME], Reason::InvalidId, "must be a UUID as hyphenated text")?;
                Ok(Given::Faulty)
            }
        },
        Err(trouble) => reader.trouble(&[NAME], trouble).map(|()| Given::Faulty),
    }
}

fn labels(reader: &mut Reader<'_, '_>, plan: &Plan) -> Result<Labels, Stop> {
    match reader.scanner.peek() {
        b'n' => reader.null().map(|_| Labels::Absent),
        b'{' => Ok(reader.block(&plan.labels, &[])?.map_or(Labels::Faulty, Labels::Values)),
        b'[' => names(reader, plan),
        _ => {
            let detail = "must be an object of label values or, for a retract, an array of label names";
            reader.faults.add(&["labels"], Reason::WrongType, detail)?;
            reader.skip()?;
            Ok(Labels::Faulty)
        }
    }
}

fn names(reader: &mut Reader<'_, '_>, plan: &Plan) -> Result<Labels, Stop> {
    let mut places = Vec::new();
    let mut count = 0_usize;
    let mut more = reader.scanner.first_item();
    while more {
        let place = match value::read_text(&mut reader.scanner, &Type::String, &mut reader.scratch.text) {
            Ok(name) => plan.labels.names.find(name).ok_or(Reason::UnknownLabel),
            Err(trouble) => {
                reader.trouble(&["labels", &count.to_string()], trouble)?;
                Err(Reason::WrongType)
            }
        };
        match place {
            // As every place stands here once, the walk is bounded by the contract.
            Ok(place) if places.contains(&place) => {
                let path = ["labels", &count.to_string()];
                reader.faults.add(&path, Reason::DuplicateKey, "the label has been named before")?;
            }
            Ok(place) => places.push(place),
            Err(Reason::UnknownLabel) => {
                let path = ["labels", &count.to_string()];
                reader.faults.add(&path, Reason::UnknownLabel, "the contract has no such label")?;
            }
            Err(_) => {}
        }
        count += 1;
        more = reader.scanner.next_item().map_err(|broken| reader.stop(broken))?;
    }
    Ok(Labels::Names(places))
}

/// Checks what more than one key decides.
fn check(reader: &mut Reader<'_, '_>, plan: &Plan, statement: &Statement, now_ms: i64) -> Result<(), Stop> {
    if matches!(statement.prediction_id, Given::Absent) {
        reader.missing(&["prediction_id"], "the prediction that the statement is about")?;
    }
    let latest_us = now_ms.saturating_add(AHEAD_MS_MAX).saturating_mul(1000);
    for (name, time_us, reason) in [
        ("event_time", &statement.event_time_us, Reason::EventTimeAhead),
        ("op_time", &statement.op_time_us, Reason::OpTimeAhead),
    ] {
        if or(time_us, 0) > latest_us {
            let detail = "more than 5 minutes ahead of receipt; is the client's clock right?";
            reader.faults.add(&[name], reason, detail)?;
        }
    }
    let is_stated = |place: usize| reader.value(place).is_some();
    let counted = match (&statement.op, &statement.labels) {
        (Given::Faulty, _) | (_, Labels::Faulty) => false,
        (Given::Is(RETRACT), Labels::Values(_)) => {
            let detail = "a retract names its labels in an array; without `labels` it takes back all";
            reader.faults.add(&["labels"], Reason::WrongType, detail)?;
            false
        }
        (Given::Is(RETRACT), Labels::Names(places)) => places.iter().any(|place| plan.is_counted[*place]),
        (Given::Is(RETRACT), Labels::Absent) => false,
        (_, Labels::Names(_)) => {
            let detail =
                "an assert gives its labels as an object of values; to take labels back, send \"op\": \"retract\"";
            reader.faults.add(&["labels"], Reason::WrongType, detail)?;
            false
        }
        (_, Labels::Values(_)) if (0..plan.labels.names.len()).any(is_stated) => {
            (0..plan.labels.names.len()).any(|place| plan.is_counted[place] && is_stated(place))
        }
        // An object of nothing but unknown labels has its faults already.
        (_, Labels::Values(_)) if !reader.faults.is_empty() => false,
        (_, Labels::Values(_) | Labels::Absent) => {
            reader.missing(&["labels"], "an assert states at least one label")?;
            false
        }
    };
    let is_named = match &statement.outcome_id {
        // An empty text is one length byte.
        Given::Is(range) => range.len() > 1,
        Given::Absent => false,
        Given::Faulty => true,
    };
    if counted && !is_named {
        let detail = "a label that counts or sums needs the id of each fact, or a repeated one would count twice";
        reader.missing(&["outcome_id"], detail)?;
    }
    Ok(())
}

fn write(plan: &Plan, scratch: &Scratch, statement: &Statement, stated: &Stated, now_us: i64, out: &mut Vec<u8>) {
    out.reserve(scratch.head.len() + scratch.blocks.len() + 256);
    let op = match statement.op {
        Given::Is(op) => op,
        Given::Absent | Given::Faulty => 0,
    };
    for part in &plan.outcome_parts {
        let is_there = match part.what {
            OutcomePart::Source => matches!(statement.source, Given::Is(_)),
            OutcomePart::Labels => op == RETRACT,
            OutcomePart::Values => matches!(statement.labels, Labels::Values(_)),
            OutcomePart::Null => false,
            _ => true,
        };
        if !is_there {
            part.null(out);
            continue;
        }
        part.some(out);
        match part.what {
            OutcomePart::PredictionId => put_bytes(out, stated.prediction_id.as_bytes()),
            OutcomePart::EventId => put_bytes(out, stated.event_id.as_bytes()),
            OutcomePart::OutcomeId | OutcomePart::Source => {
                let is_source = matches!(part.what, OutcomePart::Source);
                match if is_source { &statement.source } else { &statement.outcome_id } {
                    Given::Is(range) => out.extend_from_slice(scratch.head.get(range.clone()).unwrap_or_default()),
                    Given::Absent | Given::Faulty => put_bytes(out, b""),
                }
            }
            OutcomePart::Revision => put_long(out, or(&statement.revision, 0)),
            OutcomePart::Op => put_bytes(out, OPS[op].as_bytes()),
            OutcomePart::OpTime => put_long(out, or(&statement.op_time_us, now_us)),
            OutcomePart::EventTime => put_long(out, stated.event_time_us),
            OutcomePart::ContractVersion => put_long(out, plan.contract().version.into()),
            OutcomePart::Labels => {
                let places = if let Labels::Names(places) = &statement.labels { places.as_slice() } else { &[] };
                if !places.is_empty() {
                    put_length(out, places.len());
                }
                for place in places {
                    put_bytes(out, plan.labels.fields[*place].name.as_bytes());
                }
                out.push(0);
            }
            OutcomePart::Values => {
                if let Labels::Values(range) = &statement.labels {
                    out.extend_from_slice(scratch.blocks.get(range.clone()).unwrap_or_default());
                }
            }
            OutcomePart::Null => {}
        }
    }
}
