//! The rules of sealing, revising and unmatched statements a second time, tick by tick over the whole log: what the tables
//! must hold. It knows the log, the ids and the ticks, and shares no code with what it checks but the contract's own fields;
//! labels are evaluated by the naive rule of the label module's tests.

use std::collections::{BTreeMap, BTreeSet};

use flywheel_schemas::contract::{Contract, Gate, Ids, Label, LabelOwner, SealWhen};
use flywheel_schemas::gate::{Cause, GateRecord};

use super::rig::{MINUTE, at};
use crate::label::tests::naive;
use crate::label::{self, LabelState, Op, Statement};

/// A landed copy of a prediction.
#[derive(Debug, Clone)]
pub struct Copy {
    pub id: String,
    pub version: i32,
    pub event_ms: i64,
    pub exposure: Option<&'static str>,
    pub partition: i32,
    pub offset: i64,
    pub ingest_ms: i64,
}

/// All that is in the log, with ingest times as they are landed.
#[derive(Debug, Default)]
pub struct Log {
    pub contracts: BTreeMap<i32, Contract>,
    /// So many statements about a prediction count.
    pub outcomes_max: usize,
    pub predictions: Vec<Copy>,
    pub statements: Vec<(String, Statement)>,
    /// What was said of sources, by partition, with the ingest time, in order.
    pub gates: BTreeMap<i32, Vec<(i64, GateRecord)>>,
    /// Of every record, tick records included, by partition: of the predictions, of the outcomes.
    pub times: BTreeMap<i32, [Vec<i64>; 2]>,
}

/// What a table must hold: each row as text.
pub type Rows = BTreeSet<String>;

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Tables {
    pub training: Rows,
    pub revisions: Rows,
    pub unmatched: Rows,
}

struct Ticks {
    /// Up to the watermark.
    open: Vec<i64>,
}

impl Ticks {
    fn first(&self, holds: impl Fn(i64) -> bool) -> Option<i64> {
        self.open.iter().copied().find(|tick| holds(*tick))
    }
}

impl Log {
    pub fn tables(&self) -> Tables {
        let mut tables = Tables::default();
        for partition in self.times.keys() {
            let ticks = self.ticks(*partition);
            for first in self.firsts(*partition) {
                self.follow(&first, &ticks, &mut tables);
            }
            self.unplaced(*partition, &ticks, &mut tables);
        }
        tables
    }

    /// Grid and drain are one for all contracts of a model.
    fn seal(&self) -> (i64, i64) {
        let seal = &self.contracts[&1].seal;
        (seal.grid_ms, seal.drain_ms)
    }

    fn ticks(&self, partition: i32) -> Ticks {
        let (grid, drain) = self.seal();
        let [predictions, outcomes] = &self.times[&partition];
        let (Some(a), Some(b), Some(first)) = (predictions.last(), outcomes.last(), outcomes.first()) else {
            return Ticks { open: vec![] };
        };
        let barred = |tick: i64| {
            let gap = |pair: &[i64]| {
                let (g0, g1) = (pair[0], pair[1]);
                g1 - g0 > 5 * MINUTE && g0 < tick && tick <= g1 + drain.max((g1 - g0) / 8)
            };
            tick <= first + drain || outcomes.windows(2).any(gap)
        };
        let from = first.div_euclid(grid) * grid;
        let ticks = || (from..=*a.min(b)).step_by(usize::try_from(grid).unwrap());
        let mut shut: BTreeSet<i64> = ticks().filter(|tick| barred(*tick)).collect();
        for tick in ticks() {
            if self.is_silent(partition, tick) {
                shut.insert(tick);
            }
        }
        for tick in ticks().filter(|tick| self.is_dead(partition, *tick)) {
            let run = (0..).take_while(|n| shut.contains(&(tick - (n + 1) * grid))).count();
            let run = i64::try_from(run).unwrap();
            // What is barred from the beginning on is no run.
            let run = if tick - (run + 1) * grid < from { 1 } else { run + 1 };
            shut.extend(ticks().filter(|later| tick <= *later && *later <= tick + drain.max(run * grid / 8)));
        }
        Ticks { open: ticks().filter(|tick| !shut.contains(tick)).collect() }
    }

