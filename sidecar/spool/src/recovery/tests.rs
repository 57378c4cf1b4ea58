// Blocks are given as ranges of sequences; some segments have one.
#![allow(clippy::single_range_in_vec_init)]

use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use super::*;
use crate::block::{Block, HEADER_BYTES, RECORD_HEADER_BYTES};
use crate::extent::extent_in;
use crate::pack::{PACKED_HEADER_BYTES, Packer};
use crate::storage::memory::Memory;
use crate::{Options, Reader, SchemaKey, Spool};

const DIR: &str = "/spool";
const MODES: [Compress; 2] = [Compress::None, Compress::Zstd];
/// The blocks of the segment that is damaged, by sequence.
const BLOCKS: [Range<u64>; 4] = [0..3, 3..4, 4..9, 9..11];

fn try_open(memory: &Memory) -> Result<Spool, SpoolError> {
    let options = Options { sync_interval: Duration::MAX, ..Options::default() };
    Spool::open_in(Arc::new(memory.clone()), Path::new(DIR), options)
}

fn open(memory: &Memory) -> Spool {
    try_open(memory).unwrap()
}

fn foreign(memory: &Memory) -> Reader {
    Reader::foreign(Arc::new(memory.clone()), Path::new(DIR), 0)
}

/// Such that a block of one is shorter when it is packed.
fn payload(sequence: u64) -> Vec<u8> {
    format!("payload {sequence}{}", " and so on".repeat(6)).into_bytes()
}

/// The sequences that a reader finds; their payloads are right, or this panics.
fn read_all(reader: &mut Reader) -> Vec<u64> {
    let mut sequences = Vec::new();
    loop {
        let records = reader.read(usize::MAX).unwrap();
        if records.is_empty() {
            return sequences;
        }
        for record in records {
            assert_eq!((record.schema, record.payload.to_vec()), (SchemaKey(3), payload(record.sequence)));
            sequences.push(record.sequence);
        }
    }
}

/// The bytes of a segment, and where each of its blocks lies.
fn segment(name: Name, blocks: &[Range<u64>], compress: Compress) -> (Vec<u8>, Vec<Range<usize>>) {
    let mut bytes = name.header(compress).to_vec();
    let mut packer = Packer::new().unwrap();
    let mut places = Vec::new();
    for range in blocks {
        let mut block = Block::begin(range.start, Vec::new());
        range.clone().for_each(|sequence| block.push(SchemaKey(3), &payload(sequence)));
        block.seal();
        let from = bytes.len();
        match compress {
            Compress::None => bytes.extend_from_slice(block.bytes_at(name.number, from as u64)),
            Compress::Zstd => {
                let mut packed = packer.pack(&block).expect("it is shorter");
                bytes.extend_from_slice(packed.bytes_at(name.number, from as u64));
            }
        }
        places.push(from..bytes.len());
    }
    (bytes, places)
}

fn path(name: Name) -> PathBuf {
    name.path(Path::new(DIR))
}

const FIRST: Name = Name { number: 4, start: 0 };
const SECOND: Name = Name { number: 5, start: 11 };

/// What must still be read when the byte at `offset` is damaged.
fn readable(offset: usize, places: &[Range<usize>], compress: Compress) -> Vec<u64> {
    let Some(hit) = places.iter().position(|place| place.contains(&offset)) else { return (0..11).collect() };
    let mut kept: Vec<u64> =
        BLOCKS.iter().enumerate().filter(|(at, _)| *at != hit).flat_map(|(_, block)| block.clone()).collect();
    let mut at = places[hit].start + HEADER_BYTES;
    // Of a packed block nothing is left.
    if offset >= at && compress == Compress::None {
        for sequence in BLOCKS[hit].clone() {
            let end = at + RECORD_HEADER_BYTES + payload(sequence).len();
            // A damaged length hides the rest of the block, anything else only the record.
            if (at..at + 4).contains(&offset) {
                break;
            }
            if !(at..end).contains(&offset) {
                kept.push(sequence);
            }
            at = end;
        }
    }
    kept.sort_unstable();
    kept
}

