//! The real binary, killed and started again: nothing that was accepted is lost, and the ledger is closed.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Child, Command, ExitStatus, Stdio};

use crate::client::{Client, eventually};
use crate::sidecar::{CONTRACT, OUTCOMES, PREDICTIONS, Place, outcome, prediction};

/// The sidecar as a process; killed when the test ends.
pub struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    pub async fn start(place: &Place) -> Process {
        let file = place.dir.path().join("sidecar.toml");
        std::fs::write(&file, place.config.to_toml()).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_flywheel-sidecar"));
        let child = command.arg("--config").arg(file).stderr(Stdio::null()).spawn().unwrap();
        let process = Process(child);
        eventually("the socket takes connections", async || tokio::net::UnixStream::connect(place.uds()).await.is_ok())
            .await;
        // It answers once the spools are recovered.
        assert_eq!(Client::uds(place.uds()).await.get("/openapi.json").await.status, 200);
        process
    }

    /// At whichever instruction it is.
    pub fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill").arg(format!("-{name}")).arg(self.0.id().to_string()).status().unwrap();
        assert!(status.success());
    }

    pub async fn terminate(mut self) -> ExitStatus {
        self.signal("TERM");
        let mut status = None;
        eventually("the process ends", async || {
            status = self.0.try_wait().unwrap();
            status.is_some()
        })
        .await;
        status.unwrap()
    }
}

/// Per ledger record in the log, what follows the producer's id, once there are as many.
async fn ledger(place: &Place, count: usize) -> Vec<String> {
    eventually("the ledger records are in the log", async || place.logged("flywheel.ledger").len() >= count).await;
    let records = place.logged("flywheel.ledger");
    records.into_iter().map(|record| record.id.split_once("/flights/").unwrap().1.to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_sidecar_loses_nothing_and_its_successor_closes_its_ledger() {
    let place = Place::new();
    let first = Process::start(&place).await;
    let mut client = Client::uds(place.uds()).await;
    let mut ids = Vec::new();
    for delay in 0..5 {
        let answer = client.post(PREDICTIONS, prediction(delay)).await;
        assert_eq!(answer.status, 202, "{answer:?}");
        ids.push(answer.json()["prediction_id"].as_str().unwrap().to_owned());
    }
    assert_eq!(client.post(OUTCOMES, outcome(&ids[0])).await.status, 202);
    assert_eq!(client.post(PREDICTIONS, "{").await.status, 422);
    first.kill();

    let second = Process::start(&place).await;
    assert_eq!(ledger(&place, 2).await, ["predictions/1/5/recovery", "outcomes/1/1/recovery"]);
    let mut client = Client::uds(place.uds()).await;
    for delay in 5..8 {
        let answer = client.post(PREDICTIONS, prediction(delay)).await;
        ids.push(answer.json()["prediction_id"].as_str().unwrap().to_owned());
    }
    assert!(second.terminate().await.success());
    assert!(!place.uds().exists());
    assert_eq!(ledger(&place, 3).await[2..], ["predictions/1/3/shutdown"]);

    // A third start finds everything closed, for all producers that there were.
    let third = Process::start(&place).await;
    assert!(third.terminate().await.success());
    assert_eq!(ledger(&place, 3).await.len(), 3);

    // A record may be in the log twice, where the process was killed before the cursor was written.
    let mut logged = place.logged("flywheel.flights.predictions");
    logged.sort();
    logged.dedup();
    for (producer, count) in [(0, 5), (5, 3)] {
        let mine: BTreeMap<_, _> = ids[producer..producer + count].iter().zip(1..).collect();
        let found: BTreeMap<_, _> = logged
            .iter()
            .filter(|record| mine.contains_key(&record.key))
            .map(|record| (&record.key, record.seq.parse().unwrap()))
            .collect();
        assert_eq!(found, mine);
    }
    let producers: BTreeSet<_> = logged.iter().map(|record| &record.producer_id).collect();
    assert_eq!((logged.len(), producers.len()), (8, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_model_accepted_is_forwarded_though_its_contract_is_gone() {
    let mut place = Place::new();
    let log = std::mem::replace(&mut place.config.log.url, "kafka://127.0.0.1:1".to_owned());
    place.config.shutdown.drain_ms = 100;
    let sidecar = place.start().await;
    assert_eq!(sidecar.client().await.post(PREDICTIONS, prediction(1)).await.status, 202);
    assert!(sidecar.stop().await.unforwarded > 0);

    place.config.log.url = log;
    place.config.shutdown.drain_ms = 20_000;
    std::fs::remove_file(place.config.contracts.dir.join("flights.yaml")).unwrap();
    let sidecar = place.start().await;
    let mut client = sidecar.client().await;
    assert_eq!(client.post(PREDICTIONS, prediction(1)).await.status, 404);
    let delivered = r#"flywheel_delivered_records_total{spool="flights",kind="prediction"}"#;
    eventually("the record is delivered", async || sidecar.metric(delivered).await == 1.0).await;
    assert_eq!(sidecar.stop().await.unforwarded, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hang_up_reads_contracts_and_rates_again() {
    let mut place = Place::new();
    let process = Process::start(&place).await;
    place.contract("other.yaml", &CONTRACT.replace("model: flights", "model: other"));
    place.config.sampling.insert("other".to_owned(), 1e-9);
    std::fs::write(place.dir.path().join("sidecar.toml"), place.config.to_toml()).unwrap();
    process.signal("HUP");
    let mut client = Client::uds(place.uds()).await;
    eventually("the new model is known", async || {
        client.post("/v1/models/other/predictions", prediction(1)).await.status == 202
    })
    .await;
    assert_eq!(place.records("other"), [], "sampled out at such a rate");
    assert!(process.terminate().await.success());
}

#[test]
fn the_configuration_in_force_can_be_printed_and_faults_of_it_end_in_2() {
    let binary = env!("CARGO_BIN_EXE_flywheel-sidecar");
    let printed =
        Command::new(binary).arg("--print-config").env("FLYWHEEL_SIDECAR_LOG_PREFIX", "abc").output().unwrap();
    assert!(printed.status.success());
    assert!(String::from_utf8(printed.stdout).unwrap().contains("prefix = \"abc\""));
    let refused = Command::new(binary).env("FLYWHEEL_SIDECAR_LOG_PREFX", "abc").output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8(refused.stderr).unwrap().contains("FLYWHEEL_SIDECAR_LOG_PREFX"));
}
