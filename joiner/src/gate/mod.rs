//! The gate: no tick is open while a source of labels is dead, so that an outage of those who state outcomes does not
//! turn into negatives.
//!
//! A gap in an outcome partition shows that *nobody* wrote ([`crate::bar`]). The gate is for the case in which the log
//! goes on and one source is missing from it. What it bars is a function of the partition's records before the tick:
//! nothing is decided, so nothing has to be agreed upon. Whoever reads the same log bars the same ticks; the seal log
//! holds them for SQL. All counting is by ingest time.
//!
//! | cause | bars tick T |
//! |---|---|
//! | `progress:S`, S having reported ([`GateRecord::Progress`](flywheel_schemas::gate::GateRecord)) | where the greatest `complete_through` that S stated before T is more than 5 min + `drain` before T |
//! | `progress:S`, S being named by the contract in force | where S has stated nothing before T |
//! | `rate:L`, the contract in force asking for r outcomes with label L per prediction | where before T fewer than r for each prediction came in (`rate`), and after a run of such ticks for max(`drain`, an eighth of the run) |
//!
//! The contract in force at T is the greatest version of the predictions of the partition's last day. A person's
//! release lets ticks be open from its own append time through the instant that it names, whatever its cause says; the
//! other causes go on. A tick that was passed stays as it was.
//!
//! Why a label with a lateness of 5 min + `drain` or more needs no other wait for a source that reports: at an open tick T
//! the source has sent everything that happened before T − (5 min + `drain`), and of a prediction that is due at T the
//! window ended `lateness` before T.
//!
//! Where the state is: what was said ([`Said`]) is recorded in a property of the outcomes table, in the commit that
//! records the offsets; what is counted ([`Rates`]) is read from the raw tables again.

mod rate;
mod said;

use std::collections::{BTreeMap, BTreeSet};

use flywheel_schemas::contract::{Contract, Gate as LabelGate};
use flywheel_schemas::gate::Cause;
use flywheel_schemas::wire::Kind;
use futures::TryStreamExt;

use crate::bar::{Bar, Barred};
use crate::partition::Partition;
use crate::pipeline::{Pipeline, PipelineError};
use crate::table::Predicate;
pub(crate) use rate::{DAY_MS, Rates};
pub(crate) use said::Said;

/// The gate of one partition.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gate {
    /// What was said before the first record that is not landed.
    pub landed: Said,
    /// The same of the first record that is not read.
    pub read: Said,
    /// The last tick that was looked at.
    pub through_ms: Option<i64>,
    /// What barred it.
    pub causes: BTreeSet<Cause>,
}

impl Gate {
    pub fn new(landed: Said) -> Gate {
        Gate { read: landed.clone(), landed, ..Gate::default() }
    }
}

impl Pipeline {
    /// Looks at the ticks that what is landed has passed, and keeps in the seal log what bars them: before any of them is
    /// recorded as done.
    pub(crate) async fn gate(&mut self) -> Result<(), PipelineError> {
        let goals: BTreeMap<i32, i64> =
            self.partitions.iter().filter_map(|(number, part)| Some((*number, part.ready_ms()?))).collect();
        if goals.is_empty() {
            return Ok(());
        }
        if self.contracts.versions().any(|contract| is_gated(contract)) {
            self.count(goals.keys().copied().collect()).await?;
        }
        for (number, goal) in goals {
            let mut from = self.partitions.get(&number).and_then(|part| part.gate.through_ms.max(part.done_ms));
            // Before the first record everything is barred, so the first tick to be looked at is that after it.
            let counted = || self.rates.of(number).and_then(rate::Counts::first_ms);
            from = from.or_else(counted);
            let Some(from) = from else { continue };
            let mut tick = from + self.grid_ms;
            while tick <= goal {
                self.gate_tick(number, tick);
                tick += self.grid_ms;
            }
            if let Some(part) = self.partitions.get_mut(&number) {
                part.gate.through_ms = Some(goal);
            }
            self.rates.forget(number, goal);
        }
        self.keep_aside().await?;
        self.tell_causes();
        Ok(())
    }

