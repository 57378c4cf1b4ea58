//! Sidecar and joiner as processes of their own over real servers, with a contract that a test brings along.
//!
//! Topics and schemas are registered first, as `flywheel-schemas register` does; prefix, consumer group and namespace
//! are one name, by which tests keep apart. The processes end with this one, however it ends.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use flywheel_schemas::contract::Contract;
use flywheel_schemas::register::{self, Registration};
use flywheel_schemas::registry::{Registry, RegistryConfig};
use flywheel_schemas::topics::{self, IngestTime, TopicsConfig};
use flywheel_schemas::wire::Kind;
use reqwest::{Body, Client};
use serde_json::Value;

use crate::servers::{S3_ACCESS_KEY, S3_REGION, S3_SECRET_KEY, ServerError, Set, free_port, signal};

/// How long anything that is waited for may take on a busy machine; nothing is timed by it.
pub const BOUND: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(200);

pub const JSON: &str = "application/json";
pub const NDJSON: &str = "application/x-ndjson";

/// What a system is made of.
pub struct Plan<'a> {
    /// The binary that is either service by its first argument (`env!("CARGO_BIN_EXE_demonstration")`).
    pub program: &'a str,
    /// For settings, spool, index and logs. Where it holds a file `keys`, those are the sidecar's for private values.
    pub dir: &'a Path,
    pub set: &'a Set,
    /// The base URL of the registry.
    pub registry: &'a str,
    pub contract: &'a Contract,
    /// Its text.
    pub yaml: &'a str,
    /// Of topics, group and namespace.
    pub prefix: &'a str,
    pub partitions: i32,
    /// `limits.batch_rows` of the sidecar.
    pub batch_rows: usize,
}

pub struct System {
    pub registration: Registration,
    pub registry: Registry,
    pub sidecar: Service,
    pub joiner: Service,
    model: String,
    url: String,
    client: Client,
}

/// One of the two processes.
pub struct Service {
    name: &'static str,
    program: String,
    child: Child,
    settings: PathBuf,
    admin: String,
    client: Client,
}

/// What a service says of itself in OpenMetrics text.
pub struct Metrics(String);

/// An answer of the sidecar.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub media_type: String,
    /// Null where it is no JSON.
    pub body: Value,
}

fn failed(error: impl std::fmt::Display) -> ServerError {
    ServerError::Start(error.to_string())
}

impl System {
    /// Registers, starts both and waits until they are ready.
    pub async fn start(plan: &Plan<'_>) -> Result<System, ServerError> {
        let topics = TopicsConfig {
            brokers: plan.set.kafka.address().to_owned(),
            prefix: plan.prefix.to_owned(),
            partitions: Some(plan.partitions),
            replication: None,
            ingest_time: IngestTime::Broker,
            librdkafka: BTreeMap::new(),
        };
        topics::ensure(&topics, &plan.contract.model).await.map_err(failed)?;
        let config = RegistryConfig { url: plan.registry.to_owned(), ..RegistryConfig::default() };
        let registry = Registry::open(&config).map_err(failed)?;
        let registration = register::register(plan.contract, &registry, plan.prefix).await.map_err(failed)?;

        let contracts = plan.dir.join("contracts");
        std::fs::create_dir_all(&contracts).map_err(ServerError::Folder)?;
        std::fs::write(contracts.join("model.yaml"), plan.yaml).map_err(ServerError::Folder)?;
        let ports = [free_port()?, free_port()?, free_port()?];
        let [api, sidecar, joiner] = ports.map(|port| format!("127.0.0.1:{port}"));
        let sidecar = Service::start(plan, "sidecar", sidecar.clone(), &sidecar_settings(plan, &api, &sidecar))?;
        let joiner = Service::start(plan, "joiner", joiner.clone(), &joiner_settings(plan, &joiner))?;
        for service in [&sidecar, &joiner] {
            service.until_ready().await;
        }
        let (model, url) = (plan.contract.model.clone(), format!("http://{api}"));
        Ok(System { registration, registry, sidecar, joiner, model, url, client: client() })
    }

    /// Posts to the model's route.
    pub async fn post(&self, kind: Kind, media_type: &str, body: impl Into<Body>) -> Answer {
        self.post_as(kind.name(), media_type, body.into()).await
    }

