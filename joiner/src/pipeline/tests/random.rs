//! Random logs, read by random joiners: the tables must hold what the model says (`model`).
//!
//! A case is a number; from it follow the contract, the partitions, the log with its duplicates, re-sends, replacements,
//! retracts, late and lost records and outages, and how it is read: where batches are cut, when is committed and sealed, and
//! where a joiner ends and another goes on with an index of its own or an old one.

mod drawing;

use std::collections::BTreeMap;
use std::time::Duration;

use flywheel_schemas::contract::{Contract, Ids, Scalar};
use flywheel_schemas::gate::GateRecord;
use flywheel_schemas::wire::{self, Kind};
use futures::StreamExt as _;

use super::model::{Copy, Log, Tables, row_of_table};
use super::rig::{Rig, number, text};
use crate::decode::tests::oracle::Given;
use crate::label::{Op, Statement};
pub use drawing::Random;
use drawing::{CALLER, Entry, GATED, MANY, NEXT, Naming, ONE, TYPES, draw};

/// Cases in which something was wrong once.
const KNOWN: [u64; 0] = [];
/// In each run of the tests.
const CASES: u64 = 1000;
const AT_ONCE: usize = 3;

/// Appends the records, and says what they became.
async fn write(rig: &Rig, contracts: BTreeMap<i32, Contract>, entries: Vec<(i64, Entry)>) -> Log {
    let mut log = Log { contracts, ..Log::default() };
    let mut offsets: BTreeMap<(Kind, i32), i64> = BTreeMap::new();
    for number in 0..rig.partitions {
        log.times.insert(number, Default::default());
    }
    let mut next = |kind: Kind, number: i32| {
        let offset = offsets.entry((kind, number)).or_insert(0);
        *offset += 1;
        *offset - 1
    };
    let mut gates: BTreeMap<i32, Vec<(i64, GateRecord)>> = BTreeMap::new();
    for (time, entry) in entries {
        let mut passed = |kind: Kind, number: i32| {
            let times = &mut log.times.get_mut(&number).unwrap()[usize::from(kind == Kind::Outcomes)];
            times.push(time);
            next(kind, number)
        };
        match entry {
            Entry::Tick => {
                rig.tick(time).await;
                for number in 0..rig.partitions {
                    passed(Kind::Predictions, number);
                    passed(Kind::Outcomes, number);
                }
            }
            Entry::Gate(record, place) => {
                for number in (0..rig.partitions).filter(|number| place.is_none_or(|place| place == *number)) {
                    rig.append(Kind::Outcomes, number, time, None, &[(wire::GATE, &record.to_header())]).await;
                    passed(Kind::Outcomes, number);
                    gates.entry(number).or_default().push((time, record.clone()));
                }
            }
            Entry::Prediction(copy) => {
                let mut values = vec![
                    ("prediction_id", Scalar::String(copy.id.clone())),
                    ("event_time", Scalar::Timestamp(copy.event_ms * 1000)),
                    ("contract_version", Scalar::Int(copy.version)),
                    ("features.x", Scalar::Double(0.5)),
                ];
                values.extend(copy.exposure.map(|exposure| ("exposure", Scalar::String(exposure.to_owned()))));
                let value = rig.encode(Kind::Predictions, copy.version, &values);
                rig.append(Kind::Predictions, copy.partition, time, Some(&value), &[]).await;
                let offset = passed(Kind::Predictions, copy.partition);
                log.predictions.push(Copy { offset, ingest_ms: time, ..copy });
            }
            Entry::Outcome(id, statement) => {
                let value = outcome(rig, &id, &statement);
                rig.append(Kind::Outcomes, statement.partition, time, Some(&value), &[]).await;
                let offset = passed(Kind::Outcomes, statement.partition);
                log.statements.push((id, Statement { offset, ingest_time_ms: time, ..statement }));
            }
        }
    }
    log.gates = gates;
    log
}

fn outcome(rig: &Rig, id: &str, statement: &Statement) -> Vec<u8> {
    let text = |text: &str| Given::Scalar(Scalar::String(text.to_owned()));
    let mut values = vec![
        ("prediction_id".to_owned(), text(id)),
        ("event_id".to_owned(), text(&statement.event_id)),
        ("outcome_id".to_owned(), text(&statement.outcome_id)),
        ("revision".to_owned(), Given::Scalar(Scalar::Long(statement.revision))),
        ("op".to_owned(), text(statement.op.name())),
        ("op_time".to_owned(), Given::Scalar(Scalar::Timestamp(statement.op_time_us))),
        ("event_time".to_owned(), Given::Scalar(Scalar::Timestamp(statement.event_time_us))),
    ];
    let version = statement.contract_version.unwrap_or(1);
    values.push(("contract_version".to_owned(), Given::Scalar(Scalar::Int(version))));
    if statement.op == Op::Retract {
        let names = statement.labels.iter().map(|name| Scalar::String(name.clone())).collect();
        values.push(("labels".to_owned(), Given::List(names)));
    }
    for (name, value) in &statement.values {
        values.push((format!("label.{name}"), Given::Scalar(value.clone())));
    }
    rig.encode_given(Kind::Outcomes, version, values)
}

