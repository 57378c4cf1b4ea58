//! Which tick seals a prediction, and what its row holds.

use flywheel_schemas::contract::Scalar;

use super::rig::{MINUTE, Rig, START, at};
use super::*;

const NONE: Vec<rig::Row> = Vec::new();

#[tokio::test]
async fn a_prediction_is_sealed_at_the_first_tick_after_its_close_with_what_was_known() {
    let rig = Rig::new(1).await;
    rig.tick(START).await;
    let t = START + MINUTE;
    let id = rig.predict(1, t, t, 1.5).await;
    rig.ticks(START + 5 * MINUTE, START + 25 * MINUTE).await;
    rig.state("e1", &id, START + 30 * MINUTE, &[("label.won", Scalar::Boolean(true))]).await;
    rig.ticks(START + 30 * MINUTE, START + 80 * MINUTE).await;
    let mut pipeline = rig.pipeline("a").await;
    rig.run(&mut pipeline).await;
    assert_eq!(rig.rows("m_training").await, NONE, "the close is a minute after the last tick");
    rig.tick(START + 85 * MINUTE).await;
    // At the tick itself: not known before it.
    rig.state("e2", &id, START + 85 * MINUTE, &[("label.total", Scalar::Long(5))]).await;
    rig.run(&mut pipeline).await;
    rig.run(&mut pipeline).await;
    let rows = rig.rows("m_training").await;
    assert_eq!(rows.len(), 1);
    let row = &rows[0];
    assert_eq!(row["prediction_id"], format!("String({id:?})"));
    assert_eq!((&row["as_of"], &row["ingest_time"]), (&at(START + 85 * MINUTE), &at(t)));
    assert_eq!(
        (row["label_won"].as_str(), row["label_won_status"].as_str()),
        ("Boolean(true)", "String(\"observed\")")
    );
    assert_eq!(row["label_won_known_at"], at(START + 30 * MINUTE));
    assert_eq!((row.get("label_total"), row["label_total_status"].as_str()), (None, "String(\"missing\")"));
    assert_eq!(pipeline.training.property(COMPLETE_THROUGH).as_deref(), Some("2013-01-01T11:25:00+00:00"));
}

#[tokio::test]
async fn of_several_copies_the_first_counts_and_late_ones_give_no_second_row() {
    let rig = Rig::new(1).await;
    rig.tick(START).await;
    let t = START + MINUTE;
    for x in [1.0, 2.0, 1.0] {
        rig.predict(1, t, t, x).await;
    }
    rig.ticks(START + 5 * MINUTE, START + 90 * MINUTE).await;
    let mut pipeline = rig.pipeline("a").await;
    rig.run(&mut pipeline).await;
    for x in [1.0, 3.0] {
        rig.predict(1, t, START + 92 * MINUTE, x).await;
    }
    rig.ticks(START + 95 * MINUTE, START + 200 * MINUTE).await;
    rig.run(&mut pipeline).await;
    let rows = rig.rows("m_training").await;
    assert_eq!(rows.len(), 1);
    assert_eq!((rows[0]["x"].as_str(), rows[0]["kafka_offset"].as_str()), ("Double(3ff0000000000000)", "Long(1)"));
}

#[tokio::test]
async fn a_copy_with_another_content_is_counted_once() {
    let rig = Rig::new(1).await;
    let conflicts = || rig.metric("conflicting_duplicates_total{model=\"m\"}");
    rig.tick(START).await;
    let t = START + MINUTE;
    for x in [1.0, 2.0, 1.0] {
        rig.predict(1, t, t, x).await;
    }
    // A re-sent record differs in its coordinates alone.
    rig.predict(2, t, t, 5.0).await;
    rig.predict(2, t, t + MINUTE, 5.0).await;
    rig.ticks(START + 5 * MINUTE, START + 80 * MINUTE).await;
    let mut pipeline = rig.pipeline("a").await;
    rig.run(&mut pipeline).await;
    assert_eq!(conflicts(), 0.0, "nothing is sealed yet");
    rig.ticks(START + 85 * MINUTE, START + 90 * MINUTE).await;
    rig.run(&mut pipeline).await;
    assert_eq!(conflicts(), 1.0);
    // Two that come when the prediction is sealed already, one of them in conflict, are read with several ticks.
    for x in [1.0, 3.0] {
        rig.predict(1, t, START + 91 * MINUTE, x).await;
    }
    for minute in (95..=150).step_by(5) {
        rig.tick(START + minute * MINUTE).await;
        rig.run(&mut pipeline).await;
    }
    assert_eq!(conflicts(), 2.0);
    assert_eq!(rig.rows("m_training").await.len(), 2);
}

#[tokio::test]
async fn a_sum_that_leaves_its_type_is_null_and_flagged() {
    let rig = Rig::new(1).await;
    rig.tick(START).await;
    let t = START + MINUTE;
    let (over, within) = (rig.predict(1, t, t, 1.0).await, rig.predict(2, t, t, 1.0).await);
    for (event, id, value) in [("a", &over, i64::MAX), ("b", &over, 1), ("c", &within, i64::MAX)] {
        rig.state(event, id, START + 3 * MINUTE, &[("label.total", Scalar::Long(value))]).await;
    }
    rig.ticks(START + 5 * MINUTE, START + 90 * MINUTE).await;
    let mut pipeline = rig.pipeline("a").await;
    rig.run(&mut pipeline).await;
    let rows = rig.rows("m_training").await;
    let told = |row: &rig::Row| (row.get("label_total").cloned(), row.get("flags").cloned());
    let flagged = Some("[\"String(\\\"label_overflow:total\\\")\"]".to_owned());
    assert_eq!(told(&rows[0]), (None, flagged));
    assert_eq!(rows[0]["label_total_status"], "String(\"observed\")");
    assert_eq!(told(&rows[1]), (Some(format!("Long({})", i64::MAX)), None));
}

