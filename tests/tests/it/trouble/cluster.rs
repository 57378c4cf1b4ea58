//! Three brokers, of which two must have a record: leaders and replicas that go, topics that go and come.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use flywheel_schemas::wire;
use flywheel_tests::servers::{Cluster, skipped};
use flywheel_tests::system::{BOUND, until};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};

use super::{PARTITIONS, Plan, Sidecar, offer, once_or_more_in_order, predictions, records, row, topics};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_in_trouble() {
    if skipped("a_cluster_in_trouble") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(dir.path()).unwrap();
    let servers = cluster.address();
    tokio::join!(
        a_topic_that_is_missing_is_made(&servers),
        a_topic_is_deleted_and_made_again(&servers),
        a_record_too_large_for_its_topic_is_a_dead_letter(&servers),
    );
    leaders_and_replicas_go_and_come_back(&mut cluster).await;
}

fn admin(servers: &str) -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", servers).create().unwrap()
}

async fn a_topic_that_is_missing_is_made(servers: &str) {
    let prefix = "missing";
    let mut sidecar = Sidecar::start(Plan::new(prefix, servers)).await;
    sidecar.post(100).await;
    sidecar.until_blocked("topic", true).await;
    assert_eq!(sidecar.delivered().await, 0);
    topics(servers, prefix).await;
    sidecar.until_well().await;
    sidecar.service.stop().await;
    once_or_more_in_order(servers, prefix, 1..=100);
}

async fn a_topic_is_deleted_and_made_again(servers: &str) {
    let prefix = "deleted";
    topics(servers, prefix).await;
    let mut sidecar = Sidecar::start(Plan::new(prefix, servers)).await;
    sidecar.post(200).await;
    sidecar.until_well().await;
    once_or_more_in_order(servers, prefix, 1..=200);

    let topic = predictions(prefix);
    admin(servers).delete_topics(&[&topic], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
    sidecar.post(100).await;
    sidecar.until_blocked("topic", true).await;
    topics(servers, prefix).await;
    sidecar.post(100).await;
    sidecar.until_well().await;
    sidecar.service.stop().await;
    // What was in the topic went with it; what came after is all there.
    once_or_more_in_order(servers, prefix, 201..=400);
}

async fn a_record_too_large_for_its_topic_is_a_dead_letter(servers: &str) {
    let prefix = "too_large";
    let topic = predictions(prefix);
    let small = NewTopic::new(&topic, PARTITIONS, TopicReplication::Fixed(3))
        .set("max.message.bytes", "20000")
        .set("cleanup.policy", "delete")
        .set("message.timestamp.type", "LogAppendTime")
        .set("min.insync.replicas", "2");
    admin(servers).create_topics([&small], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
    topics(servers, prefix).await;
    let mut sidecar = Sidecar::start(Plan::new(prefix, servers)).await;
    // No compression makes it small.
    let large: String = (0..3_000).map(|_| uuid::Uuid::new_v4().simple().to_string()).collect();
    for _ in 0..2 {
        let rows = [row("small").repeat(60), row(&large), row("small").repeat(60)];
        assert_eq!(sidecar.offer_text(rows.concat()).await, 121);
    }
    let kept = async || sidecar.service.metrics().await.sum("flywheel_dead_letters_total", &[("result", "kept")]);
    until("two dead letters", async || kept().await == 2).await;
    sidecar.until_delivered(240).await;
    until("all is well", async || sidecar.metric("flywheel_forward_blocked", &[]).await == 0).await;
    sidecar.service.stop().await;
    once_or_more_in_order(servers, prefix, (1..=242).filter(|number| ![61, 182].contains(number)));
    let letters = records(servers, &wire::dead_letter_topic(prefix)).concat();
    assert_eq!(letters.len(), 2);
    for (_, letter) in letters {
        let holds = |text: &str| letter.windows(text.len()).any(|window| window == text.as_bytes());
        assert!(holds("too_large") && holds(&large[..1_000]));
    }
}

/// The leaders of the topic's partitions, as node 1 knows them; -1 where there is none.
fn leaders(cluster: &mut Cluster, topic: &str) -> Vec<i32> {
    let servers = cluster.node(1).address().to_owned();
    let consumer: BaseConsumer = ClientConfig::new().set("bootstrap.servers", servers).create().unwrap();
    let metadata = consumer.fetch_metadata(Some(topic), BOUND).unwrap();
    metadata.topics()[0].partitions().iter().map(|partition| partition.leader()).collect()
}

async fn leaders_and_replicas_go_and_come_back(cluster: &mut Cluster) {
    let (prefix, servers) = ("leaders", cluster.address());
    topics(&servers, prefix).await;
    let mut sidecar = Sidecar::start(Plan::new(prefix, &servers)).await;
    sidecar.post(100).await;
    sidecar.until_well().await;
    // All the while rows come in, at some hundred a second.
    let stop = Arc::new(AtomicBool::new(false));
    let (client, url, stopped) = (sidecar.client.clone(), sidecar.url.clone(), stop.clone());
    let posting = tokio::spawn(async move {
        let mut accepted = 0;
        while !stopped.load(Ordering::Relaxed) {
            accepted += offer(&client, &url, row("small").repeat(10)).await;
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        accepted
    });

    let topic = predictions(prefix);
    let first = leaders(cluster, &topic).into_iter().find(|leader| *leader > 1).expect("a leader that can be killed");
    let second = 5 - first;
    cluster.node(first).kill().unwrap();
    until("other leaders", async || leaders(cluster, &topic).iter().all(|leader| *leader > 0 && *leader != first))
        .await;
    let delivered = sidecar.delivered().await;
    sidecar.until_delivered(delivered + 300).await;

    // One replica is too few, so nothing is acknowledged, and that is said.
    cluster.node(second).kill().unwrap();
    sidecar.until_blocked("log", false).await;
    let delivered = sidecar.delivered().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(sidecar.delivered().await, delivered);

    cluster.node(second).restart().unwrap();
    sidecar.until_delivered(delivered + 300).await;
    cluster.node(first).restart().unwrap();
    stop.store(true, Ordering::Relaxed);
    sidecar.accepted += posting.await.unwrap();
    sidecar.until_well().await;
    sidecar.service.stop().await;
    let copies = once_or_more_in_order(&servers, prefix, 1..=sidecar.accepted);
    println!("{} records, {copies} copies", sidecar.accepted);
}
