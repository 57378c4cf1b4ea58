//! Commits that fail for a while, tables that grow, topics that stand still.

use sqlx::Connection as _;

use super::rig::{MINUTE, Rig, START, read};
use super::*;

const DAY_MS: i64 = 24 * 60 * MINUTE;

/// Lets the catalog refuse every commit to a table, or no more.
async fn execute(rig: &Rig, statement: &str) {
    let url = format!("sqlite:{}", rig.dir.path().join("catalog.db").display());
    let mut connection = sqlx::SqliteConnection::connect(&url).await.unwrap();
    sqlx::query(statement).execute(&mut connection).await.unwrap();
}

async fn take_away(rig: &Rig, name: &str) {
    let refuse = "BEGIN SELECT RAISE(ABORT, 'away'); END";
    let when = format!("WHEN NEW.table_name = '{name}'");
    execute(rig, &format!("CREATE TRIGGER away_{name} BEFORE UPDATE ON iceberg_tables {when} {refuse}")).await;
}

async fn bring_back(rig: &Rig, name: &str) {
    execute(rig, &format!("DROP TRIGGER away_{name}")).await;
}

/// A turn for which nothing waits.
async fn turn_now(pipeline: &mut Pipeline) -> Result<(), PipelineError> {
    if let Some(put_off) = &mut pipeline.put_off {
        put_off.retry_at = Instant::now();
    }
    pipeline.turn().await
}

#[tokio::test]
async fn a_commit_that_fails_is_tried_again_with_the_same_batch_and_the_same_files() {
    let rig = Rig::new(1).await;
    rig.tick(START).await;
    let t = START + MINUTE;
    let id = rig.predict(1, t, t, 1.0).await;
    rig.state("e", &id, START + 2 * MINUTE, &[("label.won", flywheel_schemas::contract::Scalar::Boolean(true))]).await;
    rig.ticks(START + 5 * MINUTE, START + 90 * MINUTE).await;
    let mut pipeline = rig.pipeline("a").await;
    read(&mut pipeline).await.unwrap();
    for name in ["m_predictions", "m_outcomes"] {
        take_away(&rig, name).await;
    }
    pipeline.settle().await.unwrap();
    turn_now(&mut pipeline).await.unwrap();
    assert_eq!(rig.metric("commits_put_off_total{model=\"m\"}"), 2.0);
    // Nothing is read into a batch that may be committed already.
    let before = pipeline.partitions[&0].predictions.read;
    rig.predict(2, t, START + 90 * MINUTE, 1.0).await;
    turn_now(&mut pipeline).await.unwrap();
    assert_eq!(pipeline.partitions[&0].predictions.read, before);
    assert_eq!(rig.files("m_outcomes", ".parquet").len(), 1);

    bring_back(&rig, "m_outcomes").await;
    turn_now(&mut pipeline).await.unwrap();
    assert!(pipeline.put_off.is_some(), "one table is still away");
    bring_back(&rig, "m_predictions").await;
    // The training table's turn.
    take_away(&rig, "m_training").await;
    turn_now(&mut pipeline).await.unwrap();
    assert!(pipeline.put_off.is_some());
    bring_back(&rig, "m_training").await;
    turn_now(&mut pipeline).await.unwrap();
    assert!(pipeline.put_off.is_none());
    for name in ["m_outcomes", "m_predictions"] {
        assert_eq!((rig.rows(name).await.len(), rig.files(name, ".parquet").len()), (1, 1), "{name}");
    }
    let rows = rig.rows("m_training").await;
    assert_eq!((rows.len(), rows[0]["label_won"].as_str()), (1, "Boolean(true)"));
    assert_eq!(rig.metric("failures_total{model=\"m\"}"), 0.0);
    turn_now(&mut pipeline).await.unwrap();
    rig.run(&mut pipeline).await;
    assert_eq!(rig.rows("m_predictions").await.len(), 2);
}

#[tokio::test]
async fn a_batch_that_is_not_committed_for_half_a_day_is_given_up() {
    let rig = Rig::new(1).await;
    rig.predict(1, START, START, 1.0).await;
    let mut pipeline = rig.pipeline("a").await;
    read(&mut pipeline).await.unwrap();
    take_away(&rig, "m_predictions").await;
    pipeline.settle().await.unwrap();
    let put_off = pipeline.put_off.as_mut().unwrap();
    put_off.since = put_off.since.checked_sub(Duration::from_secs(12 * 60 * 60)).unwrap();
    let error = turn_now(&mut pipeline).await.unwrap_err();
    assert!(error.is_passing(), "{error}");
}

#[tokio::test]
async fn what_describes_a_table_stays_small() {
    let rig = Rig::new(1).await;
    let mut pipeline = rig.pipeline("a").await;
    for minute in (0..60 * 5).step_by(5) {
        let now = START + minute * MINUTE;
        rig.tick(now).await;
        let id = rig.predict(1, now, now, 1.0).await;
        rig.state(&id, &id, now, &[("label.won", flywheel_schemas::contract::Scalar::Boolean(true))]).await;
        rig.run(&mut pipeline).await;
    }
    for name in ["m_predictions", "m_outcomes", "m_training"] {
        let table = rig.shared.warehouse.load(name).await.unwrap().unwrap();
        assert!((12..=18).contains(&table.snapshot_count()), "{name}");
    }
    assert_eq!(rig.rows("m_predictions").await.len(), 60);
    assert_eq!(pipeline.partitions[&0].done_ms, Some(START + 295 * MINUTE));
}

