//! A dead source of labels: no negatives while it is, the right labels when it is back.

use flywheel_schemas::contract::Scalar;
use flywheel_schemas::gate::GateRecord;

use super::rig::{MINUTE, Rig, Row, START, text};
use super::*;

const BY_RATE: &str = "
apiVersion: flywheel/v1
kind: ModelContract
model: m
version: 1
features: {x: {type: double}}
prediction: {p: {type: double}}
labels:
  won: {type: boolean, window: 20m, lateness: 15m, aggregate: any, default: false, gate: {rate: 0.5}}
seal: {when: all_closed, grid: 5m, drain: 10m, horizon: 1d}
";

const BY_REPORT: &str = "
apiVersion: flywheel/v1
kind: ModelContract
model: m
version: 1
features: {x: {type: double}}
prediction: {p: {type: double}}
labels:
  won: {type: boolean, window: 20m, lateness: 15m, aggregate: any, default: false, gate: {progress: wins}}
seal: {when: all_closed, grid: 5m, drain: 10m, horizon: 1d}
";

/// Predictions each five minutes, whose outcomes come ten minutes later, or all at `back` where they were due from
/// `dead` on. Ends at minute 400; records whatever `also` has to say, a report each five minutes where it says so.
async fn log(rig: &Rig, dead: i64, back: i64, reports: bool, also: Option<(i64, GateRecord)>) {
    let mut waiting = Vec::new();
    for minute in (0..=400).step_by(5) {
        let now = START + minute * MINUTE;
        rig.tick(now).await;
        if let Some((_, record)) = also.as_ref().filter(|(at, _)| *at == minute) {
            rig.say(now + 1, record).await;
        }
        let is_dead = (dead..back).contains(&minute);
        let mut outcomes: Vec<(String, i64)> = Vec::new();
        for n in 0..8 {
            outcomes.extend((10..310).contains(&minute).then(|| (Rig::id(n, now - 10 * MINUTE), now)));
            if minute < 300 {
                rig.predict(n, now, now + 2, 1.0).await;
            }
        }
        if is_dead {
            waiting.append(&mut outcomes);
        } else {
            outcomes.append(&mut waiting);
        }
        for (id, at) in outcomes {
            rig.state_late(&format!("e-{id}"), &id, at, now + 3, &[("label.won", Scalar::Boolean(true))]).await;
        }
        if reports && !is_dead {
            let record = GateRecord::Progress { source: "wins".to_owned(), complete_through_ms: now };
            rig.say(now + 4, &record).await;
        }
    }
}

fn statuses(rows: &[Row]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for row in rows {
        *counts.entry(text(&row["label_won_status"])).or_default() += 1;
    }
    counts
}

async fn causes(rig: &Rig) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for row in rig.rows("seal_log").await {
        *counts.entry(text(&row["cause"])).or_default() += 1;
    }
    counts
}

#[tokio::test]
async fn a_source_that_stops_in_silence_makes_no_negatives() {
    let ungated = BY_RATE.replace(", gate: {rate: 0.5}", "");
    for (contract, negatives) in [(BY_RATE, false), (&ungated, true)] {
        let rig = Rig::with(1, contract).await;
        log(&rig, 100, 200, false, None).await;
        let mut pipeline = rig.pipeline("a").await;
        rig.run(&mut pipeline).await;
        let statuses = statuses(&rig.rows("m_training").await);
        assert_eq!(statuses.values().sum::<usize>(), 8 * 60, "{statuses:?}");
        assert_eq!(statuses.contains_key("default"), negatives, "{statuses:?}");
        assert_eq!(causes(&rig).await.contains_key("rate:won"), !negatives);
    }
}

#[tokio::test]
async fn a_source_that_reports_is_held_to_its_word() {
    let rig = Rig::with(1, BY_REPORT).await;
    log(&rig, 100, 200, true, None).await;
    // One that ends in the middle, and whoever comes after it.
    let mut pipeline = rig.pipeline("a").await;
    let records = pipeline.feed.poll(1500, TURN).await.unwrap();
    pipeline.take(records).await.unwrap();
    pipeline.commit().await.unwrap();
    pipeline.seal().await.unwrap();
    drop(pipeline);
    let mut pipeline = rig.pipeline("b").await;
    rig.run(&mut pipeline).await;
    assert_eq!(statuses(&rig.rows("m_training").await), BTreeMap::from([("observed".to_owned(), 480)]));
    // It says nothing from minute 95 to 200, and nothing is open from 95 + 15 on.
    let open =
        |minute: i64| pipeline.partitions[&0].bars.last_open(START + minute * MINUTE) == Some(START + minute * MINUTE);
    let barred: Vec<i64> = (50..=400).step_by(5).filter(|minute| !open(*minute)).collect();
    assert_eq!((barred.first(), barred.last()), (Some(&115), Some(&200)));
    assert!(rig.metric("gate_barred_partitions").abs() < 0.5);
}

