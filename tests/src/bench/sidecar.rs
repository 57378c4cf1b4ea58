//! Requests a second on one core: the sidecar ÷ the same axum server with an empty handler.
//!
//! Both servers run in this process, each on a runtime of one thread; that thread, and with it every thread that it
//! starts (the spool's writers, the forwarders), is bound to core 0. The load comes from core 1 over 64 kept
//! connections, each with one request on its way: predictions of 100 features, about 3.2 kB of JSON. It never sleeps, so
//! that no answer costs the server the waking of another core, as none does whose client is on another machine. The empty
//! handler reads the body and answers with as many bytes as the sidecar does. The two take turns, so that a busy machine
//! slows both.
//!
//! Nothing is forwarded meanwhile (the broker's address leads nowhere): what is measured is intake, to the spool.

use std::error::Error;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::routing::post;
use flywheel_sidecar::{App, Config};
use tokio::sync::oneshot;

use super::transcode::{body, contract_text};
use super::{Area, Bar, Measure, median};

pub const AREA: Area = Area {
    name: "sidecar",
    about: "requests a second on one core, 100 features: the sidecar ÷ axum with an empty handler",
    run,
};

const PATH: &str = "/v1/models/bench/predictions";
const CONNECTIONS: usize = 64;
const ROUNDS: usize = 15;
/// Some ten thousand requests.
const SAMPLE_TIME: Duration = Duration::from_millis(300);
/// A sample of each side that does not count.
const WARM_UP: Duration = Duration::from_millis(500);
/// Nothing takes longer on a machine that works.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

fn run() -> Result<Vec<Measure>, Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let contracts = dir.path().join("contracts");
    std::fs::create_dir(&contracts)?;
    std::fs::write(contracts.join("bench.yaml"), contract_text())?;
    let mut config = Config::default();
    let free = SocketAddr::from(([127, 0, 0, 1], 0));
    (config.listen.tcp, config.listen.admin) = (Some(free), free);
    config.contracts.dir = contracts;
    config.spool.dir = dir.path().join("spool");
    // Far more than the rounds fill.
    config.spool.max_bytes = 64 << 30;
    config.log.url = "kafka://127.0.0.1:1".to_owned();
    config.registry.url = format!("file:{}", dir.path().join("registry").display());
    config.shutdown.drain_ms = 0;

    let ours = Server::start(async move |ready: mpsc::Sender<SocketAddr>, stop: oneshot::Receiver<()>| {
        let app = App::build(config).await?;
        ready.send(app.address())?;
        app.run(async {
            let _ = stop.await;
        })
        .await;
        Ok(())
    })?;
    let empty = Server::start(async move |ready: mpsc::Sender<SocketAddr>, stop: oneshot::Receiver<()>| {
        let answer = r#"{"prediction_id":"01932d9c-5d3c-7000-8000-000000000000"}"#;
        let handler = async move |_: Bytes| (StatusCode::ACCEPTED, [(CONTENT_TYPE, "application/json")], answer);
        let router = Router::new().route("/v1/models/{model}/predictions", post(handler));
        let listener = tokio::net::TcpListener::bind(free).await?;
        ready.send(listener.local_addr()?)?;
        axum::serve(listener, router)
            .with_graceful_shutdown(async {
                let _ = stop.await;
            })
            .await?;
        Ok(())
    })?;

    bind_this_thread(1)?;
    let body = body(1, false);
    let length = body.len();
    let request = format!(
        "POST {PATH} HTTP/1.1\r\nHost: sidecar\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    let mut our_load = Load::connect(ours.address, request.as_bytes())?;
    let mut empty_load = Load::connect(empty.address, request.as_bytes())?;
    our_load.sample(WARM_UP)?;
    empty_load.sample(WARM_UP)?;
    let (mut ratios, mut our_rates, mut empty_rates) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (our_rate, empty_rate) = (our_load.sample(SAMPLE_TIME)?, empty_load.sample(SAMPLE_TIME)?);
        ratios.push(our_rate / empty_rate);
        our_rates.push(our_rate);
        empty_rates.push(empty_rate);
    }
    drop((our_load, empty_load));
    ours.stop()?;
    empty.stop()?;
    let note = format!("{:.0}/s ÷ {:.0}/s; {length} B of JSON", median(&mut our_rates), median(&mut empty_rates));
    Ok(vec![Measure { name: "requests a second", ratios, bar: Bar::AtLeast(0.5), note }])
}

type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

/// A server on a thread that is bound to core 0.
struct Server {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<Outcome>,
}