/// Reads the log to its end, by joiners that end somewhere.
async fn read(rig: &Rig, random: &mut Random) {
    let mut pipeline = rig.pipeline("a").await;
    let mut indexes = vec!["a"];
    // A tick record in every partition is most of what there is: some ticks at once, or an hour of them.
    let step = random.of(&[4, 12, 60]) * u64::from(rig.partitions.unsigned_abs());
    loop {
        let count = usize::try_from(1 + random.below(step)).unwrap();
        let records = pipeline.feed.poll(count, Duration::ZERO).await.unwrap();
        let is_over = records.is_empty() && pipeline.feed.at_end();
        pipeline.take(records).await.unwrap();
        if is_over || random.one_in(3) {
            pipeline.commit().await.unwrap();
            if is_over || random.one_in(2) {
                pipeline.seal().await.unwrap();
                if is_over || random.one_in(2) {
                    pipeline.follow().await.unwrap();
                    pipeline.expire_index().unwrap();
                }
            }
        }
        if is_over {
            return;
        }
        if random.one_in(20) {
            drop(pipeline);
            if indexes.len() == 1 {
                indexes.push("b");
            }
            pipeline = rig.pipeline(random.of(&indexes)).await;
        }
    }
}

async fn tables(rig: &Rig, contracts: &BTreeMap<i32, Contract>) -> Tables {
    let training = rig.rows("m_training").await;
    let revisions = rig.rows("m_label_revisions").await;
    let unmatched = rig.rows("m_unmatched").await;
    let counts = (training.len(), revisions.len(), unmatched.len());
    let told = Tables {
        training: training
            .iter()
            .map(|row| format!("{} offset {}", row_of_table(row, contracts), number::<i64>(&row["kafka_offset"])))
            .collect(),
        revisions: revisions.iter().map(|row| row_of_table(row, contracts)).collect(),
        unmatched: unmatched
            .iter()
            .map(|row| {
                let [id, event_id, reason] = ["prediction_id", "event_id", "reason"].map(|name| text(&row[name]));
                let offset = number::<i64>(&row["kafka_offset"]);
                format!("{id} {event_id} at {offset} {} {reason}", number::<i64>(&row["as_of"]) / 1000)
            })
            .collect(),
    };
    // Sets of different rows: no row is there twice.
    assert_eq!(counts, (told.training.len(), told.revisions.len(), told.unmatched.len()));
    told
}

/// A log that joiners have read to its end.
pub struct Case {
    pub rig: Rig,
    pub log: Log,
}

/// The case of a number, each prediction with an id of its own.
pub async fn case(number: u64) -> Case {
    case_with(number, Naming::Once).await
}

/// `caller`: how predictions are named where that is for callers to say.
async fn case_with(number: u64, caller: Naming) -> Case {
    let mut random = Random(number);
    let partitions = random.of(&[1, 1, 1, 4, 4, 4, 7, 16]);
    let first = random.of(&[ONE, MANY, TYPES, GATED, GATED, CALLER]);
    let mut contracts: BTreeMap<i32, Contract> = BTreeMap::new();
    let mut rig = Rig::with(partitions, first).await;
    let outcomes_max = if random.one_in(4) { 3 } else { 1000 };
    rig.limit(outcomes_max).await;
    contracts.insert(1, Contract::parse(first).unwrap());
    let is_minted = contracts[&1].ids == Ids::Minted;
    if random.one_in(3) {
        let next = if is_minted { NEXT.to_owned() } else { NEXT.replace("features:", "ids: caller\nfeatures:") };
        rig.register(&next).await;
        contracts.insert(2, Contract::parse(&next).unwrap());
    }
    let ids = if is_minted { Naming::Minted } else { caller };
    let entries = draw(&mut random, &contracts, partitions, ids);
    let mut log = write(&rig, contracts, entries).await;
    log.outcomes_max = outcomes_max;
    read(&rig, &mut random).await;
    Case { rig, log }
}

async fn check(number: u64) -> [usize; 3] {
    let Case { rig, log } = case_with(number, Naming::Again).await;
    let (found, expected) = (tables(&rig, &log.contracts).await, log.tables());
    for (name, found, expected) in [
        ("training", &found.training, &expected.training),
        ("revisions", &found.revisions, &expected.revisions),
        ("unmatched", &found.unmatched, &expected.unmatched),
    ] {
        let missing: Vec<_> = expected.difference(found).collect();
        let foreign: Vec<_> = found.difference(expected).collect();
        assert!(missing.is_empty() && foreign.is_empty(), "case {number}: {name} lacks {missing:#?}, has {foreign:#?}");
    }
    [found.training.len(), found.revisions.len(), found.unmatched.len()]
}

/// `FLYWHEEL_CASES=100000` makes the run long; `FLYWHEEL_CASE=n` repeats one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_tables_hold_what_the_model_says() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    if let Some(case) = number("FLYWHEEL_CASE") {
        check(case).await;
        return;
    }
    let seed = uuid::Uuid::new_v4().as_u64_pair().0 >> 1;
    let count = number("FLYWHEEL_CASES").unwrap_or(CASES);
    let mut rows = [0; 3];
    let cases = KNOWN.into_iter().chain(seed..seed + count);
    let mut checked = futures::stream::iter(cases.map(|case| tokio::spawn(check(case)))).buffer_unordered(AT_ONCE);
    while let Some(found) = checked.next().await {
        rows.iter_mut().zip(found.unwrap()).for_each(|(sum, found)| *sum += found);
    }
    println!("{count} cases from {seed}: {rows:?} rows of training, revisions, unmatched");
    assert!(rows.iter().all(|sum| *sum > 0), "{rows:?}");
}
