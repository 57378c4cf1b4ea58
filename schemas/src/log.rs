//! The `file:` log: what lies where in its folder, and the bytes of its records. The sidecar is its only writer; the
//! joiner reads it and leaves a marker.
//!
//! ```text
//! DIR/cluster-id                          a UUID as text, made with the folder: tells one log from another
//! DIR/lock                                held by the writer
//! DIR/topics/<topic>/<partition>/         one spool each, from 0 on; a record's offset is its sequence in the spool
//! DIR/topics/<topic>/<partition>/landed   the joiner's marker: what lies below this offset (decimal text) may go
//! ```
//! The folder of a topic appears with all its partitions at once, so the number of folders is the number of partitions.
//! Names under `topics` that begin with a dot are not topics yet.
//!
//! Record, the payload of a spool record; integers little-endian:
//! ```text
//! format u8 = 1 | time_ms i64 | key | value | header count u16 | per header: name, value
//! ```
//! where key, value, a header's name and its value are each `length u32 | bytes`, the length 2^32−1 standing for null
//! (a name is never null). `time_ms` is the append time in milliseconds since the epoch.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

const FORMAT: u8 = 1;
const NULL: u32 = u32::MAX;

/// The places in the folder of one log.
#[derive(Debug, Clone)]
pub struct Folder {
    dir: PathBuf,
}

impl Folder {
    pub fn new(dir: &Path) -> Folder {
        Folder { dir: dir.to_path_buf() }
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn cluster_id_file(&self) -> PathBuf {
        self.dir.join("cluster-id")
    }

    pub fn lock_file(&self) -> PathBuf {
        self.dir.join("lock")
    }

    pub fn topics_dir(&self) -> PathBuf {
        self.dir.join("topics")
    }

    pub fn topic_dir(&self, topic: &str) -> PathBuf {
        self.topics_dir().join(topic)
    }

    pub fn partition_dir(&self, topic: &str, partition: i32) -> PathBuf {
        self.topic_dir(topic).join(partition.to_string())
    }

    fn landed_file(&self, topic: &str, partition: i32) -> PathBuf {
        self.partition_dir(topic, partition).join("landed")
    }

    /// The id of the log; none where no log was made here.
    pub fn cluster_id(&self) -> io::Result<Option<String>> {
        Ok(read(&self.cluster_id_file())?.map(|text| text.trim().to_string()).filter(|id| !id.is_empty()))
    }

    /// The names of the topics, in no order.
    pub fn topics(&self) -> io::Result<Vec<String>> {
        let entries = match std::fs::read_dir(self.topics_dir()) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut topics = Vec::new();
        for entry in entries {
            if let Ok(name) = entry?.file_name().into_string()
                && !name.starts_with('.')
            {
                topics.push(name);
            }
        }
        Ok(topics)
    }

    /// How many partitions a topic has; none where it is not there.
    pub fn partition_count(&self, topic: &str) -> io::Result<Option<i32>> {
        if !self.topic_dir(topic).is_dir() {
            return Ok(None);
        }
        let mut count = 0;
        while self.partition_dir(topic, count).is_dir() {
            count += 1;
        }
        Ok(Some(count).filter(|count| *count > 0))
    }

    /// The joiner's marker: the first offset that is not landed yet. None where nothing is.
    pub fn landed(&self, topic: &str, partition: i32) -> io::Result<Option<u64>> {
        let text = read(&self.landed_file(topic, partition))?;
        // A marker that cannot be read deletes nothing; the next one replaces it.
        Ok(text.and_then(|text| text.trim().parse().ok()))
    }

    /// Moves the marker. The file is replaced whole, so that a reader sees the old one or the new one.
    pub fn set_landed(&self, topic: &str, partition: i32, next_offset: u64) -> io::Result<()> {
        replace(&self.landed_file(topic, partition), &next_offset.to_string())
    }
}

/// Writes a small file whole: beside its place first, synced, then renamed.
pub fn replace(path: &Path, text: &str) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut file = std::fs::File::create(&beside)?;
    file.write_all(text.as_bytes())?;
    file.sync_data()?;
    std::fs::rename(&beside, path)
}

fn read(path: &Path) -> io::Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// A record of the log, as read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogRecord<'a> {
    pub time_ms: i64,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub headers: Headers<'a>,
}

