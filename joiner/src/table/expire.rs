//! Keeping the list of snapshots short.
//!
//! Every commit writes the list of all snapshots anew, catalog and joiner read it several times for it, and each snapshot
//! has the marks of all partitions: with a thousand of them a commit took fourteen times as long as with ten. A table keeps
//! its newest, as many as its property `history.expire.min-snapshots-to-keep` says; where there are half as many more, the
//! next commit removes what is too much, in the same compare-and-set that adds its own snapshot. So there is no clock, no
//! second commit and nothing that fails alone.
//!
//! Readers do not need old snapshots for the past: rows are never changed, and `as_of` tells what was known when. What
//! branches and tags hold stays.
//!
//! Of the files only those are deleted that certainly nothing refers to: the manifest list of an expired snapshot, and, in
//! catalogs without a server that does it, metadata files that the table's log no longer names. Data files and manifests go
//! by the maintenance of other engines: a compaction of theirs decides which are left behind.

use std::collections::HashSet;

use futures::StreamExt as _;
use iceberg::io::FileIO;
use iceberg::spec::TableMetadata;

use super::{Table, schema};

/// The standard property of Iceberg for what is kept, and that by which a table is not to be expired.
const KEEP_KEY: &str = "history.expire.min-snapshots-to-keep";
const GC_KEY: &str = "gc.enabled";
/// Files are deleted so many at a time.
const AT_ONCE: usize = 8;

/// What a commit is to remove.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Surplus {
    /// Snapshots before this instant…
    pub before_ms: i64,
    /// …but for so many of each branch.
    pub keep: usize,
}

impl Surplus {
    /// None where there is not enough to be worth it.
    pub fn of(metadata: &TableMetadata) -> Option<Surplus> {
        let properties = metadata.properties();
        if properties.get(GC_KEY).is_some_and(|value| value == "false") {
            return None;
        }
        let keep = properties.get(KEEP_KEY).and_then(|value| value.parse().ok()).filter(|keep| *keep > 0);
        let keep = keep.unwrap_or(schema::SNAPSHOTS_KEPT);
        if metadata.snapshots().len() < keep + keep / 2 {
            return None;
        }
        let mut times: Vec<i64> = metadata.snapshots().map(|snapshot| snapshot.timestamp_ms()).collect();
        times.sort_unstable();
        Some(Surplus { before_ms: times[times.len() - keep], keep })
    }
}

impl Table {
    /// Deletes the manifest lists of the snapshots that are there no longer, and the metadata files that the present log does
    /// not name any more.
    pub(super) async fn sweep(&self, before: &TableMetadata) {
        let after = self.state.metadata();
        let mut gone: Vec<&str> = Vec::new();
        // Snapshots only ever go: nothing is to be looked for where there are more.
        if after.snapshots().len() <= before.snapshots().len() {
            let kept: HashSet<&str> = after.snapshots().map(|snapshot| snapshot.manifest_list()).collect();
            gone.extend(
                before.snapshots().map(|snapshot| snapshot.manifest_list()).filter(|list| !kept.contains(list)),
            );
        }
        if self.sweeps {
            let named: HashSet<&str> = after.metadata_log().iter().map(|entry| entry.metadata_file.as_str()).collect();
            let before = before.metadata_log().iter().map(|entry| entry.metadata_file.as_str());
            gone.extend(before.filter(|file| !named.contains(file)));
        }
        let gone: Vec<_> = gone.into_iter().map(|file| delete(self.state.file_io().clone(), file.to_owned())).collect();
        let mut gone = futures::stream::iter(gone).buffer_unordered(AT_ONCE);
        while gone.next().await.is_some() {}
    }
}

/// Deletes a file that nothing names.
pub(super) async fn delete(file_io: FileIO, file: String) {
    if let Err(error) = file_io.delete(&file).await {
        tracing::debug!(file, %error, "a file that nothing names could not be deleted");
    }
}