    /// What bars one tick beyond what was barred when its records were read.
    fn gate_tick(&mut self, number: i32, tick: i64) {
        let Some(part) = self.partitions.get_mut(&number) else { return };
        let counts = self.rates.of(number);
        let contract =
            counts.and_then(|counts| counts.version(tick)).and_then(|version| self.contracts.version(version));
        let mut causes: BTreeSet<Cause> = part.gate.read.silent(tick, part.bars.allowance_ms()).collect();
        let labels = contract.iter().flat_map(|contract| &contract.labels);
        for label in labels {
            let (cause, through_ms) = match (&label.gate, counts) {
                (Some(LabelGate::Progress { source }), _) if !part.gate.read.is_heard(source, tick) => {
                    (Cause::Progress(source.clone()), tick)
                }
                (Some(LabelGate::Rate { per_prediction }), Some(counts))
                    if counts.is_dead(tick, &label.name, *per_prediction, label.lateness_ms) =>
                {
                    let run_ms = tick - part.bars.barred_since(tick - self.grid_ms).unwrap_or(tick - self.grid_ms);
                    (Cause::Rate(label.name.clone()), tick + self.drain_ms.max(run_ms / 8))
                }
                _ => continue,
            };
            if part.gate.read.is_released(&cause, tick) {
                continue;
            }
            let bar = Bar { after_ms: Some(tick - self.grid_ms), through_ms };
            if !part.bars.covers(&bar) {
                part.bars.add(bar);
                self.aside.bars.push(Barred { partition: number, bar, cause: cause.to_string() });
            }
            causes.insert(cause);
        }
        part.gate.causes = causes;
    }

    /// Reads the counts of partitions that have none from the raw tables.
    async fn count(&mut self, numbers: Vec<i32>) -> Result<(), PipelineError> {
        let new: Vec<i32> = numbers.into_iter().filter(|number| self.rates.of(*number).is_none()).collect();
        if new.is_empty() {
            return Ok(());
        }
        let done = |number: &i32| self.partitions.get(number).and_then(|part| part.done_ms);
        let oldest = new.iter().map(done).min().flatten();
        let recent = oldest.map_or(Predicate::All, |done| Predicate::IngestTimeFrom(done - DAY_MS));
        let labels = gated_labels(self.contracts.versions().map(AsRef::as_ref));
        // Apart from the others until all is read: a half that stayed after an error would be taken for the whole.
        let mut counted = Rates::new(self.grid_ms);
        for kind in [Kind::Predictions, Kind::Outcomes] {
            let table = &self.landings.get(kind).table;
            let columns = rate::columns(kind, &labels);
            let mine = Predicate::Or(new.iter().map(|number| Predicate::Partition(*number)).collect());
            let predicate = Predicate::And(vec![mine, recent.clone()]);
            let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
            let mut stream = Box::pin(table.scan(&columns, predicate).await?);
            while let Some(batch) = stream.try_next().await? {
                counted.add(kind, &batch, &labels, |number| new.contains(&number))?;
            }
        }
        for number in new {
            counted.begin(number);
        }
        self.rates.take_over(counted);
        Ok(())
    }

    /// Counts rows that were committed, of partitions that are counted.
    pub(crate) fn count_committed(&mut self, kind: Kind) -> Result<(), PipelineError> {
        if self.rates.is_empty() {
            return Ok(());
        }
        let labels = gated_labels(self.contracts.versions().map(AsRef::as_ref));
        let counted = self.rates.partitions();
        for batch in &self.landings.get(kind).batches {
            self.rates.add(kind, batch, &labels, |number| counted.contains(&number))?;
        }
        Ok(())
    }

    /// Sounds and ends the alarms.
    fn tell_causes(&mut self) {
        let mut barred: BTreeMap<&Cause, usize> = BTreeMap::new();
        for cause in self.partitions.values().flat_map(|part: &Partition| &part.gate.causes) {
            *barred.entry(cause).or_default() += 1;
        }
        self.metrics.gates(&self.model, &barred);
    }
}

fn is_gated(contract: &Contract) -> bool {
    contract.labels.iter().any(|label| label.gate.is_some())
}

/// The labels whose outcomes are counted.
fn gated_labels<'a>(contracts: impl Iterator<Item = &'a Contract>) -> BTreeSet<String> {
    let labels = contracts.flat_map(|contract| &contract.labels);
    let is_counted = |gate: &Option<LabelGate>| matches!(gate, Some(LabelGate::Rate { .. }));
    labels.filter(|label| is_counted(&label.gate)).map(|label| label.name.clone()).collect()
}
