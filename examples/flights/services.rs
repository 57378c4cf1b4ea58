//! Sidecar and joiner as two tasks that end when they are told to, whatever the tasks do.

use std::future::Future;
use std::pin::Pin;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::Error;

/// Resolves when a service is to end.
pub type Stop = Pin<Box<dyn Future<Output = ()> + Send>>;

pub struct Services {
    /// `http://host:port` of the sidecar.
    pub url: String,
    pub sidecar: Service,
    pub joiner: Service,
}

impl Services {
    /// Resolves when one of the two has ended for good though nobody stopped it.
    pub async fn failed(&mut self) -> Error {
        let (name, result) = tokio::select! {
            result = &mut self.sidecar.task => (self.sidecar.name, result),
            result = &mut self.joiner.task => (self.joiner.name, result),
        };
        match result {
            Ok(Ok(())) => format!("the {name} ended").into(),
            Ok(Err(error)) => format!("the {name}: {error}").into(),
            Err(error) => format!("the {name} ended: {error}").into(),
        }
    }
}

pub struct Service {
    name: &'static str,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<(), String>>,
}

impl Service {
    pub fn start<F>(name: &'static str, run: impl FnOnce(Stop) -> F) -> Service
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
    pub async fn stop(&mut self) -> Result<(), Error> {
        let Some(stop) = self.stop.take() else { return Ok(()) };
        // How it ended was told by `failed`; a finished task has nothing more to give.
        if self.task.is_finished() || stop.send(()).is_err() {
            return Ok(());
        }
        (&mut self.task).await?.map_err(|error| format!("the {}: {error}", self.name).into())
    }
}
