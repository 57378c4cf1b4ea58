//! What a case of the random logs is made of: a contract, and records in the order of their times.

use std::collections::BTreeMap;

use flywheel_schemas::contract::{Contract, Scalar};
use flywheel_schemas::gate::GateRecord;
use flywheel_schemas::{id, partition};

use super::super::model::Copy;
use super::super::rig::{MINUTE, START};
use crate::label::{Op, Statement};

pub const ONE: &str = "
apiVersion: flywheel/v1
kind: ModelContract
model: m
version: 1
features: {x: {type: double}}
labels:
  won:   {type: boolean, window: 30m, lateness: 10m, aggregate: any, default: false}
  total: {type: long, window: 1h, lateness: 20m, aggregate: sum}
seal: {when: all_closed, grid: 5m, drain: 5m, horizon: 40m}
";

pub const MANY: &str = "
apiVersion: flywheel/v1
kind: ModelContract
model: m
version: 1
features: {x: {type: double}}
labels:
  seen:  {type: boolean, window: 10m, lateness: 5m, aggregate: any, default: false}
  won:   {type: boolean, window: 30m, lateness: 5m, aggregate: any, default: false, requires: seen}
  kept:  {type: boolean, window: 1h, lateness: 10m, aggregate: all}
  total: {type: long, window: 20m, lateness: 15m, aggregate: sum}
  last:  {type: double, window: 50m, lateness: 0m, aggregate: last}
  times: {type: long, window: 40m, lateness: 5m, aggregate: count, default: 0}
  later: {type: double, window: 2h, lateness: 10m, aggregate: last, owner: batch}
seal: {when: 'label:won', grid: 5m, drain: 5m, horizon: 30m}
";

/// A label of each type, and each way to choose one of many.
pub const TYPES: &str = "
apiVersion: flywheel/v1
kind: ModelContract
model: m
version: 1
features: {x: {type: double}, order: {type: string}}
labels:
  won:   {type: boolean, window: 30m, lateness: 10m, aggregate: any}
  least: {type: float, window: 40m, lateness: 10m, aggregate: min, requires: won}
  most:  {type: double, window: 40m, lateness: 10m, aggregate: max}
  price: {type: 'decimal(5,2)', window: 50m, lateness: 5m, aggregate: sum, default: '0.50'}
  dear:  {type: 'decimal(38,4)', window: 50m, lateness: 5m, aggregate: max}
  few:   {type: int, window: 50m, lateness: 5m, aggregate: sum, default: -1}
  word:  {type: string, window: 30m, lateness: 20m, aggregate: min, default: 'it''s \\ none'}
  bits:  {type: bytes, window: 30m, lateness: 20m, aggregate: last, default: 'AP8='}
  day:   {type: date, window: 1h, lateness: 5m, aggregate: first, default: '2013-01-31'}
  since: {type: timestamp, window: 1h, lateness: 5m, aggregate: last, default: '2013-01-31T00:00:00.000001Z'}
seal: {when: 'label:won', grid: 5m, drain: 5m, horizon: 40m}
";

/// Of which sources are asked for.
pub const GATED: &str = "
apiVersion: flywheel/v1
kind: ModelContract
model: m
version: 1
features: {x: {type: double}}
labels:
  won:   {type: boolean, window: 30m, lateness: 10m, aggregate: any, default: false, gate: {progress: wins}}
  total: {type: long, window: 30m, lateness: 20m, aggregate: sum, gate: {rate: 2.5}}
  times: {type: long, window: 20m, lateness: 5m, aggregate: count, default: 0, gate: {rate: 1.5}}
seal: {when: all_closed, grid: 5m, drain: 5m, horizon: 40m}
";

/// Of ids that say nothing.
pub const CALLER: &str = "
apiVersion: flywheel/v1
kind: ModelContract
model: m
version: 1
ids: caller
features: {x: {type: double}}
labels:
  won:   {type: boolean, window: 30m, lateness: 10m, aggregate: any, default: false}
  total: {type: long, window: 1h, lateness: 20m, aggregate: sum}
seal: {when: 'label:won', grid: 5m, drain: 5m, horizon: 40m}
";

/// What comes after any of them.
pub const NEXT: &str = "
apiVersion: flywheel/v1
kind: ModelContract
model: m
version: 2
features: {x: {type: double}}
labels:
  won:   {type: boolean, window: 20m, lateness: 10m, aggregate: any, default: false}
  total: {type: long, window: 1h, lateness: 20m, aggregate: sum}
  top:   {type: double, window: 45m, lateness: 5m, aggregate: max, gate: {rate: 1.2}}
seal: {when: all_closed, grid: 5m, drain: 5m, horizon: 40m}
";

