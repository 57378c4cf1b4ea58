//! The two servers that are compared: the sidecar, and the same axum with an empty handler.
//!
//! Both run in this process, each on a runtime of one thread; that thread, and with it every thread that it starts (the
//! spool's writers, the forwarders), is bound to core 0.

use std::error::Error;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::mpsc;
use std::thread::JoinHandle;

use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::routing::post;
use flywheel_sidecar::{App, Config};
use tokio::sync::oneshot;

use crate::bench::cores::bind_this_thread;
use crate::bench::transcode::contract_text;

const FREE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

/// A server on a thread that is bound to core 0.
pub struct Server {
    pub address: SocketAddr,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<Outcome>,
}

/// Settings of a sidecar that has the contract of the bodies and no broker: what is measured is intake, to the spool.
pub fn config(dir: &Path, spool_bytes: u64) -> std::io::Result<Config> {
    let contracts = dir.join("contracts");
    std::fs::create_dir_all(&contracts)?;
    std::fs::write(contracts.join("bench.yaml"), contract_text())?;
    let mut config = Config::default();
    (config.listen.tcp, config.listen.admin) = (Some(FREE), FREE);
    config.contracts.dir = contracts;
    config.spool.dir = dir.join("spool");
    config.spool.max_bytes = spool_bytes;
    config.log.url = "kafka://127.0.0.1:1".to_owned();
    config.registry.url = format!("file:{}", dir.join("registry").display());
    config.shutdown.drain_ms = 0;
    Ok(config)
}

impl Server {
    /// The sidecar.
    pub fn ours(config: Config) -> Result<Server, Box<dyn Error>> {
        Server::start(async move |ready: mpsc::Sender<SocketAddr>, stop: oneshot::Receiver<()>| {
            let app = App::build(config).await?;
            ready.send(app.address())?;
            app.run(async {
                let _ = stop.await;
            })
            .await;
            Ok(())
        })
    }

    /// Reads the body and answers with as many bytes as the sidecar does.
    pub fn empty() -> Result<Server, Box<dyn Error>> {
        Server::start(async move |ready: mpsc::Sender<SocketAddr>, stop: oneshot::Receiver<()>| {
            let answer = r#"{"prediction_id":"01932d9c-5d3c-7000-8000-000000000000"}"#;
            let handler = async move |_: Bytes| (StatusCode::ACCEPTED, [(CONTENT_TYPE, "application/json")], answer);
            let router = Router::new().route("/v1/models/{model}/predictions", post(handler));
            let listener = tokio::net::TcpListener::bind(FREE).await?;
            ready.send(listener.local_addr()?)?;
            axum::serve(listener, router)
                .with_graceful_shutdown(async {
                    let _ = stop.await;
                })
                .await?;
            Ok(())
        })
    }

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

    pub fn stop(self) -> Result<(), Box<dyn Error>> {
        let _ = self.stop.send(());
        self.thread.join().map_err(|_| "a server panicked")?.map_err(|error| error as Box<dyn Error>)
    }
}
