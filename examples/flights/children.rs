//! Sidecar and joiner as child processes of this one, each started again whenever it dies: anybody may kill them.
//!
//! A child is this program with `sidecar` or `joiner` as its first argument. It ends in good order when it is told to,
//! and when this process is gone: its standard input is a pipe that only this process holds.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::Read as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use flywheel_schemas::contract::Contract;
use flywheel_schemas::register;
use flywheel_schemas::registry::{Registry, RegistryConfig};
use flywheel_schemas::topics::{self, IngestTime, TopicsConfig};
use tokio::process::{Child, Command};

use crate::args::Args;
use crate::services::{Service, Services, Stop};
use crate::{CONTRACT, Error, MODEL};

pub const SIDECAR: &str = "sidecar";
pub const JOINER: &str = "joiner";
/// Says that the standard input is a parent's pipe.
const WITH_PARENT: &str = "--with-parent";

/// Before a child is started again: at once, and then with pauses up to the second one while it dies young.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// A child that lives this long has started well.
const YOUNG: Duration = Duration::from_secs(3);
/// One that dies young so many times in a row will not start at all; its log says why.
const DEATHS: u32 = 20;
/// After SIGTERM a child has its own drain deadline, of a minute; one that outlives it hangs.
const STOP: Duration = Duration::from_secs(90);

/// Registers the contract, then starts both.
pub async fn start(args: &Args, port: u16, sidecar: &Path, joiner: &Path) -> Result<Services, Error> {
    prepare(args).await?;
    let start = |name, settings: &Path| {
        let (settings, filter) = (settings.to_owned(), args.log.clone());
        Service::start(name, |stop| supervise(name, settings, filter, stop))
    };
    Ok(Services {
        url: format!("http://127.0.0.1:{port}"),
        sidecar: start(SIDECAR, sidecar),
        joiner: start(JOINER, joiner),
    })
}

/// A port for the sidecar, the same one after each of its starts.
pub fn free_port() -> Result<u16, Error> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Topics and schemas, before anything is sent. What is there already is verified.
async fn prepare(args: &Args) -> Result<(), Error> {
    let (Some(kafka), Some(registry)) = (&args.kafka, &args.registry) else { return Ok(()) };
    let contract = Contract::parse(CONTRACT).map_err(|faults| format!("the contract: {faults:?}"))?;
    let topics = TopicsConfig {
        brokers: kafka.trim_start_matches("kafka://").to_owned(),
        prefix: args.prefix.clone(),
        partitions: None,
        replication: None,
        ingest_time: IngestTime::Record,
        librdkafka: BTreeMap::new(),
    };
    for topic in topics::ensure(&topics, MODEL).await? {
        println!(
            "topic {} with {} partitions {}",
            topic.name,
            topic.partitions,
            if topic.created { "made" } else { "found" }
        );
    }
    let registry = Registry::open(&RegistryConfig {
        url: registry.clone(),
        username: None,
        password_file: None,
        token_file: None,
        ca_file: None,
    })?;
    for subject in register::register(&contract, &registry, &args.prefix).await?.subjects {
        println!("schema {} registered under {}", subject.id, subject.name);
    }
    Ok(())
}

/// Keeps a child running until it is told to stop.
async fn supervise(name: &'static str, settings: PathBuf, filter: String, mut stop: Stop) -> Result<(), String> {
    let mut deaths = 0;
    let mut pause = PAUSE.0;
    loop {
        let (mut child, log) =
            spawn(name, &settings, &filter).map_err(|error| format!("cannot be started: {error}"))?;
        let pid = child.id().unwrap_or_default();
        // Held here, since waiting for the child would close it, and with it the child's life.
        let _pipe = child.stdin.take();
        println!("{name} runs as process {pid}");
        let started = Instant::now();
        let status = tokio::select! {
            status = child.wait() => status.map_err(|error| format!("cannot be waited for: {error}"))?,
            () = &mut stop => return end(child).await,
        };
        println!("{name} (process {pid}) ended: {status}; starting it again");
        if started.elapsed() > YOUNG {
            (deaths, pause) = (0, PAUSE.0);
        } else {
            deaths += 1;
            if deaths == DEATHS {
                return Err(format!("does not start; see {}", log.display()));
            }
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = &mut stop => return Ok(()),
        }
        pause = (pause * 2).min(PAUSE.1);
    }
}

fn spawn(name: &str, settings: &Path, filter: &str) -> std::io::Result<(Child, PathBuf)> {
    let log = settings.with_file_name(format!("{name}.log"));
    let output = OpenOptions::new().create(true).append(true).open(&log)?;
    let child = Command::new(std::env::current_exe()?)
        .args([name, WITH_PARENT, "--config"])
        .arg(settings)
        .env("RUST_LOG", filter)
        .stdin(Stdio::piped())
        .stdout(output.try_clone()?)
        .stderr(output)
        // A Ctrl-C at the terminal is for this process, which then stops its children in order.
        .process_group(0)
        .spawn()?;
    Ok((child, log))
}

/// SIGTERM, and SIGKILL for one that does not heed it.
async fn end(mut child: Child) -> Result<(), String> {
    let told = |error: std::io::Error| format!("cannot be stopped: {error}");
    if let Some(pid) = child.id() {
        Command::new("sh").args(["-c", &format!("kill -TERM {pid}")]).status().await.map_err(told)?;
    }
    match tokio::time::timeout(STOP, child.wait()).await {
        Ok(status) => match status.map_err(told)? {
            status if status.success() => Ok(()),
            status => Err(format!("ended: {status}")),
        },
        Err(_) => {
            child.kill().await.map_err(told)?;
            Err(format!("did not stop within {} s", STOP.as_secs()))
        }
    }
}

/// The program as one of the two services.
pub async fn serve(service: &str, mut arguments: Vec<OsString>) -> ExitCode {
    if arguments.first().is_some_and(|first| first == WITH_PARENT) {
        arguments.remove(0);
        std::thread::spawn(end_with_parent);
    }
    match service {
        SIDECAR => flywheel_sidecar::run_from_args(arguments).await,
        _ => flywheel_joiner::run_from_args(arguments).await,
    }
}

/// Waits for the pipe to close, and then has this process stop as a SIGTERM would.
fn end_with_parent() {
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    let pid = std::process::id();
    if std::process::Command::new("sh").args(["-c", &format!("kill -TERM {pid}")]).status().is_err() {
        std::process::exit(1);
    }
}