    /// Posts JSON to another route of the model.
    pub async fn post_to(&self, route: &str, body: impl Into<Body>) -> Answer {
        self.post_as(route, JSON, body.into()).await
    }

    async fn post_as(&self, route: &str, media_type: &str, body: Body) -> Answer {
        let url = format!("{}/v1/models/{}/{route}", self.url, self.model);
        let sent = self.client.post(url).header("content-type", media_type).body(body).send().await;
        let answer = sent.unwrap_or_else(|error| panic!("no answer: {error:?}"));
        let media_type = answer.headers().get("content-type").and_then(|value| value.to_str().ok());
        let (status, media_type) = (answer.status().as_u16(), media_type.unwrap_or_default().to_owned());
        let bytes = answer.bytes().await.unwrap_or_else(|error| panic!("half an answer: {error:?}"));
        Answer { status, media_type, body: serde_json::from_slice(&bytes).unwrap_or_default() }
    }

    /// `host:port` of the API, for who writes HTTP by hand.
    pub fn address(&self) -> &str {
        self.url.trim_start_matches("http://")
    }
}

impl Service {
    fn start(plan: &Plan<'_>, name: &'static str, admin: String, settings: &str) -> Result<Service, ServerError> {
        Service::alone(plan.program, plan.dir, name, admin, settings)
    }

    /// One that runs without the other; `admin` is the address of its admin port, which stands in `settings` too.
    pub fn alone(
        program: &str,
        dir: &Path,
        name: &'static str,
        admin: String,
        settings: &str,
    ) -> Result<Service, ServerError> {
        let path = dir.join(format!("{name}.toml"));
        std::fs::write(&path, settings).map_err(ServerError::Folder)?;
        let child = spawn(program, name, &path)?;
        Ok(Service { name, program: program.to_owned(), child, settings: path, admin, client: client() })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub async fn until_ready(&self) {
        until(self.name, async || self.is_ready().await).await;
    }

    /// Starts it again after a stop, and waits until it is ready.
    pub async fn start_again(&mut self) -> Result<(), ServerError> {
        self.child = spawn(&self.program, self.name, &self.settings)?;
        self.until_ready().await;
        Ok(())
    }

    async fn is_ready(&self) -> bool {
        let answer = self.client.get(format!("http://{}/readyz", self.admin)).send().await;
        answer.is_ok_and(|answer| answer.status().is_success())
    }

    pub async fn metrics(&self) -> Metrics {
        let answer = self.client.get(format!("http://{}/metrics", self.admin)).send().await;
        let answer = answer.unwrap_or_else(|error| panic!("the {}: {error:?}\n{}", self.name, self.log()));
        Metrics(answer.text().await.unwrap_or_default())
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.settings.with_extension("log")).unwrap_or_default()
    }

    /// What another command of the same program says with the same settings, such as `status`; arguments follow it, apart by
    /// spaces.
    pub fn command(&self, command: &str) -> Result<String, ServerError> {
        let said = self.run(&command.split_whitespace().collect::<Vec<_>>())?;
        match said.status.success() {
            true => Ok(String::from_utf8_lossy(&said.stdout).into_owned()),
            false => Err(failed(String::from_utf8_lossy(&said.stderr))),
        }
    }

    /// Another command of the same program with the same settings.
    pub fn run(&self, arguments: &[&str]) -> Result<Output, ServerError> {
        let run = |source| ServerError::Run { script: self.program.clone(), source };
        let mut command = Command::new(&self.program);
        command.arg(self.name).args(arguments).arg("--config").arg(&self.settings).output().map_err(run)
    }

    /// A SIGTERM, and the wait for its end, which must be a good one.
    pub async fn stop(&mut self) {
        signal("TERM", &self.child.id().to_string()).unwrap_or_else(|error| panic!("{error}"));
        let end = Instant::now() + BOUND;
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => {
                    assert!(status.success(), "the {} ended: {status}\n{}", self.name, self.log());
                    return;
                }
                Ok(None) if Instant::now() < end => tokio::time::sleep(PAUSE).await,
                other => panic!("the {} does not stop: {other:?}\n{}", self.name, self.log()),
            }
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // Only where a test failed in its middle is there anything left to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the {} logged:\n{}", self.name, self.log());
        }
    }
}