#[tokio::test]
async fn a_late_prediction_is_sealed_after_its_drain() {
    let rig = Rig::new(1).await;
    rig.ticks(START, START + 120 * MINUTE).await;
    let mut pipeline = rig.pipeline("a").await;
    rig.run(&mut pipeline).await;
    rig.predict(1, START, START + 122 * MINUTE, 1.0).await;
    rig.ticks(START + 125 * MINUTE, START + 130 * MINUTE).await;
    rig.run(&mut pipeline).await;
    assert_eq!(rig.rows("m_training").await, NONE);
    rig.tick(START + 135 * MINUTE).await;
    rig.run(&mut pipeline).await;
    let rows = rig.rows("m_training").await;
    assert_eq!(rows.iter().map(|row| row["as_of"].clone()).collect::<Vec<_>>(), [at(START + 135 * MINUTE)]);
}

#[tokio::test]
async fn a_gap_puts_off_what_would_be_sealed_in_it() {
    let rig = Rig::new(1).await;
    rig.ticks(START, START + 60 * MINUTE).await;
    rig.predict(1, START, START + 60 * MINUTE, 1.0).await;
    // Due at minute 80; the gap bars through 120 + max(10, 60 / 8) minutes.
    rig.ticks(START + 120 * MINUTE, START + 130 * MINUTE).await;
    let mut pipeline = rig.pipeline("a").await;
    rig.run(&mut pipeline).await;
    assert_eq!(rig.rows("m_training").await, NONE);
    assert_eq!(rig.metric("sealed_through_seconds"), (START + 130 * MINUTE) as f64 / 1000.0);
    rig.tick(START + 135 * MINUTE).await;
    // Another joiner goes on, which knows the gap from the seal log.
    drop(pipeline);
    rig.run(&mut rig.pipeline("b").await).await;
    let rows = rig.rows("m_training").await;
    assert_eq!(rows.iter().map(|row| row["as_of"].clone()).collect::<Vec<_>>(), [at(START + 135 * MINUTE)]);
}

#[tokio::test]
async fn what_follows_the_training_table_is_made_up_for_by_the_next_joiner() {
    let rig = Rig::new(1).await;
    let t = START + MINUTE;
    rig.tick(START).await;
    rig.predict(1, t, t, 1.0).await;
    rig.ticks(START + 5 * MINUTE, START + 90 * MINUTE).await;
    let mut first = rig.pipeline("a").await;
    rig::read(&mut first).await.unwrap();
    first.commit().await.unwrap();
    first.seal().await.unwrap();
    // It ends before the other two commits.
    drop(first);
    let through = async || crate::commands::status::completeness(&rig.shared.warehouse, "m").await.unwrap().through_ms;
    assert_eq!(through().await, None, "the training table alone says nothing");
    let mut second = rig.pipeline("b").await;
    rig::read(&mut second).await.unwrap();
    second.quiet = true;
    assert!(second.is_due(), "nothing new has come, and yet there is something to do");
    second.settle().await.unwrap();
    assert_eq!(through().await, Some(START + 90 * MINUTE));
    assert!(!second.is_due());
}

#[tokio::test]
async fn two_joiners_seal_a_tick_once() {
    let rig = Rig::new(2).await;
    rig.tick(START).await;
    let t = START + MINUTE;
    for n in 0..20 {
        rig.predict(n, t, t, 1.0).await;
    }
    rig.ticks(START + 5 * MINUTE, START + 90 * MINUTE).await;
    let (mut first, mut second) = (rig.pipeline("a").await, rig.pipeline("b").await);
    rig::read(&mut first).await.unwrap();
    first.commit().await.unwrap();
    rig::read(&mut second).await.unwrap();
    // The second owns one partition alone and finds everything landed.
    second.leave_partitions(&[1]).unwrap();
    second.commit().await.unwrap();
    rig.run(&mut second).await;
    let sealed = rig.rows("m_training").await.len();
    assert_eq!(sealed, rig.of_partition(0, t));
    first.seal().await.unwrap();
    assert_eq!(first.partitions[&1].done_ms, None, "nothing is done of what nobody sealed");
    first.seal().await.unwrap();
    assert_eq!(rig.rows("m_training").await.len(), 20);
}

#[tokio::test]
async fn a_tick_waits_until_both_topics_have_passed_it() {
    let rig = Rig::new(1).await;
    rig.tick(START).await;
    let t = START + MINUTE;
    let id = rig.predict(1, t, t, 1.0).await;
    for minute in (5..=90).step_by(5) {
        rig.append(Kind::Predictions, 0, START + minute * MINUTE, None, &[(wire::TICK, "")]).await;
    }
    let mut pipeline = rig.pipeline("a").await;
    let outcomes_through = async |from: i64, through: i64| {
        for minute in (from..=through).step_by(5) {
            rig.append(Kind::Outcomes, 0, START + minute * MINUTE, None, &[(wire::TICK, "")]).await;
        }
    };
    outcomes_through(5, 30).await;
    rig.run(&mut pipeline).await;
    assert_eq!(pipeline.partitions[&0].done_ms, Some(START + 30 * MINUTE));
    // What was known all the time, and was read late.
    rig.state("e", &id, START + 31 * MINUTE, &[("label.won", Scalar::Boolean(true))]).await;
    outcomes_through(35, 90).await;
    rig.run(&mut pipeline).await;
    let rows = rig.rows("m_training").await;
    assert_eq!((rows.len(), rows[0]["label_won"].as_str()), (1, "Boolean(true)"));
}
