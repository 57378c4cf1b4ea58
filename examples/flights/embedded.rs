//! Sidecar and joiner as tasks of this process, with a log, a registry and a catalog on local disk.

use std::path::Path;

use crate::Error;
use crate::services::{Service, Services};

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
    let joiner = Service::start("joiner", |stop| async move { app.run(stop).await.map_err(|error| error.to_string()) });
    Ok(Services { url: format!("http://{address}"), sidecar, joiner })
}
