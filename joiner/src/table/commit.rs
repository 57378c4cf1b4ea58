//! Landing a batch exactly once.
//!
//! ```text
//! files are written, under names that never occur twice
//! loop:
//!   base     = the table, freshly loaded
//!   recorded = the newest progress in the ancestry of base's main
//!   recorded is the batch's upper bounds      → committed already
//!   recorded is not its lower bounds          → fenced: not ours to add
//!   append the files with the new marks, demanding that main still be at base   (one compare-and-set)
//!   anything but success                      → wait a little, loop: any error may hide that it was applied
//! ```
//!
//! Why this adds each batch once: rows land only by a compare-and-set on `main`, made from a base that stood at the
//! batch's lower bounds. Once they have landed the table stands elsewhere, for every later base. A request that was
//! delayed demands a base that is no longer current, and is refused by the catalog.
//!
//! Why a table that stands at the upper bounds may be called committed without knowing whose commit it was: a range
//! of a log is the same rows, whoever reads it. Either it was ours, with the answer lost, or another joiner carried
//! the same range; in both cases the rows between the bounds are in the table, once. The files that were not taken
//! are orphans then, as are those of a batch that is fenced: they are not deleted, since a request of ours may still
//! be under way that names them. The orphan removal of other engines (`remove_orphan_files`) takes them.
//!
//! A call may be dropped at any point, and may be repeated with the same batch after any error.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use iceberg::spec::{DataFile, TableMetadata};
use iceberg::transaction::{ApplyTransactionAction, Transaction};
use uuid::Uuid;

use super::expire::{self, Surplus};
use super::fence::Fence;
use super::{Kind, Mark, Outcome, PROGRESS_KEY, Progress, Table, TableError, manifests};

/// After this long a commit answers with its last error, so that the caller can look at what else there is to do,
/// such as shutting down, before it calls again.
const PATIENCE: Duration = Duration::from_secs(if cfg!(test) { 2 } else { 20 });
/// An attempt without an answer for so long has failed; catalog and store have shorter limits of their own.
const ATTEMPT: Duration = Duration::from_secs(120);
/// The wait before the second attempt. It doubles up to [`PAUSE_MAX`], and half of it is left to chance, so that
/// joiners that met do not meet again.
const PAUSE: Duration = Duration::from_millis(40);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// What a table calls invalid data as often as this, nobody else having committed meanwhile, it will call so again.
const INVALID_MAX: u32 = 3;
/// Under this summary key an append is recognised.
const APPEND_KEY: &str = "flywheel.append";

/// Table properties as they follow from the marks of all partitions.
pub type Properties<'a> = dyn Fn(&BTreeMap<i32, Mark>) -> Vec<(String, String)> + Send + Sync + 'a;

impl Table {
    /// Lands a batch that lies between the marks `from` and `to` of the same partitions, both in one commit with its
    /// files; without files it moves the marks alone. `properties` become table properties.
    ///
    /// # Errors
    /// [`Kind::Passing`] after a bounded time without success: the batch may or may not have landed, and the call is
    /// to be repeated with the same batch. [`Kind::Parked`]: permissions, a table that is gone, another cluster.
    pub async fn commit(
        &mut self,
        files: Vec<DataFile>,
        from: &BTreeMap<i32, Mark>,
        to: &BTreeMap<i32, Mark>,
        cluster: &str,
        properties: &[(String, String)],
    ) -> Result<Outcome, TableError> {
        self.commit_with(files, from, to, cluster, &|_| properties.to_vec()).await
    }

    /// As [`Table::commit`], with properties that follow from the marks of all partitions as they are after it.
    ///
    /// # Errors
    /// As [`Table::commit`].
    pub async fn commit_with(
        &mut self,
        files: Vec<DataFile>,
        from: &BTreeMap<i32, Mark>,
        to: &BTreeMap<i32, Mark>,
        cluster: &str,
        properties: &Properties<'_>,
    ) -> Result<Outcome, TableError> {
        if !from.keys().eq(to.keys()) {
            return Err(TableError::Bounds { table: self.name().to_owned() });
        }
        let mut patience = Patience::new();
        loop {
            match self.attempt(&files, from, to, cluster, properties).await {
                Ok(outcome) => return Ok(outcome),
                Err(error) => patience.bear(self, error).await?,
            }
        }
    }

