//! What the joiner says of itself: one function per event, which writes its log line and moves its metric together.
//!
//! | metric | labels | meaning |
//! |---|---|---|
//! | `flywheel_joiner_landed_rows_total` | model, kind | records that became a row of a batch |
//! | `flywheel_joiner_dead_letters_total` | model, kind, reason | records that could not be landed |
//! | `flywheel_joiner_rerouted_total` | model | records appended to the partition that their key belongs to |
//! | `flywheel_joiner_sampled_out_outcomes_total` | model | landed outcomes whose prediction its contract samples out |
//! | `flywheel_joiner_committed_rows_total` | table | rows in committed snapshots |
//! | `flywheel_joiner_commits_total` | table | snapshots committed |
//! | `flywheel_joiner_fenced_total` | table | batches given up because another joiner had landed them |
//! | `flywheel_joiner_gaps_total` | model | gaps in an outcome partition, which bar ticks |
//! | `flywheel_joiner_gate_barred_partitions` | model, cause | partitions whose last tick a dead label source barred |
//! | `flywheel_joiner_conflicting_duplicates_total` | model | copies of a prediction that differ from the first one |
//! | `flywheel_joiner_partitions` | model | partitions that this joiner owns |
//! | `flywheel_joiner_partition_waits` | model, kind, partition | 1 while a partition waits for a schema or a clock |
//! | `flywheel_joiner_sealed_through_seconds` | model, partition | last tick done, seconds since the epoch |
//! | `flywheel_joiner_index_bytes` | model | what the outcome index takes on disk; see `index.max_bytes` |
//! | `flywheel_joiner_failures_total` | model | failed turns, each tried again |
//! | `flywheel_joiner_stopped` | model | 1 while the model stands still until a person acts; the log says why |
//! | `flywheel_joiner_topic_gone` | model | 1 where at the start the model had tables and no topic |
//! | `flywheel_joiner_commits_put_off_total` | model | commits that failed and are tried again with the same batch |
//! | `flywheel_joiner_tick_failures_total` | model | tick records that could not be appended, tried again |
//! | `flywheel_joiner_side_failures_total` | topic | failed appends of ledger or dead letters, each tried again |
//! | `flywheel_joiner_side_skipped_total` | table | records of a side topic that could not be read |
//!
//! ERROR means that data is at risk or a person is needed; what passes by itself is WARN.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use flywheel_schemas::gate::Cause;
use flywheel_schemas::wire::Kind;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::bar::Bar;

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfModel {
    model: String,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfKind {
    model: String,
    kind: &'static str,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfReason {
    model: String,
    kind: &'static str,
    reason: &'static str,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfPartition {
    model: String,
    partition: i32,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfSide {
    model: String,
    kind: &'static str,
    partition: i32,
}

/// A partition that waits, as `status` shows it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Waiting {
    pub model: String,
    pub kind: String,
    pub partition: i32,
    /// Of the record that it waits before.
    pub offset: i64,
    pub why: String,
}

/// By model, kind and partition: at most all partitions that this joiner owns.
type Waits = BTreeMap<(String, Kind, i32), Waiting>;

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfCause {
    model: String,
    cause: String,
}

/// By model, the causes that bar ticks, with the number of partitions.
type Gates = BTreeMap<String, BTreeMap<Cause, usize>>;

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfTable {
    table: String,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfTopic {
    topic: String,
}

/// Cheap to clone; all clones are one.
#[derive(Clone)]
pub(crate) struct Metrics {
    registry: Arc<Registry>,
    landed: Family<OfKind, Counter>,
    dead_letters: Family<OfReason, Counter>,
    rerouted: Family<OfModel, Counter>,
    sampled_out_outcomes: Family<OfModel, Counter>,
    committed_rows: Family<OfTable, Counter>,
    commits: Family<OfTable, Counter>,
    fenced: Family<OfTable, Counter>,
    gaps: Family<OfModel, Counter>,
    gate_barred: Family<OfCause, Gauge>,
    gates: Arc<Mutex<Gates>>,
    conflicting_duplicates: Family<OfModel, Counter>,
    partitions: Family<OfModel, Gauge>,
    waits: Family<OfSide, Gauge>,
    waiting: Arc<Mutex<Waits>>,
    sealed_through: Family<OfPartition, Gauge<f64, AtomicU64>>,
    index_bytes: Family<OfModel, Gauge>,
    failures: Family<OfModel, Counter>,
    stopped: Family<OfModel, Gauge>,
    topic_gone: Family<OfModel, Gauge>,
    commits_put_off: Family<OfModel, Counter>,
    tick_failures: Family<OfModel, Counter>,
    side_failures: Family<OfTopic, Counter>,
    side_skipped: Family<OfTable, Counter>,
}

impl Metrics {
    pub fn new() -> Metrics {
        let mut registry = Registry::with_prefix("flywheel_joiner");
        let mut metrics = Metrics {
            registry: Arc::new(Registry::default()),
            landed: Family::default(),
            dead_letters: Family::default(),
            rerouted: Family::default(),
            sampled_out_outcomes: Family::default(),
            committed_rows: Family::default(),
            commits: Family::default(),
            fenced: Family::default(),
            gaps: Family::default(),
            gate_barred: Family::default(),
            gates: Arc::default(),
            conflicting_duplicates: Family::default(),
            partitions: Family::default(),
            waits: Family::default(),
            waiting: Arc::default(),
            sealed_through: Family::default(),
            index_bytes: Family::default(),
            failures: Family::default(),
            stopped: Family::default(),
            topic_gone: Family::default(),
            commits_put_off: Family::default(),
            tick_failures: Family::default(),
            side_failures: Family::default(),
            side_skipped: Family::default(),
        };
        registry.register("landed_rows", "Records that became a row of a batch", metrics.landed.clone());
        registry.register("dead_letters", "Records that could not be landed", metrics.dead_letters.clone());
        registry.register("rerouted", "Records appended to the partition of their key", metrics.rerouted.clone());
        let help = "Landed outcomes whose prediction its contract samples out";
        registry.register("sampled_out_outcomes", help, metrics.sampled_out_outcomes.clone());
        registry.register("committed_rows", "Rows in committed snapshots", metrics.committed_rows.clone());
        registry.register("commits", "Snapshots committed", metrics.commits.clone());
        registry.register("fenced", "Batches that another joiner had landed", metrics.fenced.clone());
        registry.register("gaps", "Gaps in an outcome partition", metrics.gaps.clone());
        let help = "Partitions whose last tick a dead label source barred";
        registry.register("gate_barred_partitions", help, metrics.gate_barred.clone());
        let duplicates = metrics.conflicting_duplicates.clone();
        registry.register("conflicting_duplicates", "Copies of a prediction that differ from the first", duplicates);
        registry.register("partitions", "Partitions owned", metrics.partitions.clone());
        registry.register("partition_waits", "1 while a partition waits", metrics.waits.clone());
        registry.register("sealed_through_seconds", "Last tick done", metrics.sealed_through.clone());
        registry.register("index_bytes", "Size of the outcome index", metrics.index_bytes.clone());
        registry.register("failures", "Failed turns", metrics.failures.clone());
        registry.register("stopped", "1 while a person is needed", metrics.stopped.clone());
        registry.register(
            "topic_gone",
            "1 where a model had tables and no topic at the start",
            metrics.topic_gone.clone(),
        );
        registry.register("commits_put_off", "Commits tried again", metrics.commits_put_off.clone());
        registry.register("tick_failures", "Tick records not appended", metrics.tick_failures.clone());
        registry.register("side_failures", "Failed appends of side topics", metrics.side_failures.clone());
        registry.register("side_skipped", "Unreadable records of side topics", metrics.side_skipped.clone());
        metrics.registry = Arc::new(registry);
        metrics
    }

    /// All metrics in the OpenMetrics text format.
    pub fn render(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }

    /// Said once per turn.
    pub fn landed(&self, model: &str, kind: Kind, rows: u64) {
        self.landed.get_or_create(&OfKind { model: model.to_owned(), kind: kind.name() }).inc_by(rows);
    }

    pub fn dead_letter(&self, model: &str, kind: Kind, partition: i32, offset: i64, reason: &'static str) {
        tracing::warn!(model, kind = kind.name(), partition, offset, reason, "record put into the dead letters");
        self.dead_letters.get_or_create(&OfReason { model: model.to_owned(), kind: kind.name(), reason }).inc();
    }

    pub fn rerouted(&self, model: &str, kind: Kind, from: i32, to: i32) {
        tracing::debug!(model, kind = kind.name(), from, to, "record appended to the partition of its key");
        self.rerouted.get_or_create(&of(model)).inc();
    }

    /// An outcome of a prediction that was never written, as the contract alone says. There may be thousands a second.
    pub fn sampled_out_outcome(&self, model: &str) {
        self.sampled_out_outcomes.get_or_create(&of(model)).inc();
    }

    pub fn committed(&self, model: &str, table: &str, rows: usize) {
        tracing::debug!(model, table, rows, "snapshot committed");
        let of = OfTable { table: table.to_owned() };
        self.committed_rows.get_or_create(&of).inc_by(rows as u64);
        self.commits.get_or_create(&of).inc();
    }

    pub fn fenced(&self, model: &str, table: &str) {
        tracing::info!(model, table, "batch given up: another joiner has landed it");
        self.fenced.get_or_create(&OfTable { table: table.to_owned() }).inc();
    }

    pub fn gap(&self, model: &str, partition: i32, bar: &Bar) {
        match bar.after_ms {
            None => tracing::debug!(
                model,
                partition,
                through_ms = bar.through_ms,
                "ticks before the first outcome record are barred"
            ),
            Some(after_ms) => {
                tracing::warn!(
                    model,
                    partition,
                    after_ms,
                    through_ms = bar.through_ms,
                    "gap in the outcomes: ticks barred"
                );
                self.gaps.get_or_create(&of(model)).inc();
            }
        }
    }

    /// What bars ticks of a model now. Said where a cause begins, and where it ends.
    pub fn gates(&self, model: &str, barred: &BTreeMap<&Cause, usize>) {
        let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        let before = gates.remove(model).unwrap_or_default();
        for (cause, partitions) in barred {
            if !before.contains_key(*cause) {
                tracing::error!(
                    model,
                    %cause,
                    partitions,
                    "a label source seems dead, no tick is open: restart it, or let ticks be open with flywheel-joiner release"
                );
            }
            self.gate_barred.get_or_create(&of_cause(model, cause)).set(i64::try_from(*partitions).unwrap_or(i64::MAX));
        }
        for cause in before.keys().filter(|cause| !barred.contains_key(cause)) {
            tracing::info!(model, %cause, "ticks are open again");
            self.gate_barred.get_or_create(&of_cause(model, cause)).set(0);
        }
        gates.insert(model.to_owned(), barred.iter().map(|(cause, count)| ((*cause).clone(), *count)).collect());
    }

    /// Said once per commit; the first copies are in the training table, the others in the raw table alone.
    pub fn conflicting_duplicates(&self, model: &str, count: u64, example: &str) {
        tracing::warn!(model, count, example, "copies of predictions differ from those that came first, which count");
        self.conflicting_duplicates.get_or_create(&of(model)).inc_by(count);
    }

    pub fn partitions(&self, model: &str, count: usize) {
        tracing::info!(model, partitions = count, "partitions owned");
        self.partitions.get_or_create(&of(model)).set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// What was waited for is looked at anew.
    pub fn partition_taken(&self, model: &str, partition: i32, done_ms: Option<i64>) {
        for kind in [Kind::Predictions, Kind::Outcomes] {
            self.waits.get_or_create(&OfSide { model: model.to_owned(), kind: kind.name(), partition }).set(0);
        }
        if let Some(done_ms) = done_ms {
            self.sealed_through(model, partition, done_ms);
        }
    }

    /// What is another joiner's now is not told here any more.
    pub fn partition_left(&self, model: &str, partition: i32) {
        for kind in [Kind::Predictions, Kind::Outcomes] {
            self.waits.remove(&side(model, kind, partition));
            self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&(model.to_owned(), kind, partition));
        }
        self.sealed_through.remove(&OfPartition { model: model.to_owned(), partition });
    }

    /// Said once per wait; `first` is whether this is its beginning.
    pub fn partition_waits(&self, model: &str, kind: Kind, partition: i32, offset: i64, why: &str, first: bool) {
        if first {
            tracing::error!(model, kind = kind.name(), partition, offset, why, "partition waits; the others go on");
        }
        self.waits.get_or_create(&side(model, kind, partition)).set(1);
        let (model, why) = (model.to_owned(), why.to_owned());
        let waiting = Waiting { model: model.clone(), kind: kind.name().to_owned(), partition, offset, why };
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert((model, kind, partition), waiting);
    }

    pub fn partition_goes_on(&self, model: &str, kind: Kind, partition: i32) {
        tracing::info!(model, kind = kind.name(), partition, "partition goes on");
        self.partition_forgotten(model, kind, partition);
    }

    /// Whether the partition still has to wait is for whoever reads it next to find out.
    pub fn partition_forgotten(&self, model: &str, kind: Kind, partition: i32) {
        self.waits.get_or_create(&side(model, kind, partition)).set(0);
        let key = (model.to_owned(), kind, partition);
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
    }

    /// The partitions that wait, in order.
    pub fn waiting(&self) -> Vec<Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    pub fn sealed_through(&self, model: &str, partition: i32, tick_ms: i64) {
        let of = OfPartition { model: model.to_owned(), partition };
        self.sealed_through.get_or_create(&of).set(tick_ms as f64 / 1000.0);
    }

    pub fn index_bytes(&self, model: &str, bytes: u64) {
        self.index_bytes.get_or_create(&of(model)).set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    pub fn index_high(&self, model: &str, bytes: u64, max_bytes: u64) {
        tracing::warn!(
            model,
            bytes,
            max_bytes,
            "the outcome index is nearly as large as it may be; raise index.max_bytes"
        );
    }

    pub fn index_full(&self, model: &str, bytes: u64, max_bytes: u64) {
        tracing::error!(model, bytes, max_bytes, "landing pauses: the outcome index is full; raise index.max_bytes");
    }

    /// Said once, when a partition is taken of which nothing is landed.
    pub fn begins_late(&self, model: &str, kind: Kind, partition: i32, low: i64) {
        let kind = kind.name();
        tracing::warn!(model, kind, partition, low, "the log begins here: what was before is not landed");
    }

    pub fn caught_up(&self, model: &str, partition: i32, offsets: i64) {
        tracing::info!(model, partition, offsets, "outcome index caught up from the table");
    }

    pub fn pipeline_failed(&self, model: &str, error: &str, passing: bool, retry: Duration) {
        let retry_ms = retry.as_millis();
        if passing {
            tracing::warn!(model, error, retry_ms, "landing interrupted; tried again");
        } else {
            tracing::error!(model, error, retry_ms, "landing stopped; tried again, but a person is needed");
        }
        self.failures.get_or_create(&of(model)).inc();
        self.stopped.get_or_create(&of(model)).set(i64::from(!passing));
    }

    pub fn pipeline_goes_on(&self, model: &str) {
        self.stopped.get_or_create(&of(model)).set(0);
    }

    pub fn topic_gone(&self, model: &str, topic: &str) {
        tracing::error!(
            model,
            topic,
            "the topic is gone from which the tables were landed, and with it what was not landed: make it again with \
             flywheel-schemas register, then flywheel-joiner adopt; or set the property flywheel.retired of the table of predictions"
        );
        self.topic_gone.get_or_create(&of(model)).set(1);
    }

    pub fn commit_put_off(&self, model: &str, error: &str, retry: Duration) {
        tracing::warn!(model, error, retry_ms = retry.as_millis(), "commit failed; tried again with the same batch");
        self.commits_put_off.get_or_create(&of(model)).inc();
    }

    pub fn tick_failed(&self, model: &str, kind: Kind, partition: i32, error: &str) {
        tracing::warn!(model, kind = kind.name(), partition, error, "tick record not appended; tried again");
        self.tick_failures.get_or_create(&of(model)).inc();
    }

    pub fn side_failed(&self, topic: &str, error: &str) {
        tracing::warn!(topic, error, "side topic interrupted; tried again");
        self.side_failures.get_or_create(&OfTopic { topic: topic.to_owned() }).inc();
    }

    pub fn side_skipped(&self, table: &str, partition: i32, offset: i64, why: &str) {
        tracing::error!(table, partition, offset, why, "record of a side topic cannot be read and is left out");
        self.side_skipped.get_or_create(&OfTable { table: table.to_owned() }).inc();
    }

    pub fn source_failed(&self, error: &str) {
        tracing::error!(error, "membership of the group failed");
    }
}

fn of(model: &str) -> OfModel {
    OfModel { model: model.to_owned() }
}

fn of_cause(model: &str, cause: &Cause) -> OfCause {
    OfCause { model: model.to_owned(), cause: cause.to_string() }
}

fn side(model: &str, kind: Kind, partition: i32) -> OfSide {
    OfSide { model: model.to_owned(), kind: kind.name(), partition }
}