#[tokio::test]
async fn progress_that_no_tick_waits_for_is_committed_once_a_day() {
    let rig = Rig::new(1).await;
    // Predictions alone, and no rows among them.
    for minute in 0..3 {
        rig.append(Kind::Predictions, 0, START + minute * MINUTE, None, &[(wire::TICK, "")]).await;
    }
    let mut pipeline = rig.pipeline("a").await;
    read(&mut pipeline).await.unwrap();
    pipeline.turn().await.unwrap();
    assert_eq!(pipeline.partitions[&0].predictions.landed, None);
    pipeline.committed = pipeline.committed.checked_sub(Duration::from_secs(24 * 60 * 60)).unwrap();
    pipeline.turn().await.unwrap();
    assert_eq!(pipeline.partitions[&0].predictions.landed.map(|mark| mark.next), Some(3));
    assert!(!pipeline.is_due());
}

#[tokio::test]
async fn a_prediction_that_comes_when_its_statements_have_left_the_index_has_its_labels_all_the_same() {
    let rig = Rig::new(1).await;
    let won = [("label.won", flywheel_schemas::contract::Scalar::Boolean(true))];
    rig.tick(START).await;
    let t = START + MINUTE;
    let early = rig.predict(1, t, t, 1.0).await;
    rig.state("a", &early, START + 3 * MINUTE, &won).await;
    // Its outcome is there long before it.
    let late = flywheel_schemas::id::from_parts(t, [2; 10]).to_string();
    rig.state("b", &late, START + 3 * MINUTE, &won).await;
    let mut pipeline = rig.pipeline("a").await;
    // Horizon a day, longest window and lateness 80 minutes: a tick that far behind the first prediction.
    let end = START + DAY_MS + 85 * MINUTE;
    rig.ticks(START + 5 * MINUTE, end - 5 * MINUTE).await;
    rig.run(&mut pipeline).await;
    pipeline.expire_index().unwrap();
    assert_eq!(pipeline.index.statements(&early, i64::MAX, 9).unwrap().len(), 1);
    rig.tick(end).await;
    rig.run(&mut pipeline).await;
    pipeline.expire_index().unwrap();
    for id in [&early, &late] {
        assert_eq!(pipeline.index.statements(id, i64::MAX, 9).unwrap(), []);
    }
    assert_eq!(rig.predict(2, t, end + MINUTE, 1.0).await, late);
    rig.ticks(end + 5 * MINUTE, end + 20 * MINUTE).await;
    rig.run(&mut pipeline).await;
    let rows = rig.rows("m_training").await;
    assert_eq!(rows.iter().map(|row| row["label_won"].as_str()).collect::<Vec<_>>(), ["Boolean(true)"; 2]);
    // An index that is built anew has what is of use alone.
    let index = rig.pipeline("b").await.index;
    assert_eq!(index.stamp().unwrap(), pipeline.index.stamp().unwrap());
}

#[tokio::test]
async fn a_full_index_stops_landing_until_it_may_be_larger() {
    let rig = Rig::new(1).await;
    let mut pipeline = rig.pipeline("a").await;
    let with_bytes = |pipeline: &mut Pipeline, max_bytes: u64| {
        let mut config = Config::clone(&pipeline.config);
        config.index.max_bytes = max_bytes;
        pipeline.config = Arc::new(config);
    };
    let bytes = pipeline.index.bytes().unwrap().max(1);
    with_bytes(&mut pipeline, bytes);
    pipeline.measure_index().unwrap();
    assert_eq!(pipeline.index_level, IndexLevel::Full);
    rig.predict(1, START, START, 1.0).await;
    pipeline.turn().await.unwrap();
    assert_eq!(pipeline.partitions[&0].predictions.read, None);
    assert_eq!(rig.metric("index_bytes{model=\"m\"}"), bytes as f64);
    with_bytes(&mut pipeline, bytes * 5 / 4);
    pipeline.turn().await.unwrap();
    assert_eq!(pipeline.index_level, IndexLevel::High);
    pipeline.turn().await.unwrap();
    assert_eq!(pipeline.partitions[&0].predictions.read.map(|mark| mark.next), Some(1));
    with_bytes(&mut pipeline, bytes * 2);
    pipeline.turn().await.unwrap();
    assert_eq!(pipeline.index_level, IndexLevel::Low);
}

#[tokio::test]
async fn a_damaged_index_is_built_anew() {
    let rig = Rig::new(1).await;
    rig.tick(START).await;
    let t = START + MINUTE;
    let id = rig.predict(1, t, t, 1.0).await;
    rig.state("e", &id, START + 3 * MINUTE, &[("label.won", flywheel_schemas::contract::Scalar::Boolean(true))]).await;
    rig.ticks(START + 5 * MINUTE, START + 60 * MINUTE).await;
    let mut pipeline = rig.pipeline("a").await;
    rig.run(&mut pipeline).await;
    pipeline.index.damage(&id);
    drop(pipeline);
    rig.ticks(START + 65 * MINUTE, START + 90 * MINUTE).await;

    // The model as the joiner runs it, with its index where the first one was.
    let mut shared = rig.shared.clone();
    let mut config = Config::clone(&shared.config);
    config.index.dir = rig.dir.path().join("a");
    config.commit.interval_ms = 10;
    shared.config = Arc::new(config);
    let (sender, commands) = mpsc::unbounded_channel();
    sender.send(Command::Take(vec![0])).unwrap();
    let running = tokio::spawn(run("m".to_owned(), shared, rig.source.feeds(), commands));
    let waiting = async {
        while rig.rows("m_training").await.is_empty() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), waiting).await.expect("the row");
    drop(sender);
    running.await.unwrap();
    assert_eq!(rig.rows("m_training").await[0]["label_won"], "Boolean(true)");
    assert_eq!(rig.metric("failures_total{model=\"m\"}"), 1.0);
}
