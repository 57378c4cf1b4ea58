//! Sidecar and joiner as tasks of this process, with a log, a registry and a catalog on local disk.

use std::future::Future;
use std::path::Path;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::Error;

pub struct Services {
    pub url: String,
    sidecar: Service,
    joiner: Service,
}

/// A task that ends when it is told to.
struct Service {
    name: &'static str,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<(), String>>,
}

impl Services {
    pub async fn start(sidecar: &Path, joiner: &Path) -> Result<Services, Error> {
        // The environment of a shell that runs other sidecars and joiners has no say in the demonstration.
        let config = flywheel_sidecar::Config::load(Some(sidecar), std::iter::empty())?;
        let app = flywheel_sidecar::App::build(config).await?;
        let address = app.address();
        let sidecar = Service::start("sidecar", |stop| async move {
            let stopped = app.run(stop).await;
            match (stopped.failed, stopped.unforwarded) {
                (false, 0) => Ok(()),
                (false, rest) => {
                    Err(format!("{rest} accepted records have not reached the log; the next start sends them"))
                }
                (true, _) => Err("a task of it failed; run with --log info to see more".to_owned()),
            }
        });
        let text = std::fs::read_to_string(joiner)?;
        let config = flywheel_joiner::Config::from_layers(text.parse()?, std::iter::empty())?;
        let app = flywheel_joiner::App::build(config).await?;
        let joiner =
            Service::start("joiner", |stop| async move { app.run(stop).await.map_err(|error| error.to_string()) });
        Ok(Services { url: format!("http://{address}"), sidecar, joiner })
    }

    pub async fn failed(&mut self) -> Error {
        let (name, result) = tokio::select! {
            result = &mut self.sidecar.task => (self.sidecar.name, result),
            result = &mut self.joiner.task => (self.joiner.name, result),
        };
        match result {
            Ok(Ok(())) => format!("the {name} ended").into(),
            Ok(Err(error)) => format!("the {name} ended: {error}").into(),
            Err(error) => format!("the {name} ended: {error}").into(),
        }
    }

    pub async fn stop_sidecar(&mut self) -> Result<(), Error> {
        self.sidecar.stop().await
    }

    pub async fn stop_joiner(&mut self) -> Result<(), Error> {
        self.joiner.stop().await
    }
}

impl Service {
    fn start<F>(name: &'static str, run: impl FnOnce(Stop) -> F) -> Service
    where
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        let (stop, stopped) = oneshot::channel();
        // The sender is dropped only with the services, so either way the end of the wait is the end.
        let stopped: Stop = Box::pin(async move {
            let _ = stopped.await;
        });
        Service { name, stop: Some(stop), task: tokio::spawn(run(stopped)) }
    }

    /// Its own drain deadline bounds the wait.
    async fn stop(&mut self) -> Result<(), Error> {
        let Some(stop) = self.stop.take() else { return Ok(()) };
        let _ = stop.send(());
        (&mut self.task).await?.map_err(|error| format!("the {}: {error}", self.name).into())
    }
}

type Stop = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;
