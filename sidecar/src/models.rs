//! The models of this sidecar: each has a contract version in force, a spool of its own, and its counts.
//!
//! In a replay a model also has a clock: the time of the last record. Rows go into the spool under its lock, so that the
//! order of the spool is the order of time, and every multiple of 5 minutes that it passes goes in before them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use flywheel_schemas::contract::Contract;
use flywheel_schemas::gate::GateRecord;
use flywheel_schemas::wire::{Kind, REPLAY_TICK_MS};
use flywheel_spool::{AppendError, Pending, SchemaKey, Spool, SpoolError};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;

use crate::metrics::Metrics;
use crate::record::{Envelope, RecordKind};
use crate::transcode::{Local, Plan, PlanError};

/// The longest step of a replay: about 115,000 records of passed time, which take some 10 MB of the spool.
const STEP_DAYS_MAX: i64 = 400;
const DAY_MS: i64 = 86_400_000;

/// One version of a contract, ready for requests.
pub(crate) struct Version {
    pub(crate) plan: Plan,
    pub(crate) prediction_schema: SchemaKey,
    pub(crate) outcome_schema: SchemaKey,
    /// Whether a refused body may be kept: not where a field is private, unless the contract says so.
    pub(crate) keeps_refused_bodies: bool,
}

/// Why a contract cannot be put in force.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VersionError {
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    Spool(#[from] SpoolError),
}

impl Version {
    /// Compiles a contract and stores its schema texts in the spool, before the first record that uses them.
    pub(crate) fn prepare(contract: Contract, local: Local, spool: &Spool) -> Result<Version, VersionError> {
        let keeps_refused_bodies = contract.dead_letter_body || !contract.has_private_field();
        let plan = Plan::compile_with(Arc::new(contract), local)?;
        let prediction_schema = spool.add_schema(plan.prediction_schema())?;
        let outcome_schema = spool.add_schema(plan.outcome_schema())?;
        Ok(Version { plan, prediction_schema, outcome_schema, keeps_refused_bodies })
    }
}

/// A model with a contract in force.
pub(crate) struct Model {
    name: String,
    producer_id: [u8; 16],
    spool: Spool,
    record_bytes_max: usize,
    version: RwLock<Arc<Version>>,
    predictions: Lane,
    outcomes: Lane,
    /// In a replay: the time of the last record.
    clock: Option<Mutex<Option<i64>>>,
}

/// The counts of one model and kind, since the start of the process.
pub(crate) struct Lane {
    /// The last producer_seq given.
    given: AtomicU64,
    /// The last producer_seq known to be accepted.
    accepted: AtomicU64,
    refused: AtomicU64,
    sampled_out: AtomicU64,
    accepted_rows: Counter,
    sampled_out_rows: Counter,
    /// From receipt to answer.
    pub(crate) seconds: Histogram,
}

/// A reading of a [`Lane`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) last_seq: u64,
    pub(crate) refused: u64,
    pub(crate) sampled_out: u64,
}

/// What goes into one record.
pub(crate) struct Event<'a> {
    pub(crate) kind: Kind,
    pub(crate) schema: SchemaKey,
    pub(crate) key: &'a [u8],
    pub(crate) id: &'a [u8],
    pub(crate) traceparent: Option<&'a [u8]>,
    pub(crate) datum: &'a [u8],
}

/// The right to append at one time.
pub(crate) struct Entry<'a> {
    model: &'a Model,
    now_ms: i64,
    clock: Option<MutexGuard<'a, Option<i64>>>,
}

/// Why there is no entry.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum EntryError {
    WentBack { last_ms: i64 },
    TooFar { days_max: i64 },
}

/// A row that was appended and is not yet accepted.
pub(crate) struct Ticket {
    pending: Pending,
    seq: u64,
}

