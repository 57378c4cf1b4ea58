//! The sidecar as a process against real brokers and registries that are in trouble: nothing of what it accepted is lost,
//! what was first sent is first in each partition, what is wrong is said by a metric and a log line, and unsaid when it is
//! over, without a restart.

mod absence;
mod cluster;
pub mod registry;
mod security;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use flywheel_schemas::contract::Contract;
use flywheel_schemas::register::register;
use flywheel_schemas::registry::{Registry, RegistryConfig};
use flywheel_schemas::topics::{self, IngestTime, TopicsConfig};
use flywheel_schemas::wire::{self, Kind};
use flywheel_tests::servers::free_port;
use flywheel_tests::system::{BOUND, NDJSON, Service, until};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde_json::Value;
use tempfile::TempDir;

use crate::DEMONSTRATION;

const MODEL: &str = "m";
const CONTRACT: &str = "apiVersion: flywheel/v1\nkind: ModelContract\nmodel: m\nversion: 1\n\
                        features: {n: {type: long}, text: {type: string}}\n";
const PARTITIONS: i32 = 4;

/// What a sidecar is started with.
struct Plan<'a> {
    prefix: &'a str,
    /// `host:port,…`
    servers: &'a str,
    /// Null for a folder of its own in which the contract is registered.
    registry: Option<&'a str>,
    librdkafka: Vec<(&'a str, String)>,
    spool_max_bytes: u64,
}

impl<'a> Plan<'a> {
    fn new(prefix: &'a str, servers: &'a str) -> Plan<'a> {
        Plan { prefix, servers, registry: None, librdkafka: Vec::new(), spool_max_bytes: 1 << 30 }
    }
}

/// A sidecar and what it has accepted.
struct Sidecar {
    service: Service,
    url: String,
    client: reqwest::Client,
    accepted: u64,
    /// Goes with it.
    _dir: TempDir,
}

impl Sidecar {
    async fn start(plan: Plan<'_>) -> Sidecar {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().display();
        std::fs::create_dir(dir.path().join("contracts")).unwrap();
        std::fs::write(dir.path().join("contracts/m.yaml"), CONTRACT).unwrap();
        let registry = match plan.registry {
            Some(url) => url.to_owned(),
            None => {
                let url = format!("file:{path}/registry");
                registered(&url, plan.prefix).await;
                url
            }
        };
        let ports = [free_port().unwrap(), free_port().unwrap()];
        let [api, admin] = ports.map(|port| format!("127.0.0.1:{port}"));
        let Plan { prefix, servers, spool_max_bytes, .. } = plan;
        let options: String =
            plan.librdkafka.iter().map(|(name, value)| format!("\"{name}\" = \"{value}\"\n")).collect();
        let settings = format!(
            "[listen]\ntcp = \"{api}\"\nadmin = \"{admin}\"\n[contracts]\ndir = \"{path}/contracts\"\n\
             [spool]\ndir = \"{path}/spool\"\nmax_bytes = {spool_max_bytes}\n\
             [log]\nurl = \"kafka://{servers}\"\nprefix = \"{prefix}\"\n[log.librdkafka]\n{options}\
             [registry]\nurl = \"{registry}\"\n[shutdown]\ndrain_ms = 60000\n"
        );
        let service = Service::alone(DEMONSTRATION, dir.path(), "sidecar", admin, &settings).unwrap();
        service.until_ready().await;
        let client = reqwest::Client::builder().no_proxy().timeout(BOUND).build().unwrap();
        Sidecar { service, url: format!("http://{api}/v1/models/{MODEL}/predictions"), client, accepted: 0, _dir: dir }
    }

    /// Posts so many small rows; gives how many were accepted, the others having been answered with 503.
    async fn offer(&mut self, rows: usize) -> u64 {
        let body: String = (0..rows).map(|_| row("small")).collect();
        self.offer_text(body).await
    }

    async fn offer_text(&mut self, body: String) -> u64 {
        let accepted = offer(&self.client, &self.url, body).await;
        self.accepted += accepted;
        accepted
    }

