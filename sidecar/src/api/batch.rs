//! Several rows in one body: NDJSON, a row per line, and the candidates of one request. Each row is accepted or refused by
//! itself, in the order of the body; blank lines are passed over.
//!
//! A batch that is wholly accepted is a 202 with the ids; any other a 207 with a result per row, whether it has one
//! refused row or none that was accepted. A last line that is cut short is that line's fault. Candidates are no row at all
//! where the body is no JSON or what they have in common is at fault: that is a 422 for the whole.

use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use axum::response::Response;
use flywheel_spool::AppendError;

use super::error::{Problem, retry_after_spool};
use super::intake::{Appended, Call, Refusal};
use super::predictions::Predictions;
use super::{Intake, Row, json, put_text};
use crate::transcode::{Candidates, Fault, Id, Reason};

/// Faults that one answer lists in full; of the lines after that it lists the first fault each. Bounds the answer.
const FAULTS_LISTED_MAX: usize = 1000;

/// What became of a line.
enum Line {
    Accepted(Id),
    Refused(Vec<Fault>),
    /// The spool did not take it.
    Unavailable,
}

pub(crate) async fn take<I: Intake>(call: &Call<'_>, body: &[u8]) -> Result<Response, Problem> {
    let rows_max = call.shared.limits.batch_rows;
    let lines: Vec<&[u8]> = lines(body).take(rows_max + 1).collect();
    if lines.len() > rows_max {
        return Err(too_many::<I>(call, body));
    }
    if lines.is_empty() {
        let fault =
            Fault { pointer: String::new(), reason: Reason::InvalidJson, detail: "the batch has no rows".into() };
        call.refuse(I::KIND, std::slice::from_ref(&fault), body, body.len());
        return Err(Problem::refused(vec![fault]));
    }
    let appended: Vec<_> = call.shared.work.with(|work| {
        let mut entry = call.enter()?;
        let version = call.model.version();
        Ok(lines.iter().map(|line| call.append::<I>(&version, &mut entry, work, line)).collect())
    })?;
    Ok(settle::<I>(call, appended, &lines).await)
}

/// The candidates of one request.
pub(crate) async fn take_candidates(call: &Call<'_>, body: &[u8]) -> Result<Response, Problem> {
    let version = call.model.version();
    let (plan, rows_max) = (&version.plan, call.shared.limits.batch_rows);
    let taken = call.shared.work.with(|work| {
        let candidates = match Candidates::find(plan, &mut work.scratch, body, rows_max) {
            Ok(candidates) if candidates.items().len() > rows_max => {
                return Err(too_many::<Predictions>(call, body));
            }
            Ok(candidates) => candidates,
            Err(faults) => return Ok(Err(faults)),
        };
        let mut group = match candidates.group(plan, &mut work.scratch) {
            Ok(group) => group,
            Err(faults) => return Ok(Err(faults)),
        };
        let mut entry = call.enter()?;
        let mut appended = Vec::with_capacity(candidates.items().len());
        for place in 0..candidates.items().len() {
            appended.push(call.append_row::<Predictions>(&version, &mut entry, work, |work| {
                let (scratch, datum) = (&mut work.scratch, &mut work.datum);
                candidates.item(plan, scratch, &mut group, place, &call.receipt(), datum).map(Row::from)
            }));
        }
        Ok(Ok((candidates, appended)))
    })?;
    match taken {
        Ok((candidates, appended)) => {
            let items: Vec<&[u8]> = candidates.items().iter().map(|item| item.as_bytes()).collect();
            Ok(settle::<Predictions>(call, appended, &items).await)
        }
        Err(faults) => {
            call.refuse(Predictions::KIND, &faults, body, body.len());
            Err(Problem::refused(faults))
        }
    }
}

fn too_many<I: Intake>(call: &Call<'_>, body: &[u8]) -> Problem {
    let detail = format!("a batch has at most limits.batch_rows = {} rows", call.shared.limits.batch_rows);
    let fault = Fault { pointer: String::new(), reason: Reason::TooLarge, detail: detail.clone() };
    call.refuse(I::KIND, &[fault], body, body.len());
    Problem::too_large(detail)
}

/// Waits for the rows to be accepted, and says what became of each.
async fn settle<I: Intake>(call: &Call<'_>, appended: Vec<Result<Appended, Refusal>>, lines: &[&[u8]]) -> Response {
    let lane = call.model.lane(I::KIND);
    let mut results = Vec::with_capacity(appended.len());
    let mut listed = 0;
    for (row, line) in appended.into_iter().zip(lines) {
        let settled = match row {
            Ok(row) => match row.ticket {
                Some(ticket) => ticket.settled(lane).await.map(|()| row.id).map_err(Refusal::Append),
                None => Ok(row.id),
            },
            Err(refusal) => Err(refusal),
        };
        results.push(match settled {
            Ok(id) => Line::Accepted(id),
            Err(Refusal::Faults(mut faults)) => {
                call.refuse(I::KIND, &faults, line, line.len());
                if listed >= FAULTS_LISTED_MAX {
                    faults.truncate(1);
                }
                listed += faults.len();
                Line::Refused(faults)
            }
            Err(Refusal::Append(AppendError::TooLarge)) => {
                call.turn_away(I::KIND, AppendError::TooLarge);
                let detail = "the record is longer than the spool takes".to_owned();
                Line::Refused(vec![Fault { pointer: String::new(), reason: Reason::TooLarge, detail }])
            }
            Err(Refusal::Append(error)) => {
                call.turn_away(I::KIND, error);
                Line::Unavailable
            }
        });
    }
    answer::<I>(&results)
}

/// The lines that are not blank.
fn lines(body: &[u8]) -> impl Iterator<Item = &[u8]> {
    // Byte by byte, looking for the ends of the lines would take a sixth of the whole.
    let ends = memchr::memchr_iter(b'\n', body).chain(std::iter::once(body.len()));
    let mut start = 0;
    ends.filter_map(move |end| {
        let line = body.get(start..end)?.trim_ascii();
        start = end + 1;
        (!line.is_empty()).then_some(line)
    })
}

fn answer<I: Intake>(results: &[Line]) -> Response {
    let is_whole = results.iter().all(|line| matches!(line, Line::Accepted(_)));
    // An accepted line of a 207 takes about 75 bytes.
    let mut out = Vec::with_capacity(32 + results.len() * 80);
    out.extend_from_slice(b"{\"");
    out.extend_from_slice(if is_whole { I::IDS.as_bytes() } else { b"results" });
    out.extend_from_slice(b"\":[");
    for (index, line) in results.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        match line {
            Line::Accepted(id) if is_whole => put_text(&mut out, id),
            Line::Accepted(id) => {
                out.extend_from_slice(b"{\"status\":202,\"");
                out.extend_from_slice(I::ID.as_bytes());
                out.extend_from_slice(b"\":");
                put_text(&mut out, id);
                out.push(b'}');
            }
            Line::Refused(faults) => {
                out.extend_from_slice(b"{\"status\":422,\"errors\":");
                // Writing to memory does not fail.
                let _ = serde_json::to_writer(&mut out, faults);
                out.push(b'}');
            }
            Line::Unavailable => out.extend_from_slice(b"{\"status\":503}"),
        }
    }
    out.extend_from_slice(b"]}");
    let mut response = json(if is_whole { StatusCode::ACCEPTED } else { StatusCode::MULTI_STATUS }, out);
    if results.iter().any(|line| matches!(line, Line::Unavailable)) {
        response.headers_mut().insert(RETRY_AFTER, retry_after_spool());
    }
    response
}