impl Model {
    /// `clock`: in a replay, the time that the spool has come to, where it has come to one.
    pub(crate) fn new(
        name: &str,
        producer_id: [u8; 16],
        spool: Spool,
        record_bytes_max: usize,
        version: Version,
        metrics: &Metrics,
        clock: Option<Option<i64>>,
    ) -> Model {
        Model {
            name: name.to_owned(),
            producer_id,
            spool,
            record_bytes_max,
            version: RwLock::new(Arc::new(version)),
            predictions: Lane::new(metrics, name, Kind::Predictions),
            outcomes: Lane::new(metrics, name, Kind::Outcomes),
            clock: clock.map(Mutex::new),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn spool(&self) -> &Spool {
        &self.spool
    }

    pub(crate) fn version(&self) -> Arc<Version> {
        self.version.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Requests that have begun end under the version they began with.
    pub(crate) fn put_in_force(&self, version: Version) {
        *self.version.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(version);
    }

    pub(crate) fn lane(&self, kind: Kind) -> &Lane {
        match kind {
            Kind::Predictions => &self.predictions,
            Kind::Outcomes => &self.outcomes,
        }
    }

    /// Everything appended is on the disk: the spool was synced after the last append.
    pub(crate) fn settle_all(&self) {
        self.predictions.settle_all();
        self.outcomes.settle_all();
    }

    /// Begins appending at `now_ms`. Not to be held across an await: in a replay it is the lock of the model's clock.
    pub(crate) fn enter(&self, now_ms: i64) -> Result<Entry<'_>, EntryError> {
        let clock = self.clock.as_ref().map(|clock| clock.lock().unwrap_or_else(PoisonError::into_inner));
        if let Some(last_ms) = clock.as_deref().copied().flatten() {
            if now_ms < last_ms {
                return Err(EntryError::WentBack { last_ms });
            }
            if now_ms - last_ms > STEP_DAYS_MAX * DAY_MS {
                return Err(EntryError::TooFar { days_max: STEP_DAYS_MAX });
            }
        }
        Ok(Entry { model: self, now_ms, clock })
    }
}

impl Entry<'_> {
    /// Appends one row, after the time that passes before it.
    pub(crate) fn append(&mut self, event: &Event<'_>) -> Result<Ticket, AppendError> {
        self.pass()?;
        let (kind, lane) = match event.kind {
            Kind::Predictions => (RecordKind::Prediction, &self.model.predictions),
            Kind::Outcomes => (RecordKind::Outcome, &self.model.outcomes),
        };
        let mut envelope = Envelope {
            kind,
            time_ms: self.now_ms,
            producer_id: self.model.producer_id,
            producer_seq: 0,
            key: event.key,
            event_id: event.id,
            traceparent: event.traceparent,
            datum: event.datum,
        };
        // The spool finds this out only after it has asked for the payload, which would leave a hole.
        if envelope.payload_bytes() > self.model.record_bytes_max {
            return Err(AppendError::TooLarge);
        }
        let mut seq = 0;
        let pending = self.model.spool.append(event.schema, |_, out| {
            // Under the lock of the spool, so the numbers are in its order and a refused append leaves no hole.
            seq = lane.given.fetch_add(1, Ordering::Relaxed) + 1;
            envelope.producer_seq = seq;
            envelope.write(out);
        })?;
        Ok(Ticket { pending, seq })
    }

    /// Appends what a source of labels says, after the time that passes before it.
    pub(crate) fn append_gate(&mut self, record: &GateRecord) -> Result<Pending, AppendError> {
        self.pass()?;
        let text = record.to_header();
        self.model
            .spool
            .append(SchemaKey::NONE, |_, out| self.bare(RecordKind::Gate, self.now_ms, text.as_bytes()).write(out))
    }

    /// A record that is no row: it has no number and no key.
    fn bare<'a>(&self, kind: RecordKind, time_ms: i64, datum: &'a [u8]) -> Envelope<'a> {
        let producer_id = self.model.producer_id;
        Envelope { kind, time_ms, producer_id, producer_seq: 0, key: b"", event_id: b"", traceparent: None, datum }
    }

    /// Lets time pass without a row. In a replay the last record of passed time, where there was one.
    pub(crate) fn pass(&mut self) -> Result<Option<Pending>, AppendError> {
        let Some(last) = self.clock.as_deref().copied() else { return Ok(None) };
        let mut appended = None;
        for tick_ms in ticks(last, self.now_ms) {
            let record = self.bare(RecordKind::Time, tick_ms, b"");
            appended = Some(self.model.spool.append(SchemaKey::NONE, |_, out| record.write(out))?);
            self.come_to(tick_ms);
        }
        self.come_to(self.now_ms);
        Ok(appended)
    }

    fn come_to(&mut self, time_ms: i64) {
        if let Some(clock) = self.clock.as_deref_mut() {
            *clock = Some(time_ms);
        }
    }
}