    /// The contract in force.
    fn in_force(&self, partition: i32, tick: i64) -> Option<&Contract> {
        let here = self.predictions.iter().filter(|copy| copy.partition == partition && copy.ingest_ms < tick);
        here.filter(|copy| copy.ingest_ms >= tick - 24 * 60 * MINUTE)
            .map(|copy| &self.contracts[&copy.version])
            .max_by_key(|c| c.version)
    }

    fn said(&self, partition: i32, tick: i64) -> impl Iterator<Item = &(i64, GateRecord)> {
        self.gates.get(&partition).into_iter().flatten().filter(move |(time, _)| *time < tick)
    }

    fn is_released(&self, partition: i32, tick: i64, by: &Cause) -> bool {
        let frees = |record: &GateRecord| matches!(record, GateRecord::Release { cause, through_ms } if cause == by && tick <= *through_ms);
        self.said(partition, tick).any(|(_, record)| frees(record))
    }

    /// Whether a source that must report has not done so.
    fn is_silent(&self, partition: i32, tick: i64) -> bool {
        let mut reports: BTreeMap<&String, i64> = BTreeMap::new();
        for (_, record) in self.said(partition, tick) {
            if let GateRecord::Progress { source, complete_through_ms } = record {
                let report = reports.entry(source).or_insert(i64::MIN);
                *report = (*report).max(*complete_through_ms);
            }
        }
        for label in self.in_force(partition, tick).iter().flat_map(|contract| &contract.labels) {
            if let Some(Gate::Progress { source }) = &label.gate {
                reports.entry(source).or_insert(i64::MIN);
            }
        }
        let (_, drain) = self.seal();
        let is_late = |complete: i64| complete < tick - drain - 5 * MINUTE;
        reports.into_iter().any(|(source, complete)| {
            is_late(complete) && !self.is_released(partition, tick, &Cause::Progress(source.clone()))
        })
    }

    /// Whether too few outcomes came in.
    fn is_dead(&self, partition: i32, tick: i64) -> bool {
        let (grid, _) = self.seal();
        let Some(contract) = self.in_force(partition, tick) else { return false };
        contract.labels.iter().any(|label| {
            let Some(Gate::Rate { per_prediction }) = label.gate else { return false };
            let count = |from: i64| {
                let is_in = |time: i64| from <= time && time < tick;
                let predictions =
                    self.predictions.iter().filter(|copy| copy.partition == partition && is_in(copy.ingest_ms)).count();
                let here = self.statements.iter().map(|(_, statement)| statement).filter(|s| s.partition == partition);
                let stated =
                    here.filter(|s| is_in(s.ingest_time_ms) && s.values.iter().any(|(name, _)| *name == label.name));
                (predictions as f64 * per_prediction, stated.count() as f64)
            };
            let spans = (1..=24 * 60 * MINUTE / grid).map(|n| n * grid).filter(|span| *span >= label.lateness_ms);
            let enough = spans.map(|span| count(tick - span)).find(|(asked, _)| *asked >= 10.0);
            enough.is_some_and(|(asked, came)| came < asked)
                && !self.is_released(partition, tick, &Cause::Rate(label.name.clone()))
        })
    }

    fn firsts(&self, partition: i32) -> Vec<Copy> {
        let here = || self.predictions.iter().filter(|copy| copy.partition == partition);
        let ids: BTreeSet<(&String, i64)> = here().map(|copy| (&copy.id, copy.event_ms)).collect();
        let first = |(id, event_ms): (&String, i64)| {
            let copies = here().filter(|copy| copy.id == *id && copy.event_ms == event_ms);
            copies.min_by_key(|copy| (copy.ingest_ms, copy.offset)).unwrap()
        };
        ids.into_iter().map(|id| first(id).clone()).collect()
    }

    /// The statements that count.
    pub fn about(&self, id: &str) -> Vec<Statement> {
        let all = self.statements.iter().filter(|(about, _)| about == id).map(|(_, statement)| statement);
        all.filter(|statement| self.counts(id, statement)).cloned().collect()
    }

