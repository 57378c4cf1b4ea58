//! What logging costs the model's thread in Python: the client ÷ `requests.Session().post`.
//!
//! Both send the same dicts of 100 features to the same sidecar, in turns, from one Python process; the sidecar runs in
//! this one and spools. The cost is CPU time of the calling thread: `examples/python/flywheel-client/bench/cost.py` says
//! how it is taken, and measures it. The bar is for calls that come close together. The note has the CPU time of the whole
//! process beside it, so that nobody takes work that was handed to another thread for work that was saved, and the cost of
//! calls far apart, most of which is the processor's caches and differs with what else the machine does.

use std::error::Error;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use flywheel_sidecar::{App, Config};
use serde::Deserialize;
use tokio::sync::oneshot;

use super::transcode::contract_text;
use super::{Area, Bar, Measure, median};
use crate::servers::scripts;

pub const AREA: Area = Area {
    name: "client",
    about: "CPU of the thread that logs 100 features from Python: the client ÷ requests.Session().post",
    run,
};

const ROUNDS: usize = 7;
const BAR: Bar = Bar::AtMost(0.05);

/// A round of the script, in microseconds a row.
#[derive(Deserialize)]
struct Round {
    client: f64,
    client_process: f64,
    requests: f64,
    requests_process: f64,
    client_paced: f64,
    requests_paced: f64,
}

fn run() -> Result<Vec<Measure>, Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let contracts = dir.path().join("contracts");
    std::fs::create_dir(&contracts)?;
    std::fs::write(contracts.join("bench.yaml"), contract_text())?;
    let mut config = Config::default();
    let free = SocketAddr::from(([127, 0, 0, 1], 0));
    let socket = dir.path().join("sock");
    (config.listen.tcp, config.listen.admin, config.listen.uds) = (Some(free), free, Some(socket.clone()));
    config.contracts.dir = contracts;
    config.spool.dir = dir.path().join("spool");
    // Far more than the rounds fill.
    config.spool.max_bytes = 64 << 30;
    config.log.url = "kafka://127.0.0.1:1".to_owned();
    config.registry.url = format!("file:{}", dir.path().join("registry").display());
    config.shutdown.drain_ms = 0;

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let app = runtime.block_on(App::build(config))?;
    let address = app.address();
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = runtime.spawn(app.run(async {
        let _ = stopped.await;
    }));
    let output = Command::new(scripts().join("python-client.sh"))
        .args(["run", "bench/cost.py"])
        .arg(format!("unix:{}", socket.display()))
        .arg(format!("http://{address}"))
        .arg(ROUNDS.to_string())
        .stderr(Stdio::inherit())
        .output()?;
    let _ = stop.send(());
    runtime.block_on(serving)?;
    if !output.status.success() {
        return Err(format!("bench/cost.py: {}", output.status).into());
    }
    let lines = String::from_utf8(output.stdout)?;
    let rounds: Vec<Round> = lines.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    if rounds.len() != ROUNDS {
        return Err(format!("bench/cost.py gave {} rounds of {ROUNDS}", rounds.len()).into());
    }
    let middle = |of: fn(&Round) -> f64| median(&mut rounds.iter().map(of).collect::<Vec<_>>());
    let measure = Measure {
        name: "caller",
        ratios: rounds.iter().map(|round| round.client / round.requests).collect(),
        bar: BAR,
        note: format!(
            "{:.1} µs ÷ {:.0} µs; the whole process {:.1} µs ÷ {:.0} µs; the caller with one call a millisecond, its \
             code out of the caches, {:.1} µs ÷ {:.0} µs",
            middle(|round| round.client),
            middle(|round| round.requests),
            middle(|round| round.client_process),
            middle(|round| round.requests_process),
            middle(|round| round.client_paced),
            middle(|round| round.requests_paced)
        ),
    };
    Ok(vec![measure])
}