#[tokio::test]
async fn a_source_that_was_never_heard_bars_every_tick_until_a_person_says_otherwise() {
    let rig = Rig::with(1, BY_REPORT).await;
    let through_ms = START + 600 * MINUTE;
    let release = GateRecord::Release { cause: "progress:wins".parse().unwrap(), through_ms };
    log(&rig, 0, 0, false, Some((250, release))).await;
    let mut pipeline = rig.pipeline("a").await;
    rig.run(&mut pipeline).await;
    let rows = rig.rows("m_training").await;
    assert_eq!(rows.len(), 480);
    let earliest = rows.iter().map(|row| rig::number::<i64>(&row["as_of"])).min().unwrap();
    assert_eq!(earliest, (START + 255 * MINUTE) * 1000);
}

#[tokio::test]
async fn an_alarm_is_up_while_a_source_is_dead() {
    let rig = Rig::with(1, BY_RATE).await;
    log(&rig, 100, 1000, false, None).await;
    let mut pipeline = rig.pipeline("a").await;
    rig.run(&mut pipeline).await;
    assert!((rig.metric("gate_barred_partitions") - 1.0).abs() < 0.5, "predictions of the last day ask for outcomes");
}

#[tokio::test]
async fn a_count_that_failed_in_its_middle_is_made_anew() {
    let mut seen = Vec::new();
    for is_broken in [false, true] {
        let rig = Rig::with(1, BY_RATE).await;
        log(&rig, 0, 0, false, None).await;
        let mut pipeline = rig.pipeline("a").await;
        rig::read(&mut pipeline).await.unwrap();
        pipeline.commit().await.unwrap();
        drop(pipeline);
        let mut pipeline = rig.pipeline("a").await;
        if is_broken {
            // Predictions are counted, outcomes cannot be.
            let outcomes = rig.files("m_outcomes", ".parquet");
            assert!(!outcomes.is_empty());
            for file in &outcomes {
                std::fs::rename(file, file.with_extension("away")).unwrap();
            }
            assert!(pipeline.seal().await.is_err());
            for file in &outcomes {
                std::fs::rename(file.with_extension("away"), file).unwrap();
            }
        }
        rig.run(&mut pipeline).await;
        assert_eq!(rig.rows("m_training").await.len(), 480);
        let bars = rig.rows("seal_log").await;
        seen.push(bars.into_iter().map(|bar| (text(&bar["cause"]), bar["closed_through"].clone())).collect::<Vec<_>>());
    }
    assert_eq!(seen[0], seen[1]);
}

#[tokio::test]
async fn a_label_that_a_later_contract_gates_is_counted_from_before_it_on() {
    let first = BY_RATE.replace(", gate: {rate: 0.5}", "").replace(
        "labels:\n",
        "labels:\n  seen: {type: boolean, window: 20m, lateness: 15m, aggregate: any, gate: {rate: 0.001}}\n",
    );
    let second =
        first.replace("version: 1", "version: 2").replace("default: false", "default: false, gate: {rate: 0.5}");
    let mut rig = Rig::with(1, &first).await;
    let mut pipeline = rig.pipeline("a").await;
    for minute in (0..=100).step_by(5) {
        let now = START + minute * MINUTE;
        if minute == 50 {
            rig.run(&mut pipeline).await;
            rig.register(&second).await;
        }
        rig.tick(now).await;
        for n in 0..8 {
            let id = rig.predict(n, now, now + 1, 1.0).await;
            rig.state_late(&format!("e-{id}"), &id, now, now + 2, &[("label.won", Scalar::Boolean(true))]).await;
        }
        if minute >= 50 {
            let mut values = rig::prediction(&Rig::id(9, now), now, 1.0);
            values[2].1 = Scalar::Int(2);
            let value = rig.encode(Kind::Predictions, 2, &values);
            rig.append(Kind::Predictions, 0, now + 3, Some(&value), &[]).await;
        }
    }
    rig.run(&mut pipeline).await;
    assert_eq!(pipeline.rates.of(0).and_then(|counts| counts.version(START + 100 * MINUTE)), Some(2));
    assert_eq!(causes(&rig).await.get("rate:won"), None, "its source was never silent");
}

#[tokio::test]
async fn what_is_no_gate_record_is_a_dead_letter() {
    let rig = Rig::with(1, BY_REPORT).await;
    rig.tick(START).await;
    rig.append(Kind::Outcomes, 0, START + 1, None, &[(wire::GATE, "{}")]).await;
    rig.tick(START + MINUTE).await;
    let mut pipeline = rig.pipeline("a").await;
    rig.run(&mut pipeline).await;
    let letters = rig.rows("dead_letter").await;
    assert_eq!(letters.len(), 1);
    assert_eq!(text(&letters[0]["reason"]), "invalid_gate_record");
}