    fn counts(&self, id: &str, statement: &Statement) -> bool {
        let place = |s: &Statement| (s.ingest_time_ms, s.offset);
        let before = self.statements.iter().filter(|(about, other)| about == id && place(other) < place(statement));
        before.count() < self.outcomes_max
    }

    fn longest(&self, contract: &Contract) -> i64 {
        let labels = contract.labels.iter().filter(|label| label.owner == LabelOwner::Streaming);
        labels.map(|label| close(contract, label)).max().unwrap_or(0)
    }

    /// The last tick at which the labels of a prediction may change, if the log has come so far.
    fn last(&self, copy: &Copy, ticks: &Ticks) -> Option<i64> {
        let contract = &self.contracts[&copy.version];
        let settled = (copy.event_ms + self.longest(contract)).max(copy.ingest_ms + self.seal().1);
        let settled = settled + contract.seal.horizon_ms;
        ticks.first(|tick| tick >= settled)
    }

    /// When a prediction is sealed by a contract, if the log has come so far.
    pub fn as_of(&self, copy: &Copy, contract: &Contract) -> Option<i64> {
        self.as_of_among(copy, contract, &self.ticks(copy.partition))
    }

    fn as_of_among(&self, copy: &Copy, contract: &Contract, ticks: &Ticks) -> Option<i64> {
        let (_, drain) = self.seal();
        let due = copy.event_ms
            + match &contract.seal.when {
                SealWhen::AllClosed => self.longest(contract),
                SealWhen::Label(name) => close(contract, contract.labels.iter().find(|l| l.name == *name).unwrap()),
            };
        ticks.first(|tick| tick >= due && tick > copy.ingest_ms + drain)
    }

    /// The base row and the revisions of one prediction.
    fn follow(&self, copy: &Copy, ticks: &Ticks, tables: &mut Tables) {
        let contract = &self.contracts[&copy.version];
        let Some(as_of) = self.as_of_among(copy, contract, ticks) else { return };
        let last = self.last(copy, ticks).unwrap_or(i64::MAX);
        let statements = self.about(&copy.id);
        let prediction = label::Prediction { event_time_ms: copy.event_ms, exposure: copy.exposure };
        let state = |tick| naive::evaluate(contract, &prediction, tick, &statements);
        let mut before = state(as_of);
        tables.training.insert(row(copy, as_of, contract, &before, true) + &format!(" offset {}", copy.offset));
        for tick in ticks.open.iter().copied().filter(|tick| as_of < *tick && *tick <= last) {
            let states = state(tick);
            let same = |(a, b): (&LabelState, &LabelState)| {
                a.status == b.status && format!("{:?}", a.value) == format!("{:?}", b.value)
            };
            if !states.iter().zip(&before).all(same) {
                tables.revisions.insert(row(copy, tick, contract, &states, false));
            }
            before = states;
        }
    }

    fn unplaced(&self, partition: i32, ticks: &Ticks, tables: &mut Tables) {
        let firsts = self.firsts(partition);
        let (_, drain) = self.seal();
        for (id, statement) in self.statements.iter().filter(|(_, statement)| statement.partition == partition) {
            let place = |s: &Statement| (s.ingest_time_ms, s.offset);
            let is_copy = |(other_id, other): &(String, Statement)| {
                other_id == id && other.event_id == statement.event_id && place(other) < place(statement)
            };
            if self.statements.iter().any(is_copy) {
                continue;
            }
            let stated = &self.contracts[&statement.contract_version.unwrap_or(1)];
            let time = match stated.ids {
                Ids::Minted => i64::from_str_radix(&id[..13].replace('-', ""), 16).unwrap(),
                Ids::Caller => statement.event_time_us.div_euclid(1000).min(statement.ingest_time_ms),
            };
            let over = time + self.longest(stated);
            let known = statement.ingest_time_ms;
            let Some(as_of) = ticks.first(|tick| tick > known + drain && tick >= over) else { continue };
            let is_of_batch = |contract: &Contract| {
                contract.labels.iter().any(|label| label.owner == LabelOwner::Batch && speaks(statement, label))
            };
            if is_of_batch(stated) {
                continue;
            }
            let about = || firsts.iter().filter(|copy| copy.id == *id && copy.ingest_ms < as_of);
            if about().any(|copy| is_of_batch(&self.contracts[&copy.version])) {
                continue;
            }
            let reasons: Vec<&str> = about().map(|copy| self.reason(id, statement, copy, ticks)).collect();
            let order = ["", "over_limit", "outside_window", "too_late", "unknown_label"];
            let reason = order.into_iter().find(|reason| reasons.contains(reason)).unwrap_or("no_prediction");
            if reason.is_empty() {
                continue;
            }
            tables.unmatched.insert(format!("{id} {} at {} {as_of} {reason}", statement.event_id, statement.offset));
        }
    }
}

