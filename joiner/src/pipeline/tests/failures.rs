//! Faults in the way of a record, each with what must not come of it. What is shown elsewhere:
//!
//! | what goes wrong | test |
//! |---|---|
//! | an outcome within its window, the prediction after it | `an_outcome_that_comes_before_its_prediction_…` here |
//! | an idle partition, records of long ago after it | `a_partition_that_slept_…` here; on a broker `joiner::partitions_that_stand_still_…` |
//! | a rebalance in the middle of a commit, files named twice | `joiners::three_joiners_do_what_one_does_…` |
//! | a death between file and commit | `a_joiner_that_dies_between_file_and_commit_…` here |
//! | an answer that is lost, 5xx or late, the commit being applied | `joiners::three_joiners_do_what_one_does_…`, `table::a_lost_answer_…`, `table::a_request_that_was_delayed_…` |
//! | records that went before they were landed | `alarms::records_that_went_…` on a broker |
//! | a topic deleted and made anew | `alarms::a_topic_that_was_made_anew_…` here and on a broker |
//! | a topic deleted while no joiner runs | `missing::a_table_without_its_topic_…` |
//! | an index of two hours ago, one ahead of its table | `an_index_of_long_ago_…` here, `alarms::a_raw_table_behind_…` |
//! | an index with a flipped byte, or on a full disk | `upkeep::a_damaged_index_…`, `joiners::three_joiners_do_what_one_does_…` |
//! | state of keys that are never touched again | `state_of_predictions_that_nobody_touches_…` here, `upkeep::a_full_index_…` |
//! | delete files that do not apply | none are ever written: `joiners::three_joiners_do_what_one_does_…` |
//! | one id under two model versions | `seal::a_copy_with_another_content_…` |
//! | a producer with another partitioner | `joiner::partitions_that_stand_still_…_and_a_record_out_of_place_…` on a broker |
//! | more partitions | `alarms::more_partitions_…` here and on a broker |
//! | expiry takes the last snapshot with progress | `table::progress_outlives_snapshots_of_other_writers_…`, `joiners::spark_keeps_house_…` |
//! | a retract before its assert, a statement after the last tick | `random` (all orders), `journey::what_is_stated_after_…` |
//! | tick arithmetic that differs by engine | `audit`, `random` (times on the edge), `views::agree` |
//! | a producer's transaction that stays open | `alarms::a_transaction_that_is_open_…` on a broker |
//! | a table rolled back, dropped, or with other columns | `alarms` here, and on servers |

use flywheel_schemas::contract::Scalar;
use flywheel_schemas::id;

use super::rig::{MINUTE, Rig, START, number, read};
use super::*;

const WON: [(&str, Scalar); 1] = [("label.won", Scalar::Boolean(true))];

#[tokio::test]
async fn an_outcome_that_comes_before_its_prediction_gives_one_row_with_the_label() {
    let rig = Rig::new(1).await;
    rig.tick(START).await;
    let t = START + MINUTE;
    let id = id::from_parts(t, [1; 10]).to_string();
    rig.state("e", &id, t + 50 * MINUTE, &WON).await;
    rig.ticks(START + 55 * MINUTE, START + 120 * MINUTE).await;
    let mut pipeline = rig.pipeline("a").await;
    rig.run(&mut pipeline).await;
    assert!(rig.rows("m_training").await.is_empty());
    // Long after its window, with other partitions' ticks having passed it.
    assert_eq!(rig.predict(1, t, START + 121 * MINUTE, 1.0).await, id);
    rig.ticks(START + 125 * MINUTE, START + 150 * MINUTE).await;
    rig.run(&mut pipeline).await;
    let rows = rig.rows("m_training").await;
    assert_eq!(rows.len(), 1);
    assert_eq!(
        (rows[0]["label_won"].as_str(), rows[0]["label_won_status"].as_str()),
        ("Boolean(true)", "String(\"observed\")")
    );
}

