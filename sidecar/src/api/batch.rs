//! NDJSON: a row per line. Each line is accepted or refused by itself, in line order; blank lines are passed over.
//!
//! A batch that is wholly accepted is a 202 with the ids; any other a 207 with a result per line, whether it has one
//! refused line or none that was accepted. A last line that is cut short is that line's fault.

use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use axum::response::Response;
use flywheel_spool::AppendError;

use super::error::{Problem, retry_after_spool};
use super::intake::{Call, Refusal};
use super::{Intake, json, put_text};
use crate::transcode::{Fault, Id, Reason};

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
        let detail = format!("a batch has at most limits.batch_rows = {rows_max} rows");
        let fault = Fault { pointer: String::new(), reason: Reason::TooLarge, detail: detail.clone() };
        call.refuse(I::KIND, &[fault], body, body.len());
        return Err(Problem::too_large(detail));
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
    Ok(answer::<I>(&results))
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