/// The multiples of 5 minutes in (last, now]; with no time before it, only `now` itself can be one.
fn ticks(last_ms: Option<i64>, now_ms: i64) -> impl Iterator<Item = i64> {
    let last_ms = last_ms.unwrap_or(now_ms - 1);
    let first = last_ms.div_euclid(REPLAY_TICK_MS) + 1;
    (first..=now_ms.div_euclid(REPLAY_TICK_MS)).map(|number| number * REPLAY_TICK_MS)
}

impl Ticket {
    /// Waits until the row is accepted, and counts it.
    pub(crate) async fn settled(self, lane: &Lane) -> Result<(), AppendError> {
        self.pending.await?;
        lane.accepted.fetch_max(self.seq, Ordering::Relaxed);
        lane.accepted_rows.inc();
        Ok(())
    }
}

impl Lane {
    fn new(metrics: &Metrics, model: &str, kind: Kind) -> Lane {
        Lane {
            given: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            sampled_out: AtomicU64::new(0),
            accepted_rows: metrics.accepted_rows(model, kind),
            sampled_out_rows: metrics.sampled_out_rows(model, kind),
            seconds: metrics.accept_seconds(model, kind),
        }
    }

    /// Counts a row that sampling left out.
    pub(crate) fn leave_out(&self) {
        self.sampled_out.fetch_add(1, Ordering::Relaxed);
        self.sampled_out_rows.inc();
    }

    /// Counts a row that was answered with 413, 422 or 503.
    pub(crate) fn refuse(&self, metrics: &Metrics, model: &str, kind: Kind, reason: &'static str) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        metrics.refused(model, kind, reason);
    }

    /// Rows whose clients left before the answer are accepted too.
    fn settle_all(&self) {
        self.accepted.fetch_max(self.given.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    pub(crate) fn counts(&self) -> Counts {
        Counts {
            last_seq: self.accepted.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            sampled_out: self.sampled_out.load(Ordering::Relaxed),
        }
    }
}

/// The models by name.
#[derive(Default)]
pub(crate) struct Models {
    by_name: RwLock<HashMap<String, Arc<Model>>>,
}

impl Models {
    pub(crate) fn get(&self, name: &str) -> Option<Arc<Model>> {
        self.by_name.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    pub(crate) fn add(&self, model: Arc<Model>) {
        self.by_name.write().unwrap_or_else(PoisonError::into_inner).insert(model.name.clone(), model);
    }

    /// All models, by name.
    pub(crate) fn all(&self) -> Vec<Arc<Model>> {
        let mut all: Vec<_> = self.by_name.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        all.sort_by(|left, right| left.name.cmp(&right.name));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_passes_in_multiples_of_five_minutes() {
        let between = |last, now| ticks(last, now).collect::<Vec<_>>();
        let none: [i64; 0] = [];
        assert_eq!(between(Some(0), 299_999), none);
        assert_eq!(between(Some(0), 300_000), [300_000]);
        assert_eq!(between(Some(300_000), 300_000), none);
        assert_eq!(between(Some(299_999), 900_001), [300_000, 600_000, 900_000]);
        assert_eq!(between(None, 300_001), none);
        assert_eq!(between(None, 300_000), [300_000]);
    }
}
