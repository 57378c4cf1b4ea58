//! Keeping what describes a table small.
//!
//! Every commit writes the list of all snapshots anew, so that its cost grows with them. Snapshots are expired after
//! a day, and earlier where commits are so frequent that there are more than [`SNAPSHOTS_MAX`].
//!
//! Of the files only those are deleted that certainly nothing refers to: the manifest list of an expired snapshot,
//! and, in catalogs without a server that does it, metadata files that the table's log no longer names. Data files
//! and manifests go by the maintenance of other engines: a compaction of theirs decides which are left behind.

use std::collections::HashSet;

use iceberg::spec::TableMetadata;
use iceberg::transaction::{ApplyTransactionAction, Transaction};

use super::fence::Fence;
use super::{Table, TableError, schema};

/// More snapshots than a day of commits every minute has, so that it binds only more frequent commits; at under one
/// KiB each the list stays at about 2 MB.
const SNAPSHOTS_MAX: usize = 2000;

impl Table {
    /// Expires snapshots that are older than a day at `now_ms`, or too many; the newest always stay. Answers how many
    /// went.
    ///
    /// # Errors
    /// Of the catalog. Nothing depends on it: the next call does what this one could not.
    pub async fn expire(&mut self, now_ms: i64) -> Result<usize, TableError> {
        self.refresh().await?;
        match cutoff(self.state.metadata(), now_ms) {
            Some(cutoff_ms) => self.expire_before(cutoff_ms).await,
            None => Ok(0),
        }
    }

    /// Of the state that was loaded last.
    pub(super) async fn expire_before(&mut self, cutoff_ms: i64) -> Result<usize, TableError> {
        let failed = |error| TableError::iceberg(self.name(), "expiring snapshots", error);
        let transaction = Transaction::new(&self.state);
        let transaction = transaction
            .expire_snapshots()
            .expire_older_than_ms(cutoff_ms)
            .retain_last(schema::SNAPSHOTS_MIN)
            .apply(transaction)
            .map_err(failed)?;
        let fence = Fence::new(self.catalog.clone(), self.state.clone());
        let answer = transaction.commit(&fence).await.map_err(failed)?;
        let before = self.state.metadata_ref();
        self.adopt(&answer)?;
        let kept: HashSet<&str> = self.state.metadata().snapshots().map(|snapshot| snapshot.manifest_list()).collect();
        let gone: Vec<String> = before
            .snapshots()
            .map(|snapshot| snapshot.manifest_list())
            .filter(|list| !kept.contains(list))
            .map(str::to_owned)
            .collect();
        for list in &gone {
            self.delete(list).await;
        }
        self.sweep(&before).await;
        tracing::info!(table = self.name(), snapshots = gone.len(), "expired snapshots");
        Ok(gone.len())
    }

    /// Deletes the metadata files that the present log no longer names and an earlier one did.
    pub(super) async fn sweep(&self, before: &TableMetadata) {
        if !self.sweeps || before.metadata_log().is_empty() {
            return;
        }
        let named: HashSet<&str> =
            self.state.metadata().metadata_log().iter().map(|entry| entry.metadata_file.as_str()).collect();
        for entry in before.metadata_log().iter().filter(|entry| !named.contains(entry.metadata_file.as_str())) {
            self.delete(&entry.metadata_file).await;
        }
    }

    async fn delete(&self, file: &str) {
        if let Err(error) = self.state.file_io().delete(file).await {
            tracing::debug!(table = self.name(), file, %error, "an old metadata file could not be deleted");
        }
    }
}

/// Before which instant snapshots go; none where none would.
fn cutoff(metadata: &TableMetadata, now_ms: i64) -> Option<i64> {
    let mut times: Vec<i64> = metadata.snapshots().map(|snapshot| snapshot.timestamp_ms()).collect();
    if times.len() <= schema::SNAPSHOTS_MIN {
        return None;
    }
    times.sort_unstable();
    let mut cutoff_ms = now_ms.saturating_sub(schema::SNAPSHOT_AGE_MS);
    if times.len() > SNAPSHOTS_MAX {
        cutoff_ms = cutoff_ms.max(times[times.len() - SNAPSHOTS_MAX]);
    }
    (times[0] < cutoff_ms).then_some(cutoff_ms)
}
