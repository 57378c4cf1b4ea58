//! A spool directory whose files somebody wrote into: it opens or says why not, what it gives are records that were appended,
//! in their order, and it takes new ones.
#![no_main]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::OnceLock;

use arbitrary::Arbitrary;
use flywheel_spool::{Options, Reader, SchemaKey, Spool, SpoolError};
use libfuzzer_sys::fuzz_target;

/// Records of the spool before it is damaged; the payload of each follows from its sequence.
const RECORDS: u64 = 60;

/// A change of one file.
#[derive(Debug, Arbitrary)]
struct Edit {
    file: u8,
    at: u16,
    change: Change,
}

#[derive(Debug, Arbitrary)]
enum Change {
    Overwrite(Vec<u8>),
    Insert(Vec<u8>),
    Flip(u8),
    Cut(u8),
    Truncate,
    Copy { from: u16, bytes: u8 },
    Remove,
}

fn options() -> Options {
    // Several segments of several blocks, and room for whatever is written into them.
    Options { max_bytes: 16 << 20, segment_bytes: 8 << 10, record_bytes_max: 4 << 10, ..Options::default() }
}

fn payload(sequence: u64) -> Vec<u8> {
    (0..sequence * 37 % 900).map(|n| (n * sequence % 251) as u8).collect()
}

fn append(spool: &Spool, sequence: u64) {
    let pending = spool.append(SchemaKey::NONE, |_, out| out.extend_from_slice(&payload(sequence)));
    drop(pending.expect("there is room"));
}

/// The files of a sound spool, by name.
fn sound() -> &'static BTreeMap<String, Vec<u8>> {
    static FILES: OnceLock<BTreeMap<String, Vec<u8>>> = OnceLock::new();
    FILES.get_or_init(|| {
        let dir = tempfile::tempdir_in("/dev/shm").expect("a directory");
        // Opened again and again, so that there are several segments and blocks.
        for start in (0..RECORDS).step_by(6) {
            let spool = Spool::open(dir.path(), options()).expect("a spool");
            assert_eq!(spool.usage().next, start, "the first has the sequence 0");
            (start..start + 6).for_each(|sequence| append(&spool, sequence));
            spool.close().expect("it closes");
        }
        let entries = std::fs::read_dir(dir.path()).expect("a directory");
        let files = entries.map(|entry| entry.expect("an entry")).filter(|entry| entry.path().is_file());
        files
            .map(|entry| {
                let name = entry.file_name().into_string().expect("a name");
                (name, std::fs::read(entry.path()).expect("a file"))
            })
            .collect()
    })
}

fn apply(bytes: &mut Vec<u8>, at: usize, change: &Change) {
    let at = at % (bytes.len() + 1);
    match change {
        Change::Overwrite(with) => {
            let end = (at + with.len()).min(bytes.len());
            bytes[at..end].copy_from_slice(&with[..end - at]);
        }
        Change::Insert(with) => drop(bytes.splice(at..at, with.iter().copied())),
        Change::Flip(bit) => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << (bit % 8);
            }
        }
        Change::Cut(count) => {
            let end = (at + usize::from(*count)).min(bytes.len());
            bytes.drain(at..end);
        }
        Change::Truncate => bytes.truncate(at),
        Change::Copy { from, bytes: count } => {
            let from = usize::from(*from) % (bytes.len() + 1);
            let end = (from + usize::from(*count) * 8).min(bytes.len());
            let copied = bytes[from..end].to_vec();
            bytes.splice(at..at, copied);
        }
        Change::Remove => {}
    }
}

/// Everything that a reader finds, which ends.
fn read_all(dir: &Path) -> Result<Vec<(u64, Vec<u8>)>, SpoolError> {
    let mut reader = Reader::open(dir, 0)?;
    let mut found = Vec::new();
    loop {
        let records = reader.read(1 << 20)?;
        if records.is_empty() {
            return Ok(found);
        }
        found.extend(records.iter().map(|record| (record.sequence, record.payload.to_vec())));
        assert!(found.len() < 10_000, "it does not end");
    }
}

fuzz_target!(|edits: Vec<Edit>| {
    let mut files = sound().clone();
    for edit in &edits {
        let count = files.len().max(1);
        let Some(name) = files.keys().nth(usize::from(edit.file) % count).cloned() else { break };
        if matches!(edit.change, Change::Remove) {
            files.remove(&name);
        } else if let Some(bytes) = files.get_mut(&name) {
            apply(bytes, usize::from(edit.at), &edit.change);
        }
    }
    let dir = tempfile::tempdir_in("/dev/shm").expect("a directory");
    for (name, bytes) in &files {
        std::fs::write(dir.path().join(name), bytes).expect("it is written");
    }
    let check = |found: &[(u64, Vec<u8>)]| {
        assert!(found.windows(2).all(|pair| pair[0].0 < pair[1].0), "out of order");
        for (sequence, bytes) in found {
            assert_eq!(bytes, &payload(*sequence), "record {sequence}");
        }
    };
    // A reader in another process sees it before anybody has mended anything.
    if let Ok(found) = read_all(dir.path()) {
        check(&found);
        assert!(found.iter().all(|(sequence, _)| *sequence < RECORDS));
    }
    let Ok(spool) = Spool::open(dir.path(), options()) else { return };
    let next = spool.usage().next;
    append(&spool, next);
    spool.close().expect("it closes");
    let found = read_all(dir.path()).expect("an open spool can be read");
    check(&found);
    assert_eq!(found.last().map(|(sequence, _)| *sequence), Some(next), "the new record");
});
