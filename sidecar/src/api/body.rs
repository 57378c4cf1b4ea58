//! Reading a request body within its bounds.

use std::pin::pin;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use futures::{FutureExt, StreamExt};
use tokio::sync::SemaphorePermit;

use super::error::Problem;
use crate::crowd::Crowd;
use crate::dead_letter::BODY_BYTES_KEPT;
use crate::shared::{BODY_PIECE, Shared};

/// Of a body that is too large so much is read and thrown away, so that the client gets to read the answer; a client
/// that sends more than this is cut off.
const DRAINED_BYTES_MAX: usize = 64 << 20;

/// A body, or the reason why there is none.
#[derive(Debug)]
pub(crate) enum Read {
    Whole(Bytes),
    /// More than the limit; the length that was seen or announced, and its beginning as far as it was read.
    TooLarge {
        head: Vec<u8>,
        bytes: usize,
        ended: bool,
    },
}

/// Takes the memory that `body` will need, or that one of unknown length may need. None where there is not as much left:
/// then those whose bodies are slow give way to the next.
pub(crate) fn room<'s>(shared: &'s Shared, body: &Body) -> Option<SemaphorePermit<'s>> {
    let bytes_max = shared.limits.body_bytes as u64;
    let bytes = body.size_hint().exact().unwrap_or(bytes_max).min(bytes_max);
    // At most 16 MiB.
    let pieces = u32::try_from(bytes.div_ceil(BODY_PIECE).max(1)).unwrap_or(u32::MAX);
    let room = shared.bodies.try_acquire_many(pieces).ok();
    if room.is_none() {
        shared.senders.press();
    }
    room
}

/// Reads `body` to its end, up to `bytes_max` bytes, within `within`, and within less when others wait for the room of the
/// `senders`. `asks_first`: the request has `Expect: 100-continue`.
///
/// # Errors
/// 400 where it breaks off, 408 where it is too slow.
pub(crate) async fn read(
    asks_first: bool,
    body: Body,
    bytes_max: usize,
    within: Duration,
    senders: &Crowd,
) -> Result<Read, Problem> {
    let announced = body.size_hint().exact().unwrap_or_default();
    // Reading would tell a client that asks first, as curl does, to go on.
    if announced > bytes_max as u64 && asks_first {
        let bytes = usize::try_from(announced).unwrap_or(usize::MAX);
        return Ok(Read::TooLarge { head: Vec::new(), bytes, ended: false });
    }
    let mut reading = pin!(collect(body, announced, bytes_max));
    // As a rule the body came with the head; then no timer is needed.
    match reading.as_mut().now_or_never() {
        Some(read) => read,
        None => {
            Box::pin(async {
                tokio::select! {
                    biased;
                    read = reading => read,
                    () = tokio::time::sleep(within) => Err(Problem::too_slow()),
                    () = senders.lose_patience() => Err(Problem::too_slow()),
                }
            })
            .await
        }
    }
}

/// Reads a body that nobody wants, so that the client gets to read why; keeps `problem` from being overtaken by a reset
/// connection. Where the body does not end in time and bounds, the connection does.
pub(crate) async fn discard(body: Body, within: Duration, problem: Problem) -> Problem {
    let mut frames = body.into_data_stream();
    let reading = async {
        let mut bytes = 0;
        while let Some(Ok(frame)) = frames.next().await {
            bytes += frame.len();
            if bytes > DRAINED_BYTES_MAX {
                return false;
            }
        }
        true
    };
    match tokio::time::timeout(within, reading).await {
        Ok(true) => problem,
        _ => problem.closing(),
    }
}

pub(crate) fn too_large(bytes_max: usize) -> Problem {
    Problem::too_large(format!("a body has at most limits.body_bytes = {bytes_max} bytes; send smaller batches"))
}

async fn collect(body: Body, announced: u64, bytes_max: usize) -> Result<Read, Problem> {
    let mut frames = body.into_data_stream();
    let broken = |error: axum::Error| Problem::bad_request(format!("the body broke off: {error}")).closing();
    let mut first = Bytes::new();
    let mut joined = Vec::new();
    while let Some(frame) = frames.next().await {
        let frame = frame.map_err(broken)?;
        if first.is_empty() && joined.is_empty() && frame.len() <= bytes_max {
            first = frame;
            continue;
        }
        if joined.is_empty() {
            // Memory that is announced and never comes is never touched either.
            joined.reserve_exact(usize::try_from(announced).unwrap_or(bytes_max).clamp(first.len(), bytes_max));
            joined.extend_from_slice(&std::mem::take(&mut first));
        }
        if joined.len() + frame.len() > bytes_max {
            let mut bytes = joined.len() + frame.len();
            joined.extend_from_slice(&frame[..frame.len().min(BODY_BYTES_KEPT)]);
            joined.truncate(BODY_BYTES_KEPT);
            joined.shrink_to_fit();
            drop(frame);
            let mut ended = true;
            while let Some(frame) = frames.next().await {
                bytes += frame.map_err(broken)?.len();
                if bytes > DRAINED_BYTES_MAX {
                    ended = false;
                    break;
                }
            }
            return Ok(Read::TooLarge { head: joined, bytes, ended });
        }
        joined.extend_from_slice(&frame);
    }
    Ok(Read::Whole(if joined.is_empty() { first } else { Bytes::from(joined) }))
}
