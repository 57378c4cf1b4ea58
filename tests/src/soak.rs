//! A long run at half of what the machine can take, with the broker and the sidecar killed again and again: what was
//! accepted is in the topic, and its copies are told apart by their ids.
//!
//! Sidecar (a process of its own), broker and clients share the machine. What it can take is measured first, with the
//! same clients. Each request brings an id that has its number in it; one that gets no answer, or a 503, is repeated with
//! the same id, as a client should. At the end the topic is read from its beginning.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use flywheel_schemas::id;
use flywheel_schemas::registry::{Registry, RegistryConfig};
use flywheel_schemas::topics::{self, IngestTime, TopicsConfig};
use flywheel_schemas::wire::{self, Kind};
use flywheel_sidecar::Config;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::bench::transcode::{body, contract_text};
use crate::servers::{Kafka, free_port};

/// The hidden argument that makes the binary the sidecar; its own arguments follow.
pub const SERVE: &str = "serve-sidecar";

const MODEL: &str = "bench";
const PREFIX: &str = "soak";
const PARTITIONS: i32 = 4;
const CLIENTS: u64 = 16;
const BODIES: u64 = 64;
const KILLS_OF_BROKER: u32 = 5;
const KILLS_OF_SIDECAR: u32 = 10;
const BROKER_AWAY: Duration = Duration::from_secs(15);
const CALIBRATION: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_secs(1);
/// For whatever is waited for at the end.
const BOUND: Duration = Duration::from_secs(600);

type Fault = Box<dyn Error + Send + Sync>;

/// What came out.
pub struct Report {
    pub rate_max: f64,
    pub rate: f64,
    pub accepted: u64,
    pub put_off: u64,
    pub unanswered: u64,
    pub messages: u64,
    /// Accepted, and not in the topic.
    pub missing: u64,
    /// In the topic, and never sent.
    pub foreign: u64,
    /// Copies that differ from the first.
    pub conflicting: u64,
    /// Resident MiB and open files at the most, by life of the sidecar.
    pub lives: Vec<(f64, usize)>,
}

/// Runs for `time`, after the calibration.
pub fn run(time: Duration) -> Result<Report, Fault> {
    let dir = tempfile::tempdir()?;
    let mut kafka = Kafka::start(dir.path())?;
    register(dir.path(), kafka.address())?;
    let mut sidecar = Sidecar::start(dir.path(), kafka.address())?;
    let clients = Clients::new(sidecar.address);
    let rate_max = std::thread::scope(|scope| -> Result<f64, Fault> {
        clients.spawn(scope, None);
        std::thread::sleep(CALIBRATION);
        clients.stop.store(true, Ordering::Relaxed);
        Ok(clients.accepted.load(Ordering::Relaxed) as f64 / CALIBRATION.as_secs_f64())
    })?;
    let rate = rate_max / 2.0;
    eprintln!("at most {rate_max:.0} predictions a second; now {rate:.0} for {} s", time.as_secs());

    clients.stop.store(false, Ordering::Relaxed);
    let mut lives = vec![(0.0, 0)];
    std::thread::scope(|scope| -> Result<(), Fault> {
        clients.spawn(scope, Some(rate));
        let outcome = trouble(&mut kafka, &mut sidecar, time, &mut lives);
        clients.stop.store(true, Ordering::Relaxed);
        outcome
    })?;
    sidecar.drain(BOUND)?;

    let mut report = Report {
        rate_max,
        rate,
        accepted: 0,
        put_off: clients.put_off.load(Ordering::Relaxed),
        unanswered: clients.unanswered.load(Ordering::Relaxed),
        messages: 0,
        missing: 0,
        foreign: 0,
        conflicting: 0,
        lives,
    };
    let taken: Vec<Vec<u64>> = clients.taken.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let sent = clients.next.load(Ordering::Relaxed);
    check(kafka.address(), &taken, sent, &mut report)?;
    Ok(report)
}

