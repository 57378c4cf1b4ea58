//! Blocks with their body compressed (Zstandard, RFC 8878): by the writer's thread on the way to the disk, and back by readers.
//!
//! In memory a block stays as it was appended. On the disk it is packed only where that makes it shorter; the checksum is over
//! what is on the disk, so nothing is unpacked that is not what was written.

use std::io;

use bytes::Bytes;

use crate::block::{self, Block, HEADER_BYTES, Header};
use crate::options;

/// Begins a packed block.
pub(crate) const MAGIC: [u8; 8] = [0xF1, b'f', b'w', b'b', b'l', b'k', 0x1A, 0x02];
/// magic (8), body length on disk (4), records (4), first sequence (8), length unpacked (4), CRC-32C of the body (4), CRC-32C of
/// all that (4).
pub(crate) const PACKED_HEADER_BYTES: usize = 36;
/// The quickest that uses entropy coding: the writer's thread shares a core with the model server.
const LEVEL: i32 = 1;

/// Packs blocks; the buffer serves again and again.
pub(crate) struct Packer {
    compressor: zstd::bulk::Compressor<'static>,
    buffer: Vec<u8>,
}

impl std::fmt::Debug for Packer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Packer").finish_non_exhaustive()
    }
}

impl Packer {
    pub(crate) fn new() -> io::Result<Packer> {
        Ok(Packer { compressor: zstd::bulk::Compressor::new(LEVEL)?, buffer: Vec::new() })
    }

    /// Packs a sealed block; gives its bytes, which lack their place, or none where it would not be shorter.
    pub(crate) fn pack(&mut self, block: &Block) -> Option<Packed<'_>> {
        let body = block.body();
        // What does not fit is not shorter.
        let most = (HEADER_BYTES + body.len()).checked_sub(PACKED_HEADER_BYTES + 1)?;
        if self.buffer.len() < PACKED_HEADER_BYTES + most {
            self.buffer.resize(PACKED_HEADER_BYTES + most, 0);
        }
        let room = &mut self.buffer[PACKED_HEADER_BYTES..PACKED_HEADER_BYTES + most];
        let length = self.compressor.compress_to_buffer(body, room).ok()?;
        let bytes = &mut self.buffer[..PACKED_HEADER_BYTES + length];
        let crc = crc32c::crc32c(&bytes[PACKED_HEADER_BYTES..]);
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&(length as u32).to_le_bytes());
        bytes[12..16].copy_from_slice(&block.count.to_le_bytes());
        bytes[16..24].copy_from_slice(&block.first.to_le_bytes());
        bytes[24..28].copy_from_slice(&(body.len() as u32).to_le_bytes());
        bytes[28..32].copy_from_slice(&crc.to_le_bytes());
        Some(Packed { bytes })
    }
}

/// A packed block that is yet to be given its place.
pub(crate) struct Packed<'a> {
    bytes: &'a mut [u8],
}

impl Packed<'_> {
    /// Length on disk, header included.
    pub(crate) fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// The bytes as they stand at `offset` of segment `number`.
    pub(crate) fn bytes_at(&mut self, number: u64, offset: u64) -> &[u8] {
        let crc = block::header_crc(&self.bytes[..32], number, offset);
        self.bytes[32..36].copy_from_slice(&crc.to_le_bytes());
        self.bytes
    }
}

/// What a packed block's header says of its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Packing {
    pub(crate) plain_bytes: u32,
    pub(crate) crc: u32,
}

/// The body of a packed block as it was; none where it is damaged, or says that it is longer than any that is written.
pub(crate) fn unpack(header: &Header, packing: &Packing, body: &[u8]) -> Option<Bytes> {
    if crc32c::crc32c(body) != packing.crc || u64::from(packing.plain_bytes) > options::body_bytes_max(header.count) {
        return None;
    }
    let length = packing.plain_bytes as usize;
    let plain = zstd::bulk::decompress(body, length).ok()?;
    (plain.len() == length).then(|| Bytes::from(plain))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SchemaKey;

    fn block(payloads: &[&[u8]]) -> Block {
        let mut block = Block::begin(7, Vec::new());
        payloads.iter().for_each(|payload| block.push(SchemaKey(3), payload));
        block.seal();
        block
    }

    #[test]
    fn a_block_comes_back_and_a_wrong_length_is_refused_before_anything_is_unpacked() {
        let long = [5; 10_000];
        let block = block(&[&long, b"short"]);
        let mut packer = Packer::new().unwrap();
        let mut packed = packer.pack(&block).unwrap();
        assert!(packed.len() < 200);
        let bytes = packed.bytes_at(4, 32).to_vec();
        assert_eq!(Header::read(&bytes, 4, 33), None, "elsewhere it is none");
        let header = Header::read(&bytes, 4, 32).unwrap();
        assert_eq!((header.first, header.count, header.block_bytes()), (7, 2, bytes.len() as u64));
        let body = Bytes::copy_from_slice(&bytes[header.header_bytes()..]);
        let packing = header.packing.unwrap();
        assert_eq!(unpack(&header, &packing, &body).unwrap(), block.body());
        let mut payloads = Vec::new();
        assert_eq!(block::read_records(&header, &body, |record| payloads.push(record.payload)), 0);
        assert_eq!(payloads, [Bytes::copy_from_slice(&long), Bytes::from_static(b"short")]);

        let stating = |plain_bytes| Packing { plain_bytes, ..packing };
        for plain_bytes in [0, packing.plain_bytes - 1, packing.plain_bytes + 1, 256 * 1024 + 1, u32::MAX] {
            assert_eq!(unpack(&header, &stating(plain_bytes), &body), None, "{plain_bytes}");
        }
        // A bomb: a body that would be far longer than it says, and than blocks are.
        let bomb = zstd::bulk::compress(&vec![0; 1 << 24], 1).unwrap();
        for plain_bytes in [1000, 1 << 24] {
            let packing = Packing { plain_bytes, crc: crc32c::crc32c(&bomb) };
            assert_eq!(unpack(&header, &packing, &bomb), None);
        }
        let one = Header { count: 1, ..header };
        let packing = Packing { plain_bytes: 1 << 24, crc: crc32c::crc32c(&bomb) };
        assert_eq!(unpack(&one, &packing, &bomb).map(|plain| plain.len()), Some(1 << 24), "one record may be as long");
    }

    #[test]
    fn what_would_not_be_shorter_stays_as_it_is() {
        let mut state = 1_u64;
        let random: Vec<u8> = (0..5000)
            .map(|_| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (state >> 56) as u8
            })
            .collect();
        let mut packer = Packer::new().unwrap();
        assert!(packer.pack(&block(&[&random])).is_none());
        assert!(packer.pack(&block(&[b""])).is_none());
        assert!(packer.pack(&block(&[&[0; 5000]])).is_some(), "it serves again");
    }
}
