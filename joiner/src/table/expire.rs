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
//! Of the files only those are deleted that certainly nothing refers to: the manifest list of a snapshot that was expired a
//! day ago, and, in catalogs without a server that does it, metadata files that the table's log no longer names. What is to be
//! deleted is remembered by the handle that expired it; the lists that it leaves behind at its end, and data files and
//! manifests, go by the maintenance of other engines (`remove_orphan_files`).

use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use iceberg::io::FileIO;
use iceberg::spec::TableMetadata;

use super::{Table, schema};

/// The standard property of Iceberg for what is kept, and that by which a table is not to be expired.
const KEEP_KEY: &str = "history.expire.min-snapshots-to-keep";
const GC_KEY: &str = "gc.enabled";
/// So long after it was expired, a snapshot may still be read by who has loaded the table while it was there: a notebook,
/// say, in which somebody goes on in the afternoon.
const LIST_AGE: Duration = Duration::from_secs(24 * 60 * 60);
/// A day of a commit each 17 s; each is a name of some 150 bytes.
const LISTS_MAX: usize = 5_000;
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

/// Manifest lists of expired snapshots, and since when they are that.
#[derive(Debug, Clone, Default)]
pub(super) struct Expired {
    lists: VecDeque<(Instant, String)>,
}

impl Expired {
    fn add(&mut self, list: &str, now: Instant) {
        self.lists.push_back((now, list.to_owned()));
        if self.lists.len() > LISTS_MAX {
            self.lists.pop_front();
        }
    }

    /// Those that no reader comes back to.
    fn take_old(&mut self, now: Instant) -> Vec<String> {
        let old = self.lists.partition_point(|(since, _)| now.duration_since(*since) >= LIST_AGE);
        self.lists.drain(..old).map(|(_, list)| list).collect()
    }
}

impl Table {
    /// Deletes what is not named any more: metadata files at once, the manifest lists of expired snapshots when they are old.
    pub(super) async fn sweep(&mut self, before: &TableMetadata, now: Instant) {
        let after = self.state.metadata();
        // Where there is one more, none has gone.
        if after.snapshots().len() <= before.snapshots().len() {
            let kept: HashSet<&str> = after.snapshots().map(|snapshot| snapshot.manifest_list()).collect();
            let lists = before.snapshots().map(|snapshot| snapshot.manifest_list());
            lists.filter(|list| !kept.contains(list)).for_each(|list| self.expired.add(list, now));
        }
        let mut gone = self.expired.take_old(now);
        if self.sweeps {
            let named: HashSet<&str> = after.metadata_log().iter().map(|entry| entry.metadata_file.as_str()).collect();
            let before = before.metadata_log().iter().map(|entry| entry.metadata_file.as_str());
            gone.extend(before.filter(|file| !named.contains(file)).map(str::to_owned));
        }
        let gone: Vec<_> = gone.into_iter().map(|file| delete(self.state.file_io().clone(), file)).collect();
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