/// Kills one or the other at even distances, and looks at the sidecar in between.
fn trouble(
    kafka: &mut Kafka,
    sidecar: &mut Sidecar,
    time: Duration,
    lives: &mut Vec<(f64, usize)>,
) -> Result<(), Fault> {
    let start = Instant::now();
    let (mut broker_kills, mut sidecar_kills) = (0, 0);
    let mut broker_back: Option<Instant> = None;
    while start.elapsed() < time {
        std::thread::sleep(LOOK);
        if let (Some((resident, files)), Some(life)) = (sidecar.look(), lives.last_mut()) {
            *life = (life.0.max(resident), life.1.max(files));
        }
        let due = |kills: u32, of: u32| start.elapsed() >= time * (2 * kills + 1) / (2 * of);
        if broker_kills < KILLS_OF_BROKER && broker_back.is_none() && due(broker_kills, KILLS_OF_BROKER) {
            kafka.kill()?;
            broker_kills += 1;
            broker_back = Some(Instant::now() + BROKER_AWAY);
            eprintln!("{:>5.0} s: broker killed ({broker_kills})", start.elapsed().as_secs_f64());
        }
        if broker_back.is_some_and(|back| back <= Instant::now()) {
            kafka.restart()?;
            broker_back = None;
        }
        if sidecar_kills < KILLS_OF_SIDECAR && due(sidecar_kills, KILLS_OF_SIDECAR) {
            sidecar.restart()?;
            sidecar_kills += 1;
            lives.push((0.0, 0));
            eprintln!("{:>5.0} s: sidecar killed ({sidecar_kills})", start.elapsed().as_secs_f64());
        }
    }
    if broker_back.is_some() {
        kafka.restart()?;
    }
    Ok(())
}