    async fn attempt(
        &mut self,
        files: &[DataFile],
        from: &BTreeMap<i32, Mark>,
        to: &BTreeMap<i32, Mark>,
        cluster: &str,
        properties: &Properties<'_>,
    ) -> Result<Outcome, TableError> {
        let recorded = self.progress().await?.unwrap_or_else(|| Progress::none(cluster));
        if recorded.cluster != cluster {
            return Err(TableError::Cluster {
                table: self.name().to_owned(),
                recorded: recorded.cluster,
                present: cluster.to_owned(),
            });
        }
        if from != to && recorded.stands_at(to) {
            return Ok(Outcome::Committed);
        }
        if !recorded.stands_at(from) {
            let mut marks = recorded.marks;
            for &partition in from.keys() {
                marks.entry(partition).or_insert(Mark::NONE);
            }
            return Ok(Outcome::Fenced(marks));
        }
        let mut progress = recorded;
        progress.marks.extend(to);
        let properties = properties(&progress.marks);
        self.append_with_progress(files.to_vec(), &progress, properties).await?;
        Ok(Outcome::Committed)
    }

    /// Puts one progress in the place of another, without rows: for a person who has the table go on from another log. False
    /// where the table stands elsewhere, so that nothing was done.
    ///
    /// # Errors
    /// As [`Table::commit`].
    pub async fn replace_progress(&mut self, from: &Progress, to: &Progress) -> Result<bool, TableError> {
        let mut patience = Patience::new();
        loop {
            let error = match self.progress().await {
                Ok(Some(recorded)) if recorded == *to => return Ok(true),
                Ok(Some(recorded)) if recorded == *from => {
                    match self.append_with_progress(Vec::new(), to, Vec::new()).await {
                        Ok(()) => return Ok(true),
                        Err(error) => error,
                    }
                }
                Ok(_) => return Ok(false),
                Err(error) => error,
            };
            patience.bear(self, error).await?;
        }
    }

    async fn append_with_progress(
        &mut self,
        files: Vec<DataFile>,
        progress: &Progress,
        mut properties: Vec<(String, String)>,
    ) -> Result<(), TableError> {
        let text = serde_json::to_string(progress)
            .map_err(|error| TableError::Progress { table: self.name().to_owned(), text: error.to_string() })?;
        let summary = HashMap::from([(PROGRESS_KEY.to_owned(), text.clone())]);
        properties.push((PROGRESS_KEY.to_owned(), text));
        self.append_to_base(files, summary, properties).await
    }

    /// Appends files to a table that carries no progress. Within the call they are appended once; a caller that
    /// calls again after an error may append them twice.
    ///
    /// # Errors
    /// As [`Table::commit`].
    pub async fn append(&mut self, files: Vec<DataFile>) -> Result<(), TableError> {
        if files.is_empty() {
            return Ok(());
        }
        let name = Uuid::now_v7().to_string();
        let summary = HashMap::from([(APPEND_KEY.to_owned(), name.clone())]);
        let mut patience = Patience::new();
        loop {
            let error = match self.refresh().await {
                Ok(()) if has_append(self.state.metadata(), &name) => return Ok(()),
                Ok(()) => match self.append_to_base(files.clone(), summary.clone(), Vec::new()).await {
                    Ok(()) => return Ok(()),
                    Err(error) => error,
                },
                Err(error) => error,
            };
            patience.bear(self, error).await?;
        }
    }