/// SplitMix64 (Steele, Lea and Flood, 2014).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to before `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// Milliseconds; now and then whole minutes, and most of those on the grid, since ends of intervals are where rules break.
    fn minutes(&mut self, from: i64, to: i64) -> i64 {
        let span = u64::try_from((to - from) * MINUTE).unwrap();
        let time = from * MINUTE + i64::try_from(self.below(span)).unwrap();
        let snap = self.of(&[1, 1, MINUTE, 5 * MINUTE]);
        time.div_euclid(snap) * snap
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub fn of<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[usize::try_from(self.below(choices.len() as u64)).unwrap()].clone()
    }
}

/// The first tick at or after an instant: what is appended then is known after it, and drained at a tick.
fn on_grid(time_ms: i64) -> i64 {
    (time_ms + 5 * MINUTE - 1).div_euclid(5 * MINUTE) * 5 * MINUTE
}

/// How predictions are named.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Naming {
    Minted,
    /// By their callers, each by a name of its own.
    Once,
    /// By their callers, some by a name that another has.
    Again,
}

/// A record that is to be appended.
pub enum Entry {
    Prediction(Copy),
    Outcome(String, Statement),
    Tick,
    /// In one partition, or in all.
    Gate(GateRecord, Option<i32>),
}

/// The log of a case, and the records in the order of their times.
pub fn draw(
    random: &mut Random,
    contracts: &BTreeMap<i32, Contract>,
    partitions: i32,
    ids: Naming,
) -> Vec<(i64, Entry)> {
    let hours = 4 + i64::try_from(random.below(3)).unwrap();
    let mut entries: Vec<(i64, Entry)> = Vec::new();
    for tick in (0..=hours * 60).step_by(5) {
        entries.push((START + tick * MINUTE, Entry::Tick));
    }
    let home = |id: &str| partition::of(id.as_bytes(), partitions);
    for number in 0..3 + random.below(8) {
        let version = if random.one_in(4) { *contracts.keys().last().unwrap() } else { 1 };
        let event_ms = START + random.minutes(0, 90);
        let event_ms = if random.one_in(3) { event_ms / (5 * MINUTE) * 5 * MINUTE } else { event_ms };
        let id = match ids {
            Naming::Minted => id::from_parts(event_ms, [u8::try_from(number).unwrap(); 10]).to_string(),
            Naming::Once => format!("order {number}"),
            Naming::Again => format!("order {}", random.below(number + 1)),
        };
        let exposure = random.of(&[None, None, Some("served"), Some("holdout")]);
        let copy = Copy { partition: home(&id), id: id.clone(), version, event_ms, exposure, offset: 0, ingest_ms: 0 };
        let copies = random.of(&[0, 1, 1, 1, 1, 2, 3]);
        for _ in 0..copies {
            let delay = if random.one_in(4) { random.minutes(0, 200) } else { random.minutes(0, 3) };
            // Sometimes just when a tick, less the drain, is.
            let time = event_ms + delay;
            let time = if random.one_in(5) { on_grid(time) } else { time };
            entries.push((time, Entry::Prediction(copy.clone())));
        }
        let mut stated: Vec<Statement> = Vec::new();
        for fact in 0..random.below(6) {
            let version = if random.one_in(3) { *contracts.keys().last().unwrap() } else { version };
            let labels = &contracts[&version].labels;
            // Mostly within some window, sometimes far outside, sometimes at the first instant of one or the first after it.
            let edge = random.one_in(6).then(|| random.of(labels).window_ms);
            let event_ms = match edge {
                Some(window_ms) => event_ms + random.of(&[-5 * MINUTE, window_ms]),
                None if random.one_in(6) => event_ms + random.minutes(-20, 200),
                None => event_ms + random.minutes(-4, 50),
            };
            let micros = if edge.is_some() { random.of(&[0, -1]) } else { i64::try_from(random.below(1000)).unwrap() };
            let ingest_ms = event_ms.max(START)
                + match random.below(8) {
                    0 | 1 => random.minutes(0, 120),
                    2 => random.minutes(80, 220),
                    _ => random.minutes(0, 8),
                };
            // At a tick itself, which is not before it.
            let ingest_ms = if random.one_in(3) { on_grid(ingest_ms) } else { ingest_ms };
            // A clock that is ahead now and then.
            let event_ms = if random.one_in(10) { event_ms + 20 * MINUTE } else { event_ms };
            let op = if random.one_in(6) { Op::Retract } else { Op::Assert };
            let mut values = Vec::new();
            let mut names = Vec::new();
            for label in labels {
                if random.one_in(2) {
                    names.push(label.name.clone());
                    values.push((label.name.clone(), value_of(random, &label.ty)));
                }
            }
            values.sort_by(|(a, _), (b, _)| a.cmp(b));
            if values.is_empty() && op == Op::Assert {
                let label = &labels[0];
                values.push((label.name.clone(), value_of(random, &label.ty)));
            }
            let statement = Statement {
                // Unlike those about another prediction of the same id.
                event_id: format!("e{fact}.{number}"),
                // Some state the same fact again.
                outcome_id: format!("o{}", random.below(fact + 1)),
                revision: i64::try_from(random.below(3)).unwrap(),
                op,
                op_time_us: (START + random.minutes(0, 60)) * 1000,
                event_time_us: event_ms * 1000 + micros,
                ingest_time_ms: ingest_ms,
                partition: home(&id),
                offset: 0,
                contract_version: Some(version),
                labels: if op == Op::Retract && !random.one_in(3) { names } else { vec![] },
                values: if op == Op::Retract { vec![] } else { values },
            };
            stated.push(statement.clone());
            if random.one_in(4) {
                // A copy, or another content under a known id.
                let mut copy = random.of(&stated);
                copy.revision += i64::from(random.one_in(3));
                copy.ingest_time_ms = ingest_ms + random.minutes(0, 60);
                entries.push((copy.ingest_time_ms, Entry::Outcome(id.clone(), copy)));
            }
            entries.push((ingest_ms, Entry::Outcome(id.clone(), statement)));
        }
    }
    if random.one_in(2) {
        say(random, hours, partitions, &mut entries);
    }
    entries.retain(|(time, _)| (START..START + hours * 60 * MINUTE).contains(time));
    // An outage of all writers, or of some partitions.
    if random.one_in(2) {
        let from = START + random.minutes(20, 120);
        let to = from + random.minutes(6, 70);
        let shift = random.one_in(2);
        entries.retain_mut(|(time, entry)| {
            let is_in = from < *time && *time < to;
            if is_in && shift && !matches!(entry, Entry::Tick) {
                // It waited in a spool.
                *time = to;
                return true;
            }
            !is_in
        });
    }
    entries.sort_by_key(|(time, _)| *time);
    entries
}