impl Metrics {
    /// The sum over the samples of `name` that have these labels; other labels may have any value.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let samples = self.0.lines().filter_map(|line| {
            let (sample, value) = line.rsplit_once(' ')?;
            let (found, rest) = sample.split_once('{').unwrap_or((sample, ""));
            let has = |(label, value): &(&str, &str)| rest.contains(&format!("{label}=\"{value}\""));
            (found == name && labels.iter().all(has)).then(|| value.parse::<f64>().unwrap_or_default() as u64)
        });
        samples.sum()
    }
}

/// Asks again and again until it is so.
pub async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + BOUND;
    while !is_so().await {
        assert!(Instant::now() < end, "{what}: never came");
        tokio::time::sleep(PAUSE).await;
    }
}

/// The log goes on where an earlier start ended it.
fn spawn(program: &str, name: &str, settings: &Path) -> Result<Child, ServerError> {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(settings.with_extension("log"));
    let log = log.map_err(ServerError::Folder)?;
    Command::new(program)
        .args([name, "--with-parent", "--config"])
        .arg(settings)
        .env("RUST_LOG", "info")
        // It ends when this pipe closes, which only this process holds.
        .stdin(Stdio::piped())
        .stdout(log.try_clone().map_err(ServerError::Folder)?)
        .stderr(log)
        .spawn()
        .map_err(|source| ServerError::Run { script: program.to_owned(), source })
}

fn client() -> Client {
    Client::builder().no_proxy().timeout(BOUND).build().unwrap_or_default()
}

fn sidecar_settings(plan: &Plan<'_>, api: &str, admin: &str) -> String {
    let Plan { dir, registry, prefix, batch_rows, .. } = plan;
    let keys = dir.join("keys");
    let privacy = if keys.exists() { format!("[privacy]\nkey_file = \"{}\"\n", keys.display()) } else { String::new() };
    let (dir, kafka) = (dir.display(), plan.set.kafka.address());
    format!(
        "[listen]\ntcp = \"{api}\"\nadmin = \"{admin}\"\n\
         [contracts]\ndir = \"{dir}/contracts\"\n\
         [spool]\ndir = \"{dir}/spool\"\n\
         [log]\nurl = \"kafka://{kafka}\"\nprefix = \"{prefix}\"\n\
         [registry]\nurl = \"{registry}\"\n\
         [limits]\nbatch_rows = {batch_rows}\n{privacy}\
         [shutdown]\ndrain_ms = 60000\n"
    )
}

fn joiner_settings(plan: &Plan<'_>, admin: &str) -> String {
    let Plan { dir, registry, prefix, set, .. } = plan;
    let (dir, kafka, catalog, s3) = (dir.display(), set.kafka.address(), set.catalog.address(), set.s3.address());
    format!(
        "[log]\nurl = \"kafka://{kafka}\"\nprefix = \"{prefix}\"\ngroup = \"{prefix}\"\n\
         [registry]\nurl = \"{registry}\"\n\
         [catalog]\nurl = \"{catalog}\"\nnamespace = \"{prefix}\"\nwarehouse = \"s3://warehouse/\"\n\
         [catalog.properties]\n\"s3.endpoint\" = \"{s3}\"\n\"s3.access-key-id\" = \"{S3_ACCESS_KEY}\"\n\
         \"s3.secret-access-key\" = \"{S3_SECRET_KEY}\"\n\"s3.region\" = \"{S3_REGION}\"\n\
         \"s3.path-style-access\" = \"true\"\n\
         [index]\ndir = \"{dir}/index\"\n\
         [commit]\ninterval_ms = 500\n\
         [listen]\nadmin = \"{admin}\"\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_is_over_the_samples_with_these_labels() {
        let text = "# TYPE a counter\na_total{kind=\"x\",reason=\"p\"} 2\na_total{kind=\"x\",reason=\"q\"} 3\nb 7\n";
        let metrics = Metrics(text.to_owned());
        assert_eq!(metrics.sum("a_total", &[("kind", "x")]), 5);
        assert_eq!(metrics.sum("a_total", &[("kind", "x"), ("reason", "q")]), 3);
        assert_eq!(metrics.sum("a_total", &[("kind", "y")]), 0);
        assert_eq!(metrics.sum("b", &[]), 7);
    }
}
