//! A bounded, checksummed, segmented log on local disk: bytes in, bytes out.
//!
//! One process writes a directory ([`Spool`]); any number of readers follow it, in that process ([`Spool::reader`]) or in
//! others ([`Reader::open`]). Records get sequences from 0 on, in the order of their appending. A cursor says how far the
//! one reader that counts has come; what is below it may go.
//!
//! # What it promises
//!
//! - An append never waits for the disk. Between it and the writer thread lie at most 8 MiB (or two of the longest records);
//!   beyond, and when the directory is at `max_bytes`, it is refused as [`AppendError::Full`].
//! - A record is accepted when its [`Pending`] resolves: with [`Accepted::Kernel`] once it is in the page cache, and then it
//!   survives the process; with [`Accepted::Disk`] once it is synced, and then it survives the power.
//! - What is accepted is read, in order and once, by every reader that comes before the cursor has passed it, whatever crash,
//!   full disk or failed sync comes between.
//! - Damaged bytes cost the record they are in, or the rest of its block where they hit a length or a block's header, or the
//!   block is packed.
//!   They are stepped over, counted, logged, and a copy is kept under `corrupt/` (by the writer's process). A damaged record
//!   is never handed out: a flipped bit that CRC-32C does not see is the exception that 32 bits allow.
//! - A sequence is never given twice to records that a reader may have seen. Sequences have no holes but these: damage; and
//!   after a power cut with [`Accepted::Kernel`], what was lost although the cursor had passed it.
//!
//! # The directory
//!
//! ```text
//! DIR/lock                                 held (flock) by the writer
//! DIR/NUMBER-START.log                     a segment: NUMBER in 12 decimal digits, START in 20
//! DIR/cursor                               see below
//! DIR/schemas/KEY-SHA256.txt               a schema text: KEY in 10 decimal digits from 1; the name checks the content
//! DIR/corrupt/…                            copies of what could not be read: at most 64 MiB and 1,000 files
//! DIR/cursor.tmp, DIR/schemas/….txt.tmp    what a crash may leave of a file in the making; no meaning
//! ```
//!
//! Integers are little-endian; checksums are CRC-32C (Castagnoli).
//!
//! Of a packed block ([`Compress::Zstd`]) the body is one Zstandard frame, and the header another, of 36 bytes: magic `F1 66 77 62
//! 6C 6B 1A 02`, length of the body u32, records u32, sequence of the first u64, length of the body unpacked u32, checksum of the
//! body u32, and the checksum of the place and all that u32. Blocks that would not be shorter are not packed. A segment that may
//! hold packed blocks has version 2, one that does not version 1; this program reads both, an older one refuses version 2. A
//! reader unpacks what its checksum proves to be what was written, and refuses a length beyond that of the longest block: 256
//! KiB, or the longest record (256 MiB) where it holds one.
//!
//! | segment header, 32 bytes | | block header, 28 bytes | | record header, 20 bytes | |
//! |---|---|---|---|---|---|
//! | magic `F1 66 77 73 70 6C 1A 0A` | 8 | magic `F1 66 77 62 6C 6B 1A 01` | 8 | payload length | 4 |
//! | version, 1 or 2 | 4 | length of the body | 4 | checksum of the other 16 bytes and the payload | 4 |
//! | NUMBER | 8 | records in it | 4 | sequence | 8 |
//! | START | 8 | sequence of its first record | 8 | schema key, 0 for none | 4 |
//! | checksum of the above | 4 | checksum of NUMBER u64, the block's offset u64, and the above | 4 | payload | … |
//!
//! A segment is its header and blocks, a block its header and records. The place of a block is in its checksum, so that a
//! search for the next block, byte by byte after damage, cannot take one that lies inside a payload for the segment's own.
//! The cursor file: magic `F1 66 77 63 75 72 1A 0A`, version u32 (1), sequence u64, length of the note u32, the note, checksum
//! u32 of all before it. It and the schemas are replaced as a whole: temporary file, sync, rename, sync of the directory.
//!
//! # Segments
//!
//! Segments are read in the order of NUMBER. START is the sequence that followed all that was written when the segment was
//! begun; so all records of a segment are below the START of the next, and it is deleted once the cursor is there. Usually
//! START is also the segment's first sequence. The exception: a segment that follows one whose write or sync failed
//! begins with second copies of what that one may have lost. Readers drop second copies, and go over to them where a record
//! is missing.
//!
//! Each process begins a segment of its own, and another before `segment_bytes` would be passed, after a sync of
//! the one before. The last segment is never deleted: its name keeps the next sequence.
//!
//! # When the disk fails
//!
//! What is written and not synced stays in memory (at 4 MiB a sync begins, and with as many more written meanwhile the writer
//! waits for it); its buffers, as many again, are kept for the next blocks. After a failed sync the kernel
//! may have dropped it and report nothing the next time, so that file is never written or synced again: all of it goes
//! to a new segment. After a failed write the part of a block is cut off and the rest synced. If the second attempt fails too,
//! appends are refused as [`AppendError::Failed`], those that wait are told so, and the writer repeats the attempt every
//! second, or when [`Spool::sync`] asks for it. A record whose [`Pending`] failed stays in memory and may still be written:
//! who appends it again may have it twice. For as long as this lasts the directory may exceed `max_bytes` by what is
//! written twice.
//!
//! # What a crash leaves
//!
//! - A part of a block at the end of the last segment: cut off by the next [`Spool::open`] (`torn_bytes`), and until then not
//!   seen by readers. A power cut may also leave blocks with holes, which are damage like any other.
//! - Segments below the cursor: deleted by the next open.
//! - A second copy beside the first, see above. A power cut may also bring back files that were deleted; they are below the
//!   cursor, or copies.
//! - The cursor as it was before or after the last [`Spool::advance`]. One that does not check starts again at the oldest
//!   record: records are sent twice rather than not at all.
//!
//! # Readers in other processes
//!
//! They take no lock and write nothing. They see a block once it is whole; bytes at the end that are no whole block are
//! waited for, until a block or a segment follows them. They may see records that are not synced yet.
//!
//! # Threads and waiting
//!
//! One thread, `spool-writer`, does all writing of segments; another, `spool-syncer`, waits for their syncs meanwhile. [`Spool::open`], [`Spool::add_schema`], [`Spool::advance`] and
//! [`Spool::close`] block for the disk; [`Reader::read`] blocks for reads, as a rule from the page cache. [`Spool::append`],
//! [`Spool::sync`] and [`Reader::wait`] do not block.

mod aside;
mod block;
mod cursor;
mod error;
mod extent;
mod inspect;
mod options;
mod pack;
mod pending;
mod reader;
mod recovery;
mod schema;
mod segment;
mod shared;
mod spool;
mod storage;
mod watermark;
mod writer;

pub use block::Record;
pub use cursor::{Cursor, NOTE_BYTES_MAX};
pub use error::{AppendError, SpoolError};
pub use extent::{Extent, extent};
pub use inspect::{Inspection, StoredSchema, inspect};
pub use options::{Accepted, Compress, Options};
pub use pending::Pending;
pub use reader::{Reader, Skipped};
pub use recovery::Recovery;
pub use schema::SchemaKey;
pub use spool::{Spool, Usage};