/// Reports of sources, with pauses, and releases.
fn say(random: &mut Random, hours: i64, partitions: i32, entries: &mut Vec<(i64, Entry)>) {
    let one = |random: &mut Random| {
        random.one_in(8).then(|| i32::try_from(random.below(u64::from(partitions.unsigned_abs()))).unwrap())
    };
    let sources = random.of(&[&["wins"][..], &["wins", "other"]]);
    for source in sources {
        let mut time = START + random.minutes(0, 20);
        while time < START + hours * 60 * MINUTE {
            let complete_through_ms = time - random.minutes(0, 12);
            let record = GateRecord::Progress { source: (*source).to_owned(), complete_through_ms };
            entries.push((time, Entry::Gate(record, one(random))));
            time += if random.one_in(12) { random.minutes(10, 90) } else { random.minutes(0, 8) };
        }
    }
    for _ in 0..random.below(3) {
        let cause = random.of(&["progress:wins", "progress:other", "rate:total", "rate:times", "rate:top"]);
        let time = START + random.minutes(0, 200);
        let record = GateRecord::Release { cause: cause.parse().unwrap(), through_ms: time + random.minutes(-5, 90) };
        entries.push((time, Entry::Gate(record, one(random))));
    }
}

fn value_of(random: &mut Random, ty: &flywheel_schemas::types::Type) -> Scalar {
    use flywheel_schemas::types::Type;
    match ty {
        Type::Boolean => Scalar::Boolean(random.one_in(2)),
        Type::Long => random.of(&[Scalar::Long(1), Scalar::Long(-7), Scalar::Long(1 << 40), Scalar::Long(i64::MAX)]),
        Type::Int => Scalar::Int(random.of(&[0, 5, i32::MIN])),
        Type::Float => Scalar::Float(random.of(&[0.0, -0.0, 0.1, f32::NAN, f32::NEG_INFINITY])),
        Type::Decimal { precision: 38, .. } => {
            Scalar::Decimal(random.of(&[0, -5, 10_i128.pow(38) - 1, 1 - 10_i128.pow(38)]))
        }
        Type::Decimal { .. } => Scalar::Decimal(random.of(&[0, -5, 99_999, 12_345])),
        Type::String => Scalar::String(random.of(&["", "a", "B", "ä", "\u{1f40e}", "\u{ffee}"]).to_owned()),
        Type::Bytes => Scalar::Bytes(random.of(&[vec![], vec![0], vec![0, 255], vec![128]])),
        Type::Date => Scalar::Date(random.of(&[15_706, -719_162, 2_932_896])),
        Type::Timestamp => Scalar::Timestamp(random.of(&[START * 1000 + 1, -1, -62_135_596_800_000_000])),
        _ => Scalar::Double(random.of(&[0.0, -0.0, 1.5, f64::NAN, f64::INFINITY])),
    }
}