impl Server {
    fn start<F>(serve: F) -> Result<Server, Box<dyn Error>>
    where
        F: AsyncFnOnce(mpsc::Sender<SocketAddr>, oneshot::Receiver<()>) -> Outcome + Send + 'static,
    {
        let (ready, is_ready) = mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            // Before the runtime: threads take the binding of the one that starts them.
            bind_this_thread(0).map_err(|error| error.to_string())?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(serve(ready, stopped))
        });
        match is_ready.recv() {
            Ok(address) => Ok(Server { address, stop, thread }),
            Err(_) => match thread.join() {
                Ok(Err(error)) => Err(error),
                _ => Err("a server did not start".into()),
            },
        }
    }

    fn stop(self) -> Result<(), Box<dyn Error>> {
        let _ = self.stop.send(());
        self.thread.join().map_err(|_| "a server panicked")?.map_err(|error| error as Box<dyn Error>)
    }
}

/// Binds the calling thread to a core, by `taskset` of util-linux.
fn bind_this_thread(core: usize) -> Result<(), Box<dyn Error>> {
    let this = std::fs::read_link("/proc/thread-self")?;
    let id = this.file_name().and_then(|name| name.to_str()).ok_or("no thread id in /proc/thread-self")?;
    let mut taskset = Command::new("taskset");
    let status = taskset.args(["-cp", &core.to_string(), id]).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    if status.success() { Ok(()) } else { Err(format!("taskset does not bind to core {core}; two are needed").into()) }
}

/// Connections to one server, each with a request on its way while a sample is taken.
struct Load<'a> {
    connections: Vec<TcpStream>,
    request: &'a [u8],
    /// All answers are as long: ids, dates and heads do not vary in length.
    answer: Vec<u8>,
}

impl<'a> Load<'a> {
    fn connect(address: SocketAddr, request: &'a [u8]) -> Result<Load<'a>, Box<dyn Error>> {
        let mut connections = Vec::new();
        let mut answer_bytes = 0;
        for _ in 0..CONNECTIONS {
            let mut connection = TcpStream::connect(address)?;
            connection.set_nodelay(true)?;
            connection.set_read_timeout(Some(ANSWER_WITHIN))?;
            connection.write_all(request)?;
            let mut answer = Vec::new();
            while !answer.ends_with(b"}") {
                let mut piece = [0; 1024];
                match connection.read(&mut piece)? {
                    0 => return Err("the server closed the connection".into()),
                    length => answer.extend_from_slice(&piece[..length]),
                }
            }
            if !answer.starts_with(b"HTTP/1.1 202") {
                return Err(String::from_utf8_lossy(&answer).into());
            }
            answer_bytes = answer.len();
            connection.set_nonblocking(true)?;
            connections.push(connection);
        }
        Ok(Load { connections, request, answer: vec![0; answer_bytes] })
    }

    /// Requests a second.
    fn sample(&mut self, time: Duration) -> Result<f64, Box<dyn Error>> {
        for connection in &mut self.connections {
            spin(|| connection.write(self.request), self.request.len())?;
        }
        let start = Instant::now();
        let mut answered = 0_u32;
        while start.elapsed() < time {
            for connection in &mut self.connections {
                spin_read(connection, &mut self.answer)?;
                spin(|| connection.write(self.request), self.request.len())?;
                answered += 1;
            }
        }
        let rate = f64::from(answered) / start.elapsed().as_secs_f64();
        for connection in &mut self.connections {
            spin_read(connection, &mut self.answer)?;
            if !self.answer.starts_with(b"HTTP/1.1 202") {
                return Err(String::from_utf8_lossy(&self.answer).into());
            }
        }
        Ok(rate)
    }
}

/// Reads one answer whole.
fn spin_read(connection: &mut TcpStream, answer: &mut [u8]) -> Result<(), Box<dyn Error>> {
    let bytes = answer.len();
    spin(|| connection.read(answer), bytes)
}

/// Repeats a call until it does not have to wait. It then takes all: requests and answers are far smaller than the
/// buffers of a connection, and are written with one call.
fn spin(mut call: impl FnMut() -> std::io::Result<usize>, bytes: usize) -> Result<(), Box<dyn Error>> {
    let start = Instant::now();
    loop {
        match call() {
            Ok(done) if done == bytes => return Ok(()),
            Ok(0) => return Err("the server closed the connection".into()),
            Ok(done) => return Err(format!("{done} of {bytes} bytes went at once").into()),
            Err(error) if error.kind() == ErrorKind::WouldBlock && start.elapsed() < ANSWER_WITHIN => {}
            Err(error) => return Err(error.into()),
        }
    }
}