#[test]
fn a_flipped_bit_anywhere_costs_no_more_than_its_record_or_its_block() {
    for (is_last, compress) in
        [(true, Compress::None), (false, Compress::None), (true, Compress::Zstd), (false, Compress::Zstd)]
    {
        let (bytes, places) = segment(FIRST, &BLOCKS, compress);
        for bit in 0..bytes.len() * 8 {
            let memory = Memory::default();
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            memory.put(&path(FIRST), damaged);
            let mut expected = readable(bit / 8, &places, compress);
            if !is_last {
                memory.put(&path(SECOND), segment(SECOND, &[11..13], compress).0);
                expected.extend([11, 12]);
            }
            let spool = open(&memory);
            let mut reader = spool.reader(0);
            assert_eq!(read_all(&mut reader), expected, "bit {bit}");
            let mut other = foreign(&memory);
            let mut seen = read_all(&mut other);
            assert!(if is_last { expected.starts_with(&seen) } else { expected == seen }, "bit {bit}");
            let (found, met) = (spool.recovery(), reader.skipped());
            assert!(found.torn_bytes + found.skipped_bytes + met.bytes > 0, "bit {bit} is not counted");
            let kept = memory.paths().iter().filter(|path| path.starts_with("/spool/corrupt")).count();
            assert_eq!(kept, 1, "bit {bit} is not kept aside");
            let next = spool.next_sequence();
            let extent = extent_in(&memory, Path::new(DIR)).unwrap();
            assert_eq!((extent.oldest, extent.next), (spool.usage().oldest, next), "bit {bit}");
            assert!(next > *expected.last().unwrap());
            drop(spool.append(SchemaKey(3), |sequence, out| out.extend(payload(sequence))).unwrap());
            spool.close().unwrap();
            expected.push(next);
            // Only now is damage at the end known not to be a block that is still being written.
            seen.extend(read_all(&mut other));
            assert_eq!(seen, expected, "bit {bit}");
            assert_eq!(read_all(&mut foreign(&memory)), expected, "bit {bit}");
        }
    }
}

#[test]
fn a_torn_end_is_cut_and_what_is_whole_stays() {
    for compress in MODES {
        torn_ends(&segment(FIRST, &BLOCKS, compress));
    }
}

fn torn_ends((bytes, places): &(Vec<u8>, Vec<Range<usize>>)) {
    for length in 0..bytes.len() {
        let memory = Memory::default();
        memory.put(&path(FIRST), bytes[..length].to_vec());
        let whole = places.iter().filter(|place| place.end <= length).count();
        let kept = places[..whole].last().map_or(SEGMENT_HEADER_BYTES as usize, |place| place.end);
        let expected: Vec<u64> = BLOCKS[..whole].iter().cloned().flatten().collect();

        // A reader of another process sees whole blocks, and the rest when it comes.
        let mut tailing = foreign(&memory);
        assert_eq!(read_all(&mut tailing), expected, "length {length}");
        memory.with(&path(FIRST), |content| content.clone_from(bytes));
        assert_eq!(read_all(&mut tailing), (expected.len() as u64..11).collect::<Vec<_>>(), "length {length}");
        assert_eq!(tailing.skipped(), crate::Skipped::default());
        memory.with(&path(FIRST), |content| content.truncate(length));

        let spool = open(&memory);
        let recovery = spool.recovery();
        assert_eq!(recovery.torn_bytes, length.saturating_sub(kept) as u64, "length {length}");
        assert_eq!((recovery.skipped_spans, recovery.next_sequence), (0, expected.len() as u64), "length {length}");
        assert_eq!(read_all(&mut spool.reader(0)), expected, "length {length}");
        assert_eq!(memory.with(&path(FIRST), |content| content.len()), kept, "length {length}");
    }
}

#[test]
fn a_block_inside_a_payload_is_never_taken_for_one_of_the_segment() {
    for compress in MODES {
        let (inner, places) = segment(FIRST, &[5..6], compress);
        let inner = &inner[places[0].clone()];
        let mut block = Block::begin(0, Vec::new());
        block.push(SchemaKey(3), inner);
        block.seal();
        let mut bytes = FIRST.header(compress).to_vec();
        bytes.extend_from_slice(block.bytes_at(FIRST.number, bytes.len() as u64));
        bytes[SEGMENT_HEADER_BYTES as usize] ^= 1;
        let memory = Memory::default();
        memory.put(&path(FIRST), bytes);
        assert_eq!(read_all(&mut open(&memory).reader(0)), Vec::<u64>::new());
    }
}

#[test]
fn what_was_written_again_fills_what_the_failed_segment_lost() {
    // 4..9 was written to the first segment, whose sync failed, and again to the second.
    let second = Name { number: 5, start: 9 };
    for (compress, damaged_from) in MODES.into_iter().flat_map(|mode| [(mode, 0), (mode, PACKED_HEADER_BYTES)]) {
        let (mut bytes, places) = segment(FIRST, &[0..4, 4..7, 7..9], compress);
        bytes[places[1].start + damaged_from..places[1].end].fill(0);
        let memory = Memory::default();
        memory.put(&path(FIRST), bytes);
        memory.put(&path(second), segment(second, &[4..6, 6..9, 9..10], compress).0);
        assert_eq!(read_all(&mut open(&memory).reader(0)), (0..10).collect::<Vec<_>>());
        assert_eq!(read_all(&mut foreign(&memory)), (0..10).collect::<Vec<_>>());
    }
}

#[test]
fn a_newer_format_is_refused_and_left_alone() {
    let (mut bytes, _) = segment(FIRST, &BLOCKS, Compress::None);
    bytes[8] = 3;
    let crc = crc32c::crc32c(&bytes[..28]);
    bytes[28..32].copy_from_slice(&crc.to_le_bytes());
    let memory = Memory::default();
    memory.put(&path(FIRST), bytes.clone());
    assert!(matches!(try_open(&memory), Err(SpoolError::Version { version: 3, .. })));
    assert!(matches!(foreign(&memory).read(1), Err(SpoolError::Version { version: 3, .. })));
    assert_eq!(memory.with(&path(FIRST), |content| content.clone()), bytes);
}