    /// Offers a few rows again and again until records wait for this and a person: what is sent is not let in any more.
    async fn post_until_refused(&mut self, cause: &str) {
        let end = std::time::Instant::now() + BOUND;
        while self.metric("flywheel_forward_blocked", &[("cause", cause)]).await == 0 {
            assert!(std::time::Instant::now() < end, "never blocked by {cause}");
            self.post(5).await;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        assert_eq!(self.metric("flywheel_forward_alarm", &[]).await, 1);
    }

    /// The same where all are to be accepted.
    async fn post(&mut self, rows: usize) {
        assert_eq!(self.offer(rows).await, rows as u64);
    }

    /// The sum over what the model's spool says by this metric.
    async fn metric(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        self.service.metrics().await.sum(name, &[&[("spool", MODEL)], labels].concat())
    }

    async fn delivered(&self) -> u64 {
        self.metric("flywheel_delivered_records_total", &[]).await
    }

    async fn until_delivered(&self, count: u64) {
        until(&format!("{count} records"), async || self.delivered().await >= count).await;
    }

    /// Waits until records wait for this, and whether for a person.
    async fn until_blocked(&self, cause: &str, alarm: bool) {
        until(&format!("blocked by {cause}, alarm {alarm}"), async || {
            self.metric("flywheel_forward_blocked", &[("cause", cause)]).await == 1
                && self.metric("flywheel_forward_alarm", &[]).await == u64::from(alarm)
        })
        .await;
    }

    /// Waits until all that was accepted is delivered, and nothing is said to be wrong any more.
    async fn until_well(&self) {
        self.until_delivered(self.accepted).await;
        until("all is well", async || {
            self.metric("flywheel_forward_blocked", &[]).await == 0
                && self.metric("flywheel_forward_alarm", &[]).await == 0
                && self.service.metrics().await.sum("flywheel_log_away", &[]) == 0
                && self.service.metrics().await.sum("flywheel_log_refused", &[]) == 0
        })
        .await;
    }
}

fn row(text: &str) -> String {
    format!(r#"{{"model_version":"1","entity":{{}},"features":{{"n":1,"text":"{text}"}},"prediction":{{}}}}"#) + "\n"
}

async fn offer(client: &reqwest::Client, url: &str, body: String) -> u64 {
    let rows = body.lines().count() as u64;
    let answer = client.post(url).header("content-type", NDJSON).body(body).send().await.unwrap();
    let status = answer.status().as_u16();
    let text = answer.text().await.unwrap();
    match status {
        202 => rows,
        503 => 0,
        207 => {
            let answer: Value = serde_json::from_str(&text).unwrap();
            let statuses: Vec<u64> =
                answer["results"].as_array().unwrap().iter().map(|it| it["status"].as_u64().unwrap()).collect();
            assert!(statuses.iter().all(|status| [202, 503].contains(status)), "{text}");
            statuses.iter().filter(|status| **status == 202).count() as u64
        }
        _ => panic!("{status}: {text}"),
    }
}

/// Registers the contract, whose topics then have this prefix.
async fn registered(url: &str, prefix: &str) {
    let registry = Registry::open(&RegistryConfig { url: url.to_owned(), ..RegistryConfig::default() }).unwrap();
    register(&Contract::parse(CONTRACT).unwrap(), &registry, prefix).await.unwrap();
}

/// Makes the topics where they are missing.
async fn topics(servers: &str, prefix: &str) {
    let config = TopicsConfig {
        brokers: servers.to_owned(),
        prefix: prefix.to_owned(),
        partitions: Some(PARTITIONS),
        replication: None,
        ingest_time: IngestTime::Broker,
        librdkafka: BTreeMap::new(),
    };
    // Brokers of a cluster hear of a topic one after the other.
    let end = std::time::Instant::now() + BOUND;
    while let Err(error) = topics::ensure(&config, MODEL).await {
        assert!(std::time::Instant::now() < end, "{error}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

fn predictions(prefix: &str) -> String {
    wire::topic(prefix, MODEL, Kind::Predictions)
}

/// The records of a topic, by partition: their producer's numbers and their values.
pub fn records(servers: &str, topic: &str) -> Vec<Vec<(u64, Vec<u8>)>> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", servers).set("group.id", "nobody").set("enable.auto.commit", "false");
    config.set("enable.partition.eof", "true");
    let consumer: BaseConsumer = config.create().unwrap();
    let metadata = consumer.fetch_metadata(Some(topic), BOUND).unwrap();
    let count = metadata.topics()[0].partitions().len();
    let mut assigned = TopicPartitionList::new();
    (0..count).for_each(|it| assigned.add_partition_offset(topic, it as i32, Offset::Beginning).unwrap());
    consumer.assign(&assigned).unwrap();
    let (mut found, mut at_end) = (vec![Vec::new(); count], vec![false; count]);
    let end = std::time::Instant::now() + BOUND;
    while !at_end.iter().all(|it| *it) {
        assert!(std::time::Instant::now() < end, "{topic} has no end");
        match consumer.poll(Duration::from_millis(200)) {
            Some(Ok(message)) => {
                let headers = message.headers().unwrap();
                // Dead letters have no number.
                let sequence = headers.iter().find(|header| header.key == wire::PRODUCER_SEQ);
                let sequence =
                    sequence.map_or(0, |it| std::str::from_utf8(it.value.unwrap()).unwrap().parse().unwrap());
                found[message.partition() as usize].push((sequence, message.payload().unwrap_or_default().to_vec()));
            }
            Some(Err(rdkafka::error::KafkaError::PartitionEOF(partition))) => at_end[partition as usize] = true,
            _ => {}
        }
    }
    found
}

/// Asserts that the predictions hold the numbers given once or more, and in each partition in order of their first copies.
/// Gives how many copies there are beside.
#[track_caller]
fn once_or_more_in_order(servers: &str, prefix: &str, numbers: impl Iterator<Item = u64>) -> usize {
    let expected: BTreeSet<u64> = numbers.collect();
    let end = std::time::Instant::now() + BOUND;
    loop {
        let (seen, copies) = in_order(&records(servers, &predictions(prefix)));
        let lost: Vec<_> = expected.difference(&seen).collect();
        // A leader that is new knows only a little later how far its followers are, and shows no more meanwhile.
        if !lost.is_empty() && std::time::Instant::now() < end {
            std::thread::sleep(Duration::from_secs(1));
            continue;
        }
        let strange: Vec<_> = seen.difference(&expected).collect();
        assert!(lost.is_empty() && strange.is_empty(), "lost {lost:?}, never accepted {strange:?}");
        return copies;
    }
}

/// The numbers, and how many came more than once.
#[track_caller]
fn in_order(partitions: &[Vec<(u64, Vec<u8>)>]) -> (BTreeSet<u64>, usize) {
    let (mut seen, mut copies) = (BTreeSet::new(), 0);
    for (partition, records) in partitions.iter().enumerate() {
        let mut last = 0;
        for (number, _) in records {
            if seen.insert(*number) {
                assert!(*number > last, "partition {partition}: {number} first comes after {last}");
                last = *number;
            } else {
                copies += 1;
            }
        }
    }
    (seen, copies)
}

/// The resident memory of a process, in bytes.
fn resident_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}
