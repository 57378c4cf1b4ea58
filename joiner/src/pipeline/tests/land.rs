//! What becomes of each record, and who lands it.

use flywheel_schemas::contract::Scalar;
use flywheel_schemas::id;

use super::rig::{CONTRACT, MINUTE, Rig, START, at, number, prediction, read};
use super::*;
use crate::table::Mark;

const SECOND_LABEL: &str = "  later: {type: boolean, window: 1h, lateness: 20m, aggregate: any, default: false}\nseal:";

#[tokio::test]
async fn each_bad_record_is_a_dead_letter_by_reason_and_its_neighbours_land() {
    let rig = Rig::new(1).await;
    let t = START + MINUTE;
    let good = rig.predict(1, t, t, 1.0).await;
    let id = |n: u8| id::from_parts(t, [n; 10]).to_string();
    let with = |n: u8, change: fn(&mut Vec<(&'static str, Scalar)>)| {
        let mut values = prediction(&id(n), t, 1.0);
        change(&mut values);
        rig.encode(Kind::Predictions, 1, &values)
    };
    let mut cut = with(2, |_| {});
    cut.pop();
    let mut unframed = with(3, |_| {});
    unframed[0] = 1;
    let bad: [(&str, Option<Vec<u8>>); 8] = [
        ("no_value", None),
        ("not_framed", Some(unframed)),
        ("undecodable", Some(cut)),
        ("invalid_id", Some(with(4, |values| values[0].1 = Scalar::String("one".to_owned())))),
        (
            "invalid_id",
            Some(with(5, |values| {
                values[0].1 = Scalar::String(id::from_parts(START + MINUTE, [250; 10]).to_string().to_uppercase())
            })),
        ),
        ("id_time_mismatch", Some(with(6, |values| values[1].1 = Scalar::Timestamp((START + MINUTE) * 1000 + 1)))),
        ("contract_version_mismatch", Some(with(7, |values| values[2].1 = Scalar::Int(99)))),
        (
            "event_time_ahead",
            Some(with(8, |values| {
                let ahead = START + 62 * MINUTE;
                *values = prediction(&id::from_parts(ahead, [8; 10]).to_string(), ahead, 1.0);
            })),
        ),
    ];
    for (_, value) in &bad {
        rig.append(Kind::Predictions, 0, t, value.as_deref(), &[]).await;
    }
    let last = rig.predict(9, t, t, 2.0).await;
    let mut pipeline = rig.pipeline("a").await;
    rig.run(&mut pipeline).await;

    let rows = rig.rows("m_predictions").await;
    let ids: Vec<String> = rows.iter().map(|row| row["prediction_id"].clone()).collect();
    assert_eq!(ids, [good, last].map(|id| format!("String({id:?})")));
    assert_eq!(
        (&rows[0]["x"], &rows[1]["x"]),
        (&"Double(3ff0000000000000)".to_owned(), &"Double(4000000000000000)".to_owned())
    );
    assert_eq!(rows[0]["ingest_time"], at(t));
    let letters = rig.rows("dead_letter").await;
    let reasons: Vec<String> = letters.iter().map(|letter| letter["reason"].clone()).collect();
    assert_eq!(reasons, bad.iter().map(|(reason, _)| format!("String({reason:?})")).collect::<Vec<_>>());
    assert_eq!(
        letters.iter().map(|letter| number(&letter["kafka_offset"])).collect::<Vec<i64>>(),
        (1..9).collect::<Vec<_>>()
    );
    // Every record is passed, by the same commit.
    let progress = pipeline.landings.predictions.table.progress().await.unwrap().unwrap();
    assert_eq!(progress.marks, BTreeMap::from([(0, Mark { next: 10, time_ms: t })]));
}

#[tokio::test]
async fn an_append_time_that_runs_back_is_raised() {
    let rig = Rig::new(1).await;
    let t = START + 10 * MINUTE;
    rig.predict(1, t, t, 1.0).await;
    rig.predict(2, t, t - MINUTE, 1.0).await;
    let mut pipeline = rig.pipeline("a").await;
    rig.run(&mut pipeline).await;
    let rows = rig.rows("m_predictions").await;
    assert_eq!([&rows[0]["ingest_time"], &rows[1]["ingest_time"]], [&at(t), &at(t)]);
}

#[tokio::test]
async fn an_unknown_schema_id_holds_its_partition_until_it_is_registered() {
    let mut rig = Rig::new(2).await;
    // A schema that is registered elsewhere: its id is known to nobody here yet.
    let second = CONTRACT.replace("version: 1", "version: 2").replace("seal:", SECOND_LABEL);
    let mut elsewhere = Rig::new(2).await;
    elsewhere.register(&second).await;
    let t = START + MINUTE;
    let by_partition = |number: i32| {
        let mut ids = (0..=255).map(|n| id::from_parts(t, [n; 10]).to_string());
        ids.find(|id| flywheel_schemas::partition::of(id.as_bytes(), 2) == number).unwrap()
    };
    let (held, free) = (by_partition(0), by_partition(1));
    let mut values = prediction(&held, t, 7.0);
    values[2].1 = Scalar::Int(2);
    rig.append(Kind::Predictions, 0, t, Some(&elsewhere.encode(Kind::Predictions, 2, &values)), &[]).await;
    let value = rig.encode(Kind::Predictions, 1, &prediction(&free, t, 8.0));
    rig.append(Kind::Predictions, 1, t, Some(&value), &[]).await;
    let mut pipeline = rig.pipeline("a").await;
    rig.run(&mut pipeline).await;
    let landed = || async { rig.rows("m_predictions").await.iter().map(|row| row["x"].clone()).collect::<Vec<_>>() };
    assert_eq!(landed().await, ["Double(4020000000000000)"]);
    assert_eq!(rig.metric("partition_waits{model=\"m\",kind=\"predictions\",partition=\"0\"}"), 1.0);
    assert!(rig.rows("dead_letter").await.is_empty());

    // What waits goes on waiting when another partition leaves, without another alarm.
    pipeline.leave_partitions(&[1]).unwrap();
    rig.run(&mut pipeline).await;
    assert_eq!(pipeline.held.keys().collect::<Vec<_>>(), [&(Kind::Predictions, 0)]);
    pipeline.leave_partitions(&[]).unwrap();
    rig.register(&second).await;
    for retry in pipeline.held.values_mut() {
        *retry = Instant::now();
    }
    pipeline.release_held().unwrap();
    rig.run(&mut pipeline).await;
    let rows = rig.rows("m_predictions").await;
    assert_eq!(
        rows.iter().map(|row| row["x"].as_str()).collect::<Vec<_>>(),
        ["Double(401c000000000000)", "Double(4020000000000000)"]
    );
    assert_eq!(rig.metric("partition_waits{model=\"m\",kind=\"predictions\",partition=\"0\"}"), 0.0);
    // The training table has gained the label before its first row.
    assert!(pipeline.training.arrow_schema().field_with_name("label_later_status").is_ok());
}

#[tokio::test]
async fn of_two_joiners_with_the_same_records_one_lands_them() {
    let rig = Rig::new(2).await;
    let t = START + MINUTE;
    for n in 0..20 {
        rig.predict(n, t, t, f64::from(n)).await;
    }
    rig.ticks(START, START + 30 * MINUTE).await;
    let (mut first, mut second) = (rig.pipeline("a").await, rig.pipeline("b").await);
    // The second owns one partition alone, so that its range is not that of the first.
    second.leave_partitions(&[1]).unwrap();
    read(&mut first).await.unwrap();
    read(&mut second).await.unwrap();
    second.commit().await.unwrap();
    first.commit().await.unwrap();
    assert_eq!(rig.metric("fenced_total{table=\"m_predictions\"}"), 1.0);
    assert_eq!(rig.rows("m_predictions").await.len(), rig.of_partition(0, t));
    rig.run(&mut first).await;
    let rows = rig.rows("m_predictions").await;
    let mut places: Vec<(i32, i64)> =
        rows.iter().map(|row| (number(&row["kafka_partition"]), number(&row["kafka_offset"]))).collect();
    assert_eq!(places.len(), 20);
    places.dedup();
    assert_eq!(places.len(), 20, "each record once");
    // What was never landed is read from its beginning, which is no gap.
    assert_eq!(rig.metric("gaps_total{model=\"m\"}"), 0.0);
    assert!(rig.rows("seal_log").await.iter().all(|row| row["cause"] == "String(\"start\")"));
}

#[tokio::test]
async fn a_joiner_that_was_overtaken_knows_the_gaps_of_what_it_did_not_read() {
    let rig = Rig::new(1).await;
    rig.tick(START).await;
    let mut stalled = rig.pipeline("a").await;
    rig.run(&mut stalled).await;
    rig.tick(START + 2 * MINUTE).await;
    read(&mut stalled).await.unwrap();
    rig.tick(START + 60 * MINUTE).await;
    rig.run(&mut rig.pipeline("b").await).await;

    stalled.commit().await.unwrap();
    let part = &stalled.partitions[&0];
    assert_eq!(part.outcomes.landed, Some(Mark { next: 3, time_ms: START + 60 * MINUTE }));
    assert_eq!(part.bars.last_open(START + 60 * MINUTE), None, "the gap reaches back to the start's bar");
    assert_eq!(part.bars.first_open(START + 20 * MINUTE, 0), START + 75 * MINUTE);
}

#[tokio::test]
async fn what_was_read_of_a_partition_that_left_is_not_committed() {
    let rig = Rig::new(2).await;
    let t = START + MINUTE;
    for n in 0..20 {
        rig.predict(n, t, t, f64::from(n)).await;
    }
    let mut pipeline = rig.pipeline("a").await;
    read(&mut pipeline).await.unwrap();
    pipeline.leave_partitions(&[0]).unwrap();
    rig.run(&mut pipeline).await;
    let rows = rig.rows("m_predictions").await;
    assert!(rows.iter().all(|row| row["kafka_partition"] == "Int(1)"));
    assert_eq!(rows.len(), rig.of_partition(1, t));
}

#[tokio::test]
async fn a_row_waits_for_the_columns_of_its_schema() {
    let mut rig = Rig::new(1).await;
    drop(rig.pipeline("a").await);
    let narrow = rig.shared.warehouse.load("m_predictions").await.unwrap().unwrap();
    let wide = CONTRACT.replace("version: 1", "version: 2").replace("{x: {", "{y: {type: string}, x: {");
    rig.register(&wide).await;
    let id = id::from_parts(START, [1; 10]).to_string();
    let mut values = prediction(&id, START, 1.0);
    values[2].1 = Scalar::Int(2);
    values.push(("features.y", Scalar::String("kept".to_owned())));
    rig.append(Kind::Predictions, 0, START, Some(&rig.encode(Kind::Predictions, 2, &values)), &[]).await;
    let mut pipeline = rig.pipeline("a").await;
    // As where the table was loaded before another joiner widened it.
    pipeline.landings.predictions.replace_table(narrow).unwrap();
    rig.run(&mut pipeline).await;
    assert_eq!(rig.rows("m_predictions").await[0]["y"], "String(\"kept\")");
}

#[tokio::test]
async fn a_time_that_the_broker_did_not_give_or_that_is_to_come_is_waited_for() {
    let rig = Rig::new(1).await;
    rig.predict(1, START, START, 1.0).await;
    let mut pipeline = rig.pipeline("a").await;
    let record = pipeline.feed.poll(1, Duration::ZERO).await.unwrap().remove(0);
    let mut config = Config::clone(&pipeline.config);
    config.log.url = "kafka://broker".to_owned();
    pipeline.config = Arc::new(config);
    let ahead_ms = chrono::Utc::now().timestamp_millis() + 10 * MINUTE;
    for (time_by_log, time_ms, waits) in [(false, START, true), (true, ahead_ms, true), (true, START, false)] {
        let record = crate::source::Record { time_by_log, time_ms, ..record.clone() };
        pipeline.take(vec![record]).await.unwrap();
        let side = &mut pipeline.partitions.get_mut(&0).unwrap().predictions;
        assert_eq!(side.waits_for.take(), waits.then_some(0), "{time_by_log} {time_ms}");
        assert_eq!(side.read.is_none(), waits);
    }
}