#[tokio::test]
async fn a_partition_that_slept_holds_up_no_other_and_loses_nothing() {
    let rig = Rig::new(2).await;
    rig.tick(START).await;
    let t = START + 5 * MINUTE;
    let put = async |partition: i32, append_ms: i64| {
        for n in 0..20 {
            let id = id::from_parts(t, [n; 10]).to_string();
            if flywheel_schemas::partition::of(id.as_bytes(), 2) == partition {
                rig.predict(n, t, append_ms, f64::from(n)).await;
            }
        }
    };
    put(0, t).await;
    for time_ms in (START + 5 * MINUTE..START + 360 * MINUTE).step_by(300_000) {
        for (kind, partition) in [(Kind::Predictions, 0), (Kind::Outcomes, 0), (Kind::Outcomes, 1)] {
            rig.append(kind, partition, time_ms, None, &[(wire::TICK, "")]).await;
        }
    }
    let mut pipeline = rig.pipeline("a").await;
    rig.run(&mut pipeline).await;
    let sealed = |rows: &[rig::Row], partition: i32| {
        rows.iter().filter(|row| number::<i32>(&row["kafka_partition"]) == partition).count()
    };
    let rows = rig.rows("m_training").await;
    assert_eq!((sealed(&rows, 0), sealed(&rows, 1)), (rig.of_partition(0, t), 0));
    // Those of the other partition have waited for six hours to reach the log.
    put(1, START + 360 * MINUTE).await;
    rig.ticks(START + 360 * MINUTE, START + 400 * MINUTE).await;
    rig.run(&mut pipeline).await;
    let rows = rig.rows("m_training").await;
    assert_eq!((sealed(&rows, 0), sealed(&rows, 1)), (rig.of_partition(0, t), rig.of_partition(1, t)));
}

#[tokio::test]
async fn a_joiner_that_dies_between_file_and_commit_leaves_its_records_to_the_next() {
    let rig = Rig::new(1).await;
    rig.tick(START).await;
    let t = START + MINUTE;
    let id = rig.predict(1, t, t, 1.0).await;
    rig.state("e", &id, t + MINUTE, &WON).await;
    rig.ticks(START + 5 * MINUTE, START + 90 * MINUTE).await;
    let mut pipeline = rig.pipeline("a").await;
    read(&mut pipeline).await.unwrap();
    for kind in [Kind::Predictions, Kind::Outcomes] {
        let landing = pipeline.landings.get_mut(kind);
        landing.cut().unwrap();
        assert_eq!(landing.files().await.unwrap().len(), 1);
    }
    drop(pipeline);
    rig.run(&mut rig.pipeline("a").await).await;
    for table in ["m_predictions", "m_outcomes", "m_training"] {
        assert_eq!(rig.rows(table).await.len(), 1, "{table}");
    }
}

#[tokio::test]
async fn an_index_of_long_ago_changes_nothing() {
    let rig = Rig::new(1).await;
    rig.tick(START).await;
    let t = START + MINUTE;
    let ids = [rig.predict(1, t, t, 1.0).await, rig.predict(2, t, t, 2.0).await];
    rig.state("e", &ids[0], t + MINUTE, &WON).await;
    let mut pipeline = rig.pipeline("a").await;
    rig.run(&mut pipeline).await;
    drop(pipeline);
    let (index, kept) = (rig.dir.path().join("a"), rig.dir.path().join("kept"));
    copy(&index, &kept);
    rig.state("f", &ids[1], t + 2 * MINUTE, &WON).await;
    rig.ticks(START + 5 * MINUTE, START + 60 * MINUTE).await;
    let mut pipeline = rig.pipeline("a").await;
    rig.run(&mut pipeline).await;
    drop(pipeline);
    std::fs::remove_dir_all(&index).unwrap();
    copy(&kept, &index);

    rig.ticks(START + 65 * MINUTE, START + 90 * MINUTE).await;
    rig.run(&mut rig.pipeline("a").await).await;
    let rows = rig.rows("m_training").await;
    assert_eq!(rows.iter().map(|row| row["label_won"].as_str()).collect::<Vec<_>>(), ["Boolean(true)"; 2]);
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy(&entry.path(), &to),
            false => drop(std::fs::copy(entry.path(), to).unwrap()),
        }
    }
}

#[tokio::test]
async fn state_of_predictions_that_nobody_touches_again_goes_by_itself() {
    const COUNT: usize = 2_000;
    let rig = Rig::new(1).await;
    rig.tick(START).await;
    for n in 0..COUNT as i64 {
        let id = id::from_parts(START + n, [1; 10]).to_string();
        rig.state("e", &id, START + MINUTE, &WON).await;
    }
    let mut pipeline = rig.pipeline("a").await;
    rig.run(&mut pipeline).await;
    let known = |pipeline: &Pipeline| pipeline.index.ids(0, i64::MAX, i64::MAX).unwrap().len();
    assert_eq!(known(&pipeline), COUNT);
    // Horizon a day: two of them, and no record but ticks.
    rig.ticks(START + 5 * MINUTE, START + 2 * 24 * 60 * MINUTE).await;
    rig.run(&mut pipeline).await;
    pipeline.expire_index().unwrap();
    assert_eq!(known(&pipeline), 0);
}