#[test]
fn a_damaged_cursor_means_once_more_and_never_less() {
    let memory = Memory::default();
    memory.put(&path(FIRST), segment(FIRST, &BLOCKS, Compress::None).0);
    let spool = open(&memory);
    spool.advance(6, b"a note").unwrap();
    spool.close().unwrap();
    let file = Path::new(DIR).join(cursor::FILE);
    let bytes = memory.with(&file, |content| content.clone());
    let mut broken: Vec<Vec<u8>> = (0..bytes.len()).map(|length| bytes[..length].to_vec()).collect();
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        broken.push(flipped);
    }
    for content in broken {
        let memory = memory.duplicate();
        memory.put(&file, content);
        let spool = open(&memory);
        assert!(spool.recovery().cursor_damaged);
        assert_eq!(spool.cursor(), Cursor::default());
        assert_eq!(spool.recovery().records, 11);
        assert!(memory.paths().contains(&PathBuf::from("/spool/corrupt/cursor")));
        spool.advance(11, b"").unwrap();
        spool.close().unwrap();
        assert!(!open(&memory).recovery().cursor_damaged);
    }
}

#[test]
fn the_cursor_keeps_its_place_where_the_log_is_behind_it() {
    let memory = Memory::default();
    memory.put(&path(FIRST), segment(FIRST, &BLOCKS, Compress::None).0);
    let spool = open(&memory);
    spool.advance(11, b"").unwrap();
    spool.close().unwrap();
    // A power cut took the last blocks, which were forwarded before.
    memory.put(&path(FIRST), segment(FIRST, &BLOCKS[..2], Compress::None).0);
    let spool = open(&memory);
    assert_eq!((spool.recovery().next_sequence, spool.recovery().records), (11, 0));
    drop(spool.append(SchemaKey(3), |sequence, out| out.extend(payload(sequence))).unwrap());
    spool.close().unwrap();
    assert_eq!(read_all(&mut open(&memory).reader(0)), [11], "no sequence is given twice");
}

#[test]
fn a_damaged_schema_is_kept_aside_and_comes_back_with_its_text() {
    let memory = Memory::default();
    let spool = open(&memory);
    let texts = ["\"string\"", "\"long\""];
    let keys = texts.map(|text| spool.add_schema(text).unwrap());
    spool.close().unwrap();
    let file = memory.paths().into_iter().find(|path| path.to_string_lossy().contains("schemas/0000000002")).unwrap();
    memory.with(&file, |content| content[1] ^= 1);
    let spool = open(&memory);
    assert_eq!(keys.map(|key| spool.schema(key).map(|text| text.to_string())), [Some(texts[0].to_owned()), None]);
    assert_eq!(spool.add_schema(texts[1]).unwrap(), keys[1]);
    assert_eq!(spool.add_schema("\"int\"").unwrap(), SchemaKey(3));
    spool.close().unwrap();
    assert_eq!(open(&memory).schema(keys[1]).as_deref(), Some(texts[1]));
}

#[test]
fn a_segment_says_whether_it_may_have_packed_blocks() {
    let version = |memory: &Memory, name: Name| memory.with(&path(name), |bytes| bytes[8]);
    let name = |number, start| Name { number, start };
    let memory = Memory::default();
    let open = |compress| {
        let options = Options { compress, ..Options::default() };
        Spool::open_in(Arc::new(memory.clone()), Path::new(DIR), options).unwrap()
    };
    // An empty segment is written on by the next process, in its own way.
    open(Compress::None).close().unwrap();
    assert_eq!(version(&memory, name(0, 0)), 1);
    let spool = open(Compress::Zstd);
    assert_eq!(version(&memory, name(0, 0)), 2);
    drop(spool.append(SchemaKey(3), |sequence, out| out.extend(payload(sequence))).unwrap());
    spool.close().unwrap();
    let packed = memory.with(&path(name(0, 0)), |bytes| bytes.len());
    let spool = open(Compress::None);
    drop(spool.append(SchemaKey(3), |sequence, out| out.extend(payload(sequence))).unwrap());
    spool.close().unwrap();
    assert_eq!((version(&memory, name(0, 0)), version(&memory, name(1, 1))), (2, 1));
    assert!(memory.with(&path(name(1, 1)), |bytes| bytes.len()) > packed);
    assert_eq!(read_all(&mut open(Compress::Zstd).reader(0)), [0, 1]);
    // Where a header is lost nobody knows: it gets the version that reads either.
    memory.with(&path(name(0, 0)), |bytes| bytes[..32].fill(0));
    let both = memory.duplicate();
    both.with(&path(name(1, 1)), |bytes| bytes[..32].fill(0));
    let spool = try_open(&both).unwrap();
    assert_eq!(version(&both, name(1, 1)), 2);
    assert_eq!(read_all(&mut spool.reader(0)), [0, 1]);
}
