//! Blocks and the records in them: what a writer fills, how it becomes bytes, and how bytes become records again.

use bytes::Bytes;

use crate::SchemaKey;
use crate::pack::{self, PACKED_HEADER_BYTES, Packing};
use crate::segment::SEGMENT_HEADER_BYTES;

/// Begins every block. Eight bytes that no text has: a search for the next block looks for them.
pub(crate) const MAGIC: [u8; 8] = [0xF1, b'f', b'w', b'b', b'l', b'k', 0x1A, 0x01];
/// magic (8), body length (4), records (4), first sequence (8), CRC-32C (4).
pub(crate) const HEADER_BYTES: usize = 28;
/// length (4), CRC-32C (4), sequence (8), schema (4); the payload follows.
pub(crate) const RECORD_HEADER_BYTES: usize = 20;

/// One record as it was appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub sequence: u64,
    pub schema: SchemaKey,
    pub payload: Bytes,
}

/// A block in memory, with room for its header in front so that it is written with one call.
#[derive(Debug)]
pub(crate) struct Block {
    bytes: Vec<u8>,
    pub(crate) first: u64,
    pub(crate) count: u32,
}

impl Block {
    /// An empty block that begins at `first`, in a buffer that may have served before.
    pub(crate) fn begin(first: u64, mut buffer: Vec<u8>) -> Block {
        buffer.clear();
        buffer.resize(HEADER_BYTES, 0);
        Block { bytes: buffer, first, count: 0 }
    }

    /// Adds the next record. Its checksum is left to [`Block::seal`], off the path of who appends.
    pub(crate) fn push(&mut self, schema: SchemaKey, payload: &[u8]) {
        let sequence = self.next();
        self.bytes.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&sequence.to_le_bytes());
        self.bytes.extend_from_slice(&schema.0.to_le_bytes());
        self.bytes.extend_from_slice(payload);
        self.count += 1;
    }

    /// The sequence after its last record.
    pub(crate) fn next(&self) -> u64 {
        self.first + u64::from(self.count)
    }

    /// Length on disk, header included.
    pub(crate) fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// The most it takes on disk: it may have to begin a segment.
    pub(crate) fn room_bytes(&self) -> u64 {
        self.len() + SEGMENT_HEADER_BYTES
    }

    /// Fills in the checksums of all records.
    pub(crate) fn seal(&mut self) {
        let mut at = HEADER_BYTES;
        while let Some(length) = u32_at(&self.bytes, at) {
            let end = at + RECORD_HEADER_BYTES + length as usize;
            let crc = record_crc(&self.bytes[at..end]);
            self.bytes[at + 4..at + 8].copy_from_slice(&crc.to_le_bytes());
            at = end;
        }
    }

    /// The bytes as they stand at `offset` of segment `number`.
    pub(crate) fn bytes_at(&mut self, number: u64, offset: u64) -> &[u8] {
        let body = (self.bytes.len() - HEADER_BYTES) as u32;
        self.bytes[..8].copy_from_slice(&MAGIC);
        self.bytes[8..12].copy_from_slice(&body.to_le_bytes());
        self.bytes[12..16].copy_from_slice(&self.count.to_le_bytes());
        self.bytes[16..24].copy_from_slice(&self.first.to_le_bytes());
        let crc = header_crc(&self.bytes[..24], number, offset);
        self.bytes[24..28].copy_from_slice(&crc.to_le_bytes());
        &self.bytes
    }

    /// The records.
    pub(crate) fn body(&self) -> &[u8] {
        &self.bytes[HEADER_BYTES..]
    }

    pub(crate) fn into_buffer(self) -> Vec<u8> {
        self.bytes
    }
}

/// A block header that was read and is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) body_bytes: u32,
    pub(crate) count: u32,
    pub(crate) first: u64,
    /// None where the body is as it was appended.
    pub(crate) packing: Option<Packing>,
}

impl Header {
    /// None unless these are the header of a block that was written at this `offset` of this segment: the place is in the
    /// checksum, so that a block that lies inside a payload is never taken for one of the segment's own.
    pub(crate) fn read(bytes: &[u8], number: u64, offset: u64) -> Option<Header> {
        let is_packed = bytes.get(..8)? == pack::MAGIC;
        if !is_packed && bytes[..8] != MAGIC {
            return None;
        }
        let length = if is_packed { PACKED_HEADER_BYTES } else { HEADER_BYTES };
        let (head, crc) = bytes.get(..length)?.split_at(length - 4);
        if u32_at(crc, 0)? != header_crc(head, number, offset) {
            return None;
        }
        let packing =
            if is_packed { Some(Packing { plain_bytes: u32_at(bytes, 24)?, crc: u32_at(bytes, 28)? }) } else { None };
        Some(Header { body_bytes: u32_at(bytes, 8)?, count: u32_at(bytes, 12)?, first: u64_at(bytes, 16)?, packing })
    }

    /// Its own length.
    pub(crate) fn header_bytes(&self) -> usize {
        if self.packing.is_some() { PACKED_HEADER_BYTES } else { HEADER_BYTES }
    }

    /// Length on disk, header included.
    pub(crate) fn block_bytes(&self) -> u64 {
        self.header_bytes() as u64 + u64::from(self.body_bytes)
    }

    /// The sequence after its last record.
    pub(crate) fn next(&self) -> u64 {
        self.first.saturating_add(u64::from(self.count))
    }
}

/// Reads the records of a block's body, handing on those that are whole; returns how many bytes are damaged.
///
/// A record whose checksum fails is stepped over by its length, which may be damaged too: then the records after it do
/// not check either, and the rest of the body is given up.
///
/// Of a packed body all is damaged, or nothing.
pub(crate) fn read_records(header: &Header, body: &Bytes, mut take: impl FnMut(Record)) -> u64 {
    let unpacked;
    let body = match &header.packing {
        None => body,
        Some(packing) => match pack::unpack(header, packing, body) {
            Some(plain) => {
                unpacked = plain;
                &unpacked
            }
            None => return body.len() as u64,
        },
    };
    let mut damaged = 0;
    let mut at = 0;
    for index in 0..header.count {
        let record = u32_at(body, at).map(|length| at + RECORD_HEADER_BYTES + length as usize);
        let Some(end) = record.filter(|&end| end <= body.len()) else { break };
        let bytes = &body[at..end];
        let sequence = u64_at(bytes, 8);
        if u32_at(bytes, 4) == Some(record_crc(bytes)) && sequence == Some(header.first + u64::from(index)) {
            let schema = SchemaKey(u32_at(bytes, 16).unwrap_or_default());
            take(Record {
                sequence: header.first + u64::from(index),
                schema,
                payload: body.slice(at + RECORD_HEADER_BYTES..end),
            });
        } else {
            damaged += (end - at) as u64;
        }
        at = end;
    }
    damaged + (body.len() - at) as u64
}

/// Over the whole record but the checksum itself.
fn record_crc(record: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&record[..4]), &record[8..])
}

/// Over the segment's number, the block's offset, and the header up to the checksum.
pub(crate) fn header_crc(header: &[u8], number: u64, offset: u64) -> u32 {
    let mut place = [0; 16];
    place[..8].copy_from_slice(&number.to_le_bytes());
    place[8..].copy_from_slice(&offset.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c(&place), header)
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}