fn register(dir: &Path, servers: &str) -> Result<(), Fault> {
    let contracts = dir.join("contracts");
    std::fs::create_dir_all(&contracts)?;
    std::fs::write(contracts.join("bench.yaml"), contract_text())?;
    let topics = TopicsConfig {
        brokers: servers.to_owned(),
        prefix: PREFIX.to_owned(),
        partitions: Some(PARTITIONS),
        replication: None,
        ingest_time: IngestTime::Broker,
        librdkafka: [].into(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(topics::ensure(&topics, MODEL)).map_err(|error| error.to_string())?;
    // Made, so that the sidecar finds a folder.
    let url = format!("file:{}", dir.join("registry").display());
    Registry::open(&RegistryConfig { url, ..RegistryConfig::default() }).map_err(|error| error.to_string())?;
    Ok(())
}

/// The sidecar as a process of its own.
struct Sidecar {
    child: Child,
    settings: PathBuf,
    address: SocketAddr,
    admin: SocketAddr,
}

impl Sidecar {
    fn start(dir: &Path, servers: &str) -> Result<Sidecar, Fault> {
        let mut config = Config::default();
        let [address, admin] = [free_port()?, free_port()?].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        (config.listen.tcp, config.listen.admin) = (Some(address), admin);
        config.contracts.dir = dir.join("contracts");
        config.spool.dir = dir.join("spool");
        config.spool.max_bytes = 8 << 30;
        config.log.url = format!("kafka://{servers}");
        config.log.prefix = PREFIX.to_owned();
        config.registry.url = format!("file:{}", dir.join("registry").display());
        config.registry.auto_register = true;
        config.shutdown.drain_ms = 600_000;
        let settings = dir.join("sidecar.toml");
        std::fs::write(&settings, config.to_toml())?;
        let sidecar = Sidecar { child: spawn(&settings)?, settings, address, admin };
        sidecar.until_listening()?;
        Ok(sidecar)
    }

    fn until_listening(&self) -> Result<(), Fault> {
        let end = Instant::now() + BOUND;
        while TcpStream::connect(self.address).is_err() {
            if Instant::now() > end {
                return Err("the sidecar does not listen".into());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// SIGKILL, and a new start at once.
    fn restart(&mut self) -> Result<(), Fault> {
        self.child.kill()?;
        self.child.wait()?;
        self.child = spawn(&self.settings)?;
        self.until_listening()
    }

    /// Resident MiB and open files.
    fn look(&self) -> Option<(f64, usize)> {
        let process = PathBuf::from(format!("/proc/{}", self.child.id()));
        let status = std::fs::read_to_string(process.join("status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kib: f64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
        Some((kib / 1024.0, std::fs::read_dir(process.join("fd")).ok()?.count()))
    }

    /// Stops it in good order, once it has sent everything.
    fn drain(&mut self, within: Duration) -> Result<(), Fault> {
        crate::servers::signal("TERM", &self.child.id().to_string())?;
        let end = Instant::now() + within;
        while self.child.try_wait()?.is_none() {
            if Instant::now() > end {
                return Err(format!("the sidecar at {} does not end", self.admin).into());
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok(())
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(settings: &Path) -> std::io::Result<Child> {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(settings.with_extension("log"))?;
    Command::new(std::env::current_exe()?)
        .args([SERVE, "--config"])
        .arg(settings)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
}

/// Threads that each have one request on its way.
struct Clients {
    address: SocketAddr,
    bodies: Vec<String>,
    next: AtomicU64,
    stop: AtomicBool,
    accepted: AtomicU64,
    put_off: AtomicU64,
    unanswered: AtomicU64,
    /// The numbers that were accepted, by client and in the order of acceptance.
    taken: Mutex<Vec<Vec<u64>>>,
}

impl Clients {
    fn new(address: SocketAddr) -> Clients {
        // Without id and time, which each request has of its own.
        let tail = |row: String| row.split_once(",\"request_id\"").map(|(_, tail)| tail.to_owned()).unwrap_or_default();
        Clients {
            address,
            bodies: (0..BODIES).map(|number| tail(body(number, false))).collect(),
            next: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            accepted: AtomicU64::new(0),
            put_off: AtomicU64::new(0),
            unanswered: AtomicU64::new(0),
            taken: Mutex::default(),
        }
    }

    fn spawn<'scope>(&'scope self, scope: &'scope std::thread::Scope<'scope, '_>, rate: Option<f64>) {
        for _ in 0..CLIENTS {
            scope.spawn(move || {
                let taken = self.log(rate.map(|rate| Duration::from_secs_f64(CLIENTS as f64 / rate)));
                self.taken.lock().unwrap_or_else(PoisonError::into_inner).push(taken);
            });
        }
    }

    /// Logs until it is told to stop, each request to its acceptance; at a distance of `pace` where there is one.
    fn log(&self, pace: Option<Duration>) -> Vec<u64> {
        let mut taken = Vec::new();
        let mut connection = None;
        let mut due = Instant::now();
        while !self.stop.load(Ordering::Relaxed) {
            if let Some(pace) = pace {
                due += pace;
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
            }
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let request = self.request(number);
            loop {
                match send(&mut connection, self.address, &request) {
                    Some(202) => {
                        taken.push(number);
                        self.accepted.fetch_add(1, Ordering::Relaxed);
                        break;
                    }
                    Some(503) => {
                        self.put_off.fetch_add(1, Ordering::Relaxed);
                        std::thread::sleep(Duration::from_millis(100));
                    }
                    Some(status) => panic!("{status} for a row that is right"),
                    None => {
                        connection = None;
                        self.unanswered.fetch_add(1, Ordering::Relaxed);
                        std::thread::sleep(Duration::from_millis(20));
                    }
                }
            }
        }
        taken
    }

    fn request(&self, number: u64) -> Vec<u8> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let now_ms = i64::try_from(now).unwrap_or_default();
        let id = id_of(now_ms, number);
        let tail = &self.bodies[(number % BODIES) as usize];
        let body = format!("{{\"prediction_id\":\"{id}\",\"event_time\":{},\"request_id\"{tail}", now_ms * 1000);
        let length = body.len();
        let head = format!(
            "POST /v1/models/{MODEL}/predictions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n"
        );
        [head.into_bytes(), body.into_bytes()].concat()
    }
}

/// An id with its number in its last six bytes: version and variant have bits of the others.
fn id_of(now_ms: i64, number: u64) -> uuid::Uuid {
    let mut bits = [0; 10];
    bits[2..].copy_from_slice(&number.to_be_bytes());
    id::from_parts(now_ms, bits)
}

fn number_of(id: &[u8]) -> Option<u64> {
    let id = uuid::Uuid::try_parse_ascii(id).ok()?;
    let mut number = [0; 8];
    number[2..].copy_from_slice(&id.as_bytes()[10..]);
    Some(u64::from_be_bytes(number))
}

/// The status of the answer; none where the connection ended before it came.
fn send(connection: &mut Option<TcpStream>, address: SocketAddr, request: &[u8]) -> Option<u16> {
    if connection.is_none() {
        let stream = TcpStream::connect(address).ok()?;
        stream.set_nodelay(true).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(30))).ok()?;
        *connection = Some(stream);
    }
    let stream = connection.as_mut()?;
    stream.write_all(request).ok()?;
    let mut answer = [0; 4096];
    let mut got = 0;
    loop {
        match stream.read(answer.get_mut(got..)?).ok()? {
            0 => return None,
            read => got += read,
        }
        let text = std::str::from_utf8(&answer[..got]).ok()?;
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        if length.is_some_and(|length: usize| body.len() >= length) {
            return head.get(9..12)?.parse().ok();
        }
    }
}

/// Reads the topic to its end and compares it with what was accepted.
fn check(servers: &str, taken: &[Vec<u64>], sent: u64, report: &mut Report) -> Result<(), Fault> {
    let consumer: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", servers).set("group.id", "soak-check").create()?;
    let topic = wire::topic(PREFIX, MODEL, Kind::Predictions);
    let mut assignment = TopicPartitionList::new();
    let mut left: BTreeMap<i32, i64> = BTreeMap::new();
    for partition in 0..PARTITIONS {
        let (low, high) = consumer.fetch_watermarks(&topic, partition, Duration::from_secs(30))?;
        if low != 0 {
            return Err("the broker has deleted records".into());
        }
        assignment.add_partition_offset(&topic, partition, Offset::Beginning)?;
        left.insert(partition, high);
    }
    consumer.assign(&assignment)?;
    left.retain(|_, high| *high > 0);
    // A checksum of each number's first copy; none was seen while it is 0.
    let mut seen = vec![0_u32; usize::try_from(sent)?];
    let end = Instant::now() + BOUND;
    while !left.is_empty() {
        let Some(message) = consumer.poll(Duration::from_secs(10)) else {
            if Instant::now() > end {
                return Err("the topic cannot be read to its end".into());
            }
            continue;
        };
        let message = message?;
        if left.get(&message.partition()).is_some_and(|high| message.offset() + 1 >= *high) {
            left.remove(&message.partition());
        }
        // Tick records have no value.
        let Some(value) = message.payload() else { continue };
        report.messages += 1;
        let number = message.key().and_then(number_of).and_then(|number| usize::try_from(number).ok());
        let is_numbered = message.headers().is_some_and(|headers| {
            headers.iter().any(|header| header.key == wire::PRODUCER_SEQ && header.value.is_some())
        });
        match number.and_then(|number| seen.get_mut(number)).filter(|_| is_numbered) {
            None => report.foreign += 1,
            Some(first) if *first == 0 => *first = checksum(value),
            Some(first) if *first != checksum(value) => report.conflicting += 1,
            Some(_) => {}
        }
    }
    for number in taken.iter().flatten() {
        report.accepted += 1;
        if seen.get(usize::try_from(*number)?).is_none_or(|first| *first == 0) {
            report.missing += 1;
        }
    }
    Ok(())
}

/// Never 0 (FNV-1a).
fn checksum(value: &[u8]) -> u32 {
    value.iter().fold(0x811c_9dc5_u32, |sum, byte| (sum ^ u32::from(*byte)).wrapping_mul(0x0100_0193)) | 1
}
