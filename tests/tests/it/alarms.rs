//! What others do to topics and tables while a joiner runs: it stops with an alarm, and goes on where that was put right.

use std::time::Duration;

use flywheel_schemas::wire::{self, Kind};
use flywheel_schemas::{id, partition};
use flywheel_tests::readers::spark_sql;
use flywheel_tests::servers::{shared, skipped};
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{BaseRecord, Producer as _, ThreadedProducer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::joiner::{CONTRACT, Joiner, now_ms};
use crate::log::{BOUND, BY_BROKER, PARTITIONS, make_topics};
use crate::views;

fn admin() -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", shared().kafka.address()).create().unwrap()
}

/// An id of now that belongs to a partition.
fn id_of(number: i32) -> (String, i64) {
    let event_ms = now_ms();
    let mut ids = std::iter::repeat_with(|| id::mint(event_ms).to_string());
    (ids.find(|id| partition::of(id.as_bytes(), PARTITIONS) == number).unwrap(), event_ms)
}

async fn send(joiner: &Joiner, number: i32) -> String {
    let (id, event_ms) = id_of(number);
    joiner.send(&id, event_ms, number).await;
    id
}

async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    assert!(tokio::time::timeout(BOUND, waiting).await.is_ok(), "{what}: never came");
}

async fn until_stopped(joiner: &Joiner) {
    until("the alarm", async || joiner.metric("stopped").await == 1.0).await;
}

async fn until_it_goes_on(joiner: &Joiner) {
    until("the end of the alarm", async || joiner.metric("stopped").await == 0.0).await;
}