impl Log {
    /// Why a statement has no place in a prediction; empty where it has one.
    fn reason(&self, id: &str, statement: &Statement, copy: &Copy, ticks: &Ticks) -> &'static str {
        let served = &self.contracts[&copy.version];
        let spoken: Vec<&Label> = served.labels.iter().filter(|label| speaks(statement, label)).collect();
        let t = statement.event_time_us.min(statement.ingest_time_ms * 1000);
        let is_in = |label: &&Label| {
            let from = (copy.event_ms - 5 * MINUTE) * 1000;
            statement.op == Op::Retract || (from <= t && t < (copy.event_ms + label.window_ms) * 1000)
        };
        if spoken.is_empty() {
            "unknown_label"
        } else if self.last(copy, ticks).is_some_and(|last| statement.ingest_time_ms >= last) {
            "too_late"
        } else if !spoken.iter().any(is_in) {
            "outside_window"
        } else if !self.counts(id, statement) {
            "over_limit"
        } else {
            ""
        }
    }
}

fn close(contract: &Contract, label: &Label) -> i64 {
    let own = label.window_ms + label.lateness_ms;
    let required = label.requires.as_ref().map(|name| contract.labels.iter().find(|l| l.name == *name).unwrap());
    required.map_or(own, |required| own.max(close(contract, required)))
}

fn speaks(statement: &Statement, label: &Label) -> bool {
    match statement.op {
        Op::Assert => statement.values.iter().any(|(name, _)| *name == label.name),
        Op::Retract => statement.labels.is_empty() || statement.labels.contains(&label.name),
    }
}

/// A row with its labels, those of batch jobs included or not.
fn row(copy: &Copy, as_of: i64, contract: &Contract, states: &[LabelState], with_batch: bool) -> String {
    let mut text = format!("{} of {} as of {as_of}:", copy.id, copy.event_ms);
    for (label, state) in contract.labels.iter().zip(states) {
        if label.owner == LabelOwner::Batch && !with_batch {
            continue;
        }
        let value = state.value.as_ref().map(crate::decode::tests::oracle::scalar_bits);
        let times = (state.at_us, state.known_at_ms.map(|ms| ms * 1000));
        text.push_str(&told(&label.name, value.as_deref(), state.status.name(), times));
    }
    text
}

/// One label of a row, as text.
pub fn told(name: &str, value: Option<&str>, status: &str, (at_us, known_at_us): (Option<i64>, Option<i64>)) -> String {
    format!(" {name} = {} {status} {at_us:?} {known_at_us:?};", value.unwrap_or("null"))
}

/// A row of a table in the words of [`row`].
pub fn row_of_table(cells: &BTreeMap<String, String>, contracts: &BTreeMap<i32, Contract>) -> String {
    let text = |name: &str| super::rig::text(&cells[name]);
    let time = |name: &str| cells.get(name).map(|cell| super::rig::number::<i64>(cell));
    let contract = &contracts[&super::rig::number::<i32>(&cells["contract_version"])];
    let of_ms = |name: &str| time(name).unwrap() / 1000;
    let mut told_row = format!("{} of {} as of {}:", text("prediction_id"), of_ms("event_time"), of_ms("as_of"));
    for Label { name, .. } in &contract.labels {
        let column = format!("label_{name}");
        let Some(status) = cells.get(&format!("{column}_status")) else { continue };
        told_row.push_str(&told(
            name,
            cells.get(&column).map(String::as_str),
            &super::rig::text(status),
            (time(&format!("{column}_at")), time(&format!("{column}_known_at"))),
        ));
    }
    assert_eq!(cells["as_of"], at(time("as_of").unwrap() / 1000));
    told_row
}