/// Appends the bytes of a record to `out`.
pub fn encode(
    out: &mut Vec<u8>,
    time_ms: i64,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    headers: &[(&str, Option<&[u8]>)],
) {
    out.push(FORMAT);
    out.extend_from_slice(&time_ms.to_le_bytes());
    put(out, key);
    put(out, value);
    // The writer's headers are a fixed few.
    let count = u16::try_from(headers.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&count.to_le_bytes());
    for (name, value) in headers.iter().take(usize::from(count)) {
        put(out, Some(name.as_bytes()));
        put(out, *value);
    }
}

/// Reads the bytes of a record; none where they are not a record of this format.
pub fn decode(payload: &[u8]) -> Option<LogRecord<'_>> {
    let mut rest = payload;
    let [format] = chunk(&mut rest)?;
    if format != FORMAT {
        return None;
    }
    let time_ms = i64::from_le_bytes(chunk(&mut rest)?);
    let key = take(&mut rest)?;
    let value = take(&mut rest)?;
    let count = u16::from_le_bytes(chunk(&mut rest)?);
    let headers = Headers { count, rest };
    let mut walk = rest;
    for _ in 0..count {
        std::str::from_utf8(take(&mut walk)??).ok()?;
        take(&mut walk)?;
    }
    walk.is_empty().then_some(LogRecord { time_ms, key, value, headers })
}

/// The headers of a record, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Headers<'a> {
    count: u16,
    rest: &'a [u8],
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a str, Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        self.count = self.count.checked_sub(1)?;
        let name = std::str::from_utf8(take(&mut self.rest)??).ok()?;
        Some((name, take(&mut self.rest)?))
    }
}

fn put(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    // A record is bounded far below 4 GiB by the spool that holds it.
    out.extend_from_slice(&bytes.map_or(NULL, |bytes| bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes.unwrap_or_default());
}

/// Reads `length | bytes`; the inner none is null.
fn take<'a>(rest: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let length = u32::from_le_bytes(chunk(rest)?);
    if length == NULL {
        return Some(None);
    }
    let (bytes, tail) = rest.split_at_checked(length as usize)?;
    *rest = tail;
    Some(Some(bytes))
}

fn chunk<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk()?;
    *rest = tail;
    Some(*head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_comes_back() {
        let headers: [(&str, Option<&[u8]>); 3] = [("a", Some(b"1")), ("flywheel-tick", None), ("b", Some(b""))];
        for (key, value) in [(None, None), (Some(&b""[..]), Some(&b""[..])), (Some(b"key"), Some(b"value"))] {
            let mut bytes = Vec::new();
            encode(&mut bytes, -7, key, value, &headers);
            let record = decode(&bytes).unwrap();
            assert_eq!((record.time_ms, record.key, record.value), (-7, key, value));
            assert_eq!(record.headers.collect::<Vec<_>>(), headers);
        }
    }

    #[test]
    fn a_cut_or_foreign_record_is_none() {
        let mut bytes = Vec::new();
        encode(&mut bytes, 1, Some(b"key"), Some(b"value"), &[("a", Some(b"1"))]);
        for end in 0..bytes.len() {
            assert_eq!(decode(&bytes[..end]), None, "cut at {end}");
        }
        bytes.push(0);
        assert_eq!(decode(&bytes), None, "one byte too many");
        bytes.pop();
        bytes[0] = 2;
        assert_eq!(decode(&bytes), None, "another format");
    }

    #[test]
    fn the_folder_counts_whole_topics_only() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(dir.path());
        assert_eq!(folder.cluster_id().unwrap(), None);
        assert_eq!(folder.topics().unwrap(), Vec::<String>::new());
        for partition in 0..3 {
            std::fs::create_dir_all(folder.partition_dir("t", partition)).unwrap();
        }
        std::fs::create_dir_all(folder.topics_dir().join(".u")).unwrap();
        assert_eq!(folder.topics().unwrap(), ["t"]);
        assert_eq!(folder.partition_count("t").unwrap(), Some(3));
        assert_eq!(folder.partition_count("u").unwrap(), None);
        assert_eq!(folder.landed("t", 1).unwrap(), None);
        folder.set_landed("t", 1, 12).unwrap();
        assert_eq!(folder.landed("t", 1).unwrap(), Some(12));
    }
}
