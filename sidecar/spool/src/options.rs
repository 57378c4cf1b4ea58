//! The bounds of a spool.

use std::time::Duration;

use crate::SpoolError;
use crate::block::{HEADER_BYTES, RECORD_HEADER_BYTES};
use crate::segment::SEGMENT_HEADER_BYTES;

/// A block is closed at this length: large enough that its header and its write cost nothing, small enough that damage to
/// one header takes little with it.
const BLOCK_BYTES: u64 = 256 * 1024;
/// What may wait in memory for the disk: some milliseconds of the fastest intake, and nothing that a process would notice.
const QUEUE_BYTES: u64 = 8 * 1024 * 1024;
/// The longest record that may be asked for; a length beyond it is a mistake.
const RECORD_BYTES_LIMIT: usize = 256 * 1024 * 1024;

/// The longest body of a block with so many records: more than one are kept within a block's length, one may be longer.
pub(crate) fn body_bytes_max(records: u32) -> u64 {
    if records == 1 { (RECORD_HEADER_BYTES + RECORD_BYTES_LIMIT) as u64 } else { BLOCK_BYTES }
}

/// When a record counts as accepted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Accepted {
    /// After `write(2)`: it survives the process.
    #[default]
    Kernel,
    /// After `fdatasync(2)`: it survives the power.
    Disk,
}

/// How blocks go to the disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Compress {
    /// As they are.
    #[default]
    None,
    /// Packed, where that makes them shorter. It costs the writer's thread time, and damage costs a whole block.
    Zstd,
}

/// How a spool behaves, and its bounds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// A segment is closed before it would pass this; a quarter of `max_bytes` where that is less, so that forwarded records
    /// always make room. Default 64 MiB.
    pub segment_bytes: u64,
    /// All segments and what waits in memory together. Default 1 GiB; at least four times the longest record.
    pub max_bytes: u64,
    /// The longest payload. Room for one is needed for any append. Default 1 MiB.
    pub record_bytes_max: usize,
    pub accepted: Accepted,
    /// With [`Accepted::Kernel`]: the longest time that a written record waits for `fdatasync` to begin, beside one that
    /// is under way: so what a power cut may take. With [`Accepted::Disk`] a sync begins as soon as none is under way.
    /// Default 100 ms.
    pub sync_interval: Duration,
    /// Default none.
    pub compress: Compress,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            segment_bytes: 64 * 1024 * 1024,
            max_bytes: 1024 * 1024 * 1024,
            record_bytes_max: 1024 * 1024,
            accepted: Accepted::Kernel,
            sync_interval: Duration::from_millis(100),
            compress: Compress::None,
        }
    }
}

impl Options {
    pub(crate) fn check(&self) -> Result<(), SpoolError> {
        if self.record_bytes_max == 0 || self.record_bytes_max > RECORD_BYTES_LIMIT {
            let text = format!("record_bytes_max is {}; it must be 1 to {RECORD_BYTES_LIMIT}", self.record_bytes_max);
            return Err(SpoolError::Options(text));
        }
        let least = 4 * self.room_bytes();
        if self.max_bytes < least {
            let text = format!(
                "max_bytes is {}; with record_bytes_max {} it must be {least} or more",
                self.max_bytes, self.record_bytes_max
            );
            return Err(SpoolError::Options(text));
        }
        Ok(())
    }

    /// What one append can take at most: a record in a block of its own in a segment of its own.
    pub(crate) fn room_bytes(&self) -> u64 {
        (RECORD_HEADER_BYTES + HEADER_BYTES + self.record_bytes_max) as u64 + SEGMENT_HEADER_BYTES
    }

    pub(crate) fn segment_bytes(&self) -> u64 {
        self.segment_bytes.min(self.max_bytes / 4)
    }

    pub(crate) fn block_bytes(&self) -> u64 {
        BLOCK_BYTES.min(self.segment_bytes())
    }

    pub(crate) fn queue_bytes_max(&self) -> u64 {
        QUEUE_BYTES.max(2 * self.room_bytes())
    }

    /// Written and not synced, kept in memory to be written again should the sync fail: half of it while a sync is under way,
    /// the other half before the next.
    pub(crate) fn unsynced_bytes_max(&self) -> u64 {
        QUEUE_BYTES
    }
}