async fn count(joiner: &Joiner, table: &str) -> usize {
    joiner.rows(table, &["prediction_id"]).await.iter().map(|batch| batch.num_rows()).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_was_made_anew_stops_the_model_whatever_it_holds() {
    if skipped("a_topic_that_was_made_anew_stops_the_model_whatever_it_holds") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    make_topics(shared().kafka.address(), "anew", "m", &[BY_BROKER]).await;
    let joiner = Joiner::start(dir.path(), "anew").await;
    for number in 0..PARTITIONS {
        send(&joiner, number).await;
        send(&joiner, number).await;
    }
    joiner.until_rows("m_predictions", 2 * PARTITIONS as usize).await;

    let topics = [Kind::Predictions, Kind::Outcomes].map(|kind| wire::topic("anew", "m", kind));
    let names = topics.each_ref().map(String::as_str);
    for deleted in admin().delete_topics(&names, &AdminOptions::new()).await.unwrap() {
        deleted.unwrap();
    }
    until_stopped(&joiner).await;
    make_topics(shared().kafka.address(), "anew", "m", &[BY_BROKER]).await;
    // Fewer than were landed of one partition, more of another.
    for (number, records) in [(0, 1), (1, 60), (2, 0)] {
        for _ in 0..records {
            send(&joiner, number).await;
        }
    }
    let failures = joiner.metric("failures_total").await;
    until("more alarms", async || joiner.metric("failures_total").await >= failures + 4.0).await;
    until_stopped(&joiner).await;
    assert_eq!(count(&joiner, "m_predictions").await, 2 * PARTITIONS as usize);
    joiner.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_that_went_before_they_were_landed_stop_the_model() {
    if skipped("records_that_went_before_they_were_landed_stop_the_model") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    make_topics(shared().kafka.address(), "overrun", "m", &[BY_BROKER]).await;
    let mut joiner = Joiner::start(dir.path(), "overrun").await;
    send(&joiner, 0).await;
    joiner.until_rows("m_predictions", 1).await;
    // It is away for longer than the topic keeps what is sent.
    joiner.stop().await;
    for _ in 0..5 {
        send(&joiner, 0).await;
    }
    let mut gone = TopicPartitionList::new();
    let topic = wire::topic("overrun", "m", Kind::Predictions);
    gone.add_partition_offset(&topic, 0, Offset::End).unwrap();
    admin().delete_records(&gone, &AdminOptions::new()).await.unwrap();
    let joiner = Joiner::start(dir.path(), "overrun").await;
    until_stopped(&joiner).await;
    assert_eq!(count(&joiner, "m_predictions").await, 1);
    joiner.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_that_are_added_stop_the_model() {
    if skipped("partitions_that_are_added_stop_the_model") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    make_topics(shared().kafka.address(), "more", "m", &[BY_BROKER]).await;
    let joiner = Joiner::start(dir.path(), "more").await;
    send(&joiner, 0).await;
    joiner.until_rows("m_predictions", 1).await;
    for kind in [Kind::Predictions, Kind::Outcomes] {
        let topic = wire::topic("more", "m", kind);
        let more = NewPartitions::new(&topic, PARTITIONS as usize + 2);
        for added in admin().create_partitions([&more], &AdminOptions::new()).await.unwrap() {
            added.unwrap();
        }
    }
    until_stopped(&joiner).await;
    joiner.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_is_open_holds_up_its_partition_and_no_tick_passes_it() {
    if skipped("a_transaction_that_is_open_holds_up_its_partition_and_no_tick_passes_it") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    make_topics(shared().kafka.address(), "open", "m", &[BY_BROKER]).await;
    let joiner = Joiner::start(dir.path(), "open").await;
    let topic = wire::topic("open", "m", Kind::Predictions);
    let producer: ThreadedProducer<_> = ClientConfig::new()
        .set("bootstrap.servers", shared().kafka.address())
        .set("transactional.id", "open")
        .set("transaction.timeout.ms", "600000")
        .create()
        .unwrap();
    producer.init_transactions(BOUND).unwrap();
    producer.begin_transaction().unwrap();
    let (held, event_ms) = id_of(0);
    let payload = joiner.prediction(&held, event_ms);
    producer
        .send(BaseRecord::to(&topic).partition(0).key(&held).payload(&payload))
        .map_err(|(error, _)| error)
        .unwrap();
    producer.flush(BOUND).unwrap();
    // Behind it, and elsewhere.
    send(&joiner, 0).await;
    send(&joiner, 1).await;
    joiner.until_rows("m_training", 1).await;
    // One that sees what is not committed.
    let client: rdkafka::consumer::BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", shared().kafka.address())
        .set("isolation.level", "read_uncommitted")
        .create()
        .unwrap();
    let end = || {
        use rdkafka::consumer::Consumer as _;
        client.fetch_watermarks(&topic, 0, BOUND).unwrap().1
    };
    // Two ticks follow the two records.
    until("ticks", async || end() >= 4).await;
    assert_eq!((count(&joiner, "m_predictions").await, count(&joiner, "m_training").await), (1, 1));

    producer.commit_transaction(BOUND).unwrap();
    joiner.until_rows("m_training", 3).await;
    assert_eq!((count(&joiner, "m_predictions").await, count(&joiner, "m_training").await), (3, 3));
    joiner.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_that_spark_renames_drops_and_rolls_back_stop_the_model_or_are_made_again() {
    if skipped("tables_that_spark_renames_drops_and_rolls_back_stop_the_model_or_are_made_again") {
        return;
    }
    let (set, dir) = (shared(), tempfile::tempdir().unwrap());
    make_topics(set.kafka.address(), "hand", "m", &[BY_BROKER]).await;
    let catalog = views::config(set, "hand").catalog;
    let joiner = Joiner::start_on(dir.path(), "hand", CONTRACT, |config| config.catalog = catalog).await;
    let spark = async |statement: &str| {
        tokio::task::block_in_place(|| spark_sql(set.spark(), statement).unwrap_or_else(|error| panic!("{error}")))
    };
    send(&joiner, 0).await;
    joiner.until_rows("m_training", 1).await;
    send(&joiner, 0).await;
    joiner.until_rows("m_training", 2).await;

    spark("ALTER TABLE hand.m_predictions RENAME COLUMN x TO y").await;
    send(&joiner, 1).await;
    until_stopped(&joiner).await;
    assert_eq!(count(&joiner, "m_predictions").await, 2);
    spark("ALTER TABLE hand.m_predictions RENAME COLUMN y TO x").await;
    until_it_goes_on(&joiner).await;
    joiner.until_rows("m_training", 3).await;

    spark("DROP TABLE hand.m_training").await;
    joiner.until_rows("m_training", 3).await;
    until_it_goes_on(&joiner).await;

    let snapshot = "SELECT snapshot_id FROM hand.m_predictions.snapshots ORDER BY committed_at";
    let first = spark(&format!("{snapshot} LIMIT 1")).await[0][0].clone();
    spark(&format!("CALL ice.system.rollback_to_snapshot('hand.m_predictions', {first})")).await;
    send(&joiner, 2).await;
    until_stopped(&joiner).await;
    let last = spark(&format!("{snapshot} DESC LIMIT 1")).await[0][0].clone();
    spark(&format!("CALL ice.system.set_current_snapshot('hand.m_predictions', {last})")).await;
    joiner.until_rows("m_training", 4).await;
    until_it_goes_on(&joiner).await;
    assert_eq!((count(&joiner, "m_predictions").await, count(&joiner, "m_training").await), (4, 4));
    joiner.finish().await;
}
