//! How far a table is, as its own commits say.
//!
//! Each commit writes the marks of all partitions, as JSON, under [`KEY`] into the summary of its snapshot and into
//! the properties of the table: `{"cluster":"<log>","marks":{"0":[next,time_ms],…}}`. The snapshot is the authority.
//! Snapshots of other writers (a compaction, say) do not carry the key, so that it is looked for along the ancestry
//! of `main`, newest first; the property serves where every snapshot that carried it has expired. A table that is
//! rolled back has thereby also its progress rolled back.

use std::collections::BTreeMap;

use iceberg::spec::TableMetadata;
use serde::{Deserialize, Serialize};

/// The key in snapshot summaries and table properties.
pub const KEY: &str = "flywheel.progress";

/// How far one partition is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(i64, i64)", into = "(i64, i64)")]
pub struct Mark {
    /// Of a raw table the next offset; of a sealed table the last tick that is done, in ms since the epoch.
    pub next: i64,
    /// Of a raw table the ingest time of the last record before `next`; of a sealed table the same tick. In ms.
    pub time_ms: i64,
}

impl Mark {
    /// The mark of a partition of which nothing was done.
    pub const NONE: Mark = Mark { next: -1, time_ms: -1 };

    /// The mark where something was done, else none.
    pub fn known(self) -> Option<Mark> {
        (self.next >= 0).then_some(self)
    }
}

impl From<(i64, i64)> for Mark {
    fn from((next, time_ms): (i64, i64)) -> Mark {
        Mark { next, time_ms }
    }
}

impl From<Mark> for (i64, i64) {
    fn from(mark: Mark) -> (i64, i64) {
        (mark.next, mark.time_ms)
    }
}

/// How far a table is: of which log, and each partition's mark.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The id of the cluster; from the second generation on with its number ([`crate::generation`]).
    pub cluster: String,
    pub marks: BTreeMap<i32, Mark>,
    /// Of a raw table: what its offsets are ahead of those of the log, by partition, where they are.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub bases: BTreeMap<i32, i64>,
}

impl Progress {
    /// Of a table that nothing was committed to.
    pub fn none(cluster: &str) -> Progress {
        Progress { cluster: cluster.to_owned(), marks: BTreeMap::new(), bases: BTreeMap::new() }
    }

    /// The mark of a partition, [`Mark::NONE`] where there is none.
    pub fn mark(&self, partition: i32) -> Mark {
        self.marks.get(&partition).copied().unwrap_or(Mark::NONE)
    }

    /// Whether every partition of `marks` stands exactly there. Two marks that nothing was done for are equal,
    /// whatever their times.
    pub(super) fn stands_at(&self, marks: &BTreeMap<i32, Mark>) -> bool {
        marks.iter().all(|(&partition, mark)| {
            let recorded = self.mark(partition);
            recorded == *mark || (recorded.next < 0 && mark.next < 0)
        })
    }
}

/// The progress that the metadata of a table tells, none for a table that was never committed to.
///
/// # Errors
/// The text that should have been progress and is not.
pub(super) fn read(metadata: &TableMetadata) -> Result<Option<Progress>, String> {
    let parse = |text: &String| serde_json::from_str(text).map(Some).map_err(|_| text.clone());
    let mut snapshot = metadata.current_snapshot();
    // Ends: an ancestry has no cycles, and is no longer than the snapshots that are kept.
    for _ in 0..metadata.snapshots().len() {
        let Some(current) = snapshot else { break };
        if let Some(text) = current.summary().additional_properties.get(KEY) {
            return parse(text);
        }
        snapshot = current.parent_snapshot_id().and_then(|parent| metadata.snapshot_by_id(parent));
    }
    metadata.properties().get(KEY).map_or(Ok(None), parse)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_written_compactly() {
        let marks = BTreeMap::from([(0, Mark { next: 7, time_ms: 1_700 }), (12, Mark { next: 0, time_ms: -1 })]);
        let mut progress = Progress { marks, ..Progress::none("c") };
        let text = serde_json::to_string(&progress).unwrap();
        assert_eq!(text, r#"{"cluster":"c","marks":{"0":[7,1700],"12":[0,-1]}}"#);
        assert_eq!(serde_json::from_str::<Progress>(&text).unwrap(), progress);
        progress.bases = BTreeMap::from([(12, 5)]);
        let text = serde_json::to_string(&progress).unwrap();
        assert!(text.ends_with(r#""bases":{"12":5}}"#), "{text}");
        assert_eq!(serde_json::from_str::<Progress>(&text).unwrap(), progress);
    }

    #[test]
    fn a_partition_without_a_mark_stands_at_none() {
        let progress = Progress::none("c");
        assert!(progress.stands_at(&BTreeMap::from([(3, Mark { next: -1, time_ms: 5 })])));
        assert!(!progress.stands_at(&BTreeMap::from([(3, Mark { next: 0, time_ms: -1 })])));
    }
}