    /// One snapshot upon the state that was loaded last, or an error. Properties go into the same commit.
    async fn append_to_base(
        &mut self,
        files: Vec<DataFile>,
        summary: HashMap<String, String>,
        properties: Vec<(String, String)>,
    ) -> Result<(), TableError> {
        let failed = |error| TableError::iceberg(self.name(), "committing", error);
        let merged = match manifests::merge(&self.state).await {
            Ok(merged) => merged,
            // It only is a longer list.
            Err(error) => {
                tracing::warn!(table = self.name(), %error, "the manifests could not be merged, trying again later");
                None
            }
        };
        let base = merged.as_ref().map_or(&self.state, |merged| &merged.base).clone();
        let mut transaction = Transaction::new(&base);
        if let Some(Surplus { before_ms, keep }) = Surplus::of(base.metadata()) {
            let expire = transaction.expire_snapshots().expire_older_than_ms(before_ms).retain_last(keep);
            transaction = expire.apply(transaction).map_err(failed)?;
        }
        // The check for files that are there already reads every manifest; our file names never occur twice.
        let append = transaction
            .fast_append()
            .with_check_duplicate(false)
            .set_snapshot_properties(summary)
            .add_data_files(files);
        transaction = append.apply(transaction).map_err(failed)?;
        if !properties.is_empty() {
            let update = properties
                .into_iter()
                .fold(transaction.update_table_properties(), |update, (key, value)| update.set(key, value));
            transaction = update.apply(transaction).map_err(failed)?;
        }
        let fence = Fence::new(self.catalog.clone(), base);
        let answer = tokio::time::timeout(ATTEMPT, transaction.commit(&fence)).await;
        if let Some(merged) = merged {
            expire::delete(self.state.file_io().clone(), merged.list).await;
        }
        let answer = match answer {
            Ok(answer) => answer.map_err(failed)?,
            Err(_) => {
                return Err(TableError::Late {
                    table: self.name().to_owned(),
                    action: "committing",
                    seconds: ATTEMPT.as_secs(),
                });
            }
        };
        let before = self.state.metadata_ref();
        self.adopt(&answer)?;
        self.sweep(&before, Instant::now()).await;
        Ok(())
    }
}

/// Whether an append of that name is in the ancestry of main.
fn has_append(metadata: &TableMetadata, name: &str) -> bool {
    let mut snapshot = metadata.current_snapshot();
    for _ in 0..metadata.snapshots().len() {
        let Some(current) = snapshot else { return false };
        if current.summary().additional_properties.get(APPEND_KEY).is_some_and(|found| found == name) {
            return true;
        }
        snapshot = current.parent_snapshot_id().and_then(|parent| metadata.snapshot_by_id(parent));
    }
    false
}

/// How much more failure a call bears.
struct Patience {
    started: Instant,
    attempts: u32,
    invalid: u32,
    base: Option<i64>,
}

impl Patience {
    fn new() -> Patience {
        Patience { started: Instant::now(), attempts: 0, invalid: 0, base: None }
    }

    /// Waits before the next attempt, or gives the error back.
    async fn bear(&mut self, table: &Table, error: TableError) -> Result<(), TableError> {
        self.attempts += 1;
        if error.kind() == Kind::Parked {
            return Err(error);
        }
        if !error.is_invalid_data() || self.base != table.snapshot_id() {
            self.invalid = 0;
        }
        self.base = table.snapshot_id();
        if error.is_invalid_data() {
            self.invalid += 1;
            if self.invalid >= INVALID_MAX {
                return Err(error.parked());
            }
        }
        let pause = pause(self.attempts);
        if self.started.elapsed() + pause >= PATIENCE {
            let table = table.name().to_owned();
            return Err(TableError::GivenUp { table, attempts: self.attempts, source: Box::new(error) });
        }
        if error.is_conflict() {
            tracing::debug!(table = table.name(), attempt = self.attempts, "another commit was first, looking again");
        } else {
            tracing::warn!(table = table.name(), attempt = self.attempts, %error, "a commit failed, looking again");
        }
        tokio::time::sleep(pause).await;
        Ok(())
    }
}

/// The wait after so many attempts.
pub(super) fn pause(attempts: u32) -> Duration {
    let full = PAUSE.saturating_mul(1 << attempts.saturating_sub(1).min(10)).min(PAUSE_MAX);
    // The last bytes of a random UUID are as good a source of chance as any here.
    let chance = f64::from(Uuid::new_v4().as_bytes()[15]) / 255.0;
    full.mul_f64(0.5 + chance / 2.0)
}
