//! Tables whose topic is gone.
//!
//! Models are found by their topics, so that nothing would be said of one whose topic was deleted while no joiner ran, and what
//! was not landed by then is lost. Therefore the tables are asked for theirs, once at the start.

use std::time::Duration;

use flywheel_schemas::wire::{self, Kind};
use tokio::sync::watch;

use crate::pipeline::Shared;
use crate::source::{Feeds, SourceError};
use crate::table::{TableError, Warehouse};

/// Where log or catalog are away, they are asked again after this time.
const RETRY: Duration = Duration::from_secs(10);

/// The property of a table that is to be without a topic, whatever its value.
pub(crate) const RETIRED: &str = "flywheel.retired";

const PREDICTIONS: &str = "_predictions";

/// Sounds an alarm for each model that was landed and has no topic.
pub(crate) async fn look(feeds: Feeds, shared: Shared, mut stop: watch::Receiver<bool>) {
    loop {
        let error = match look_once(&feeds, &shared.warehouse, &shared.config.log.prefix).await {
            Ok(gone) => {
                gone.iter().for_each(|(model, topic)| shared.metrics.topic_gone(model, topic));
                return;
            }
            Err(error) => error,
        };
        tracing::debug!(error, "not known whether the tables have their topics, asking again");
        tokio::select! {
            () = tokio::time::sleep(RETRY) => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}

/// Models and topics that are gone.
async fn look_once(feeds: &Feeds, warehouse: &Warehouse, prefix: &str) -> Result<Vec<(String, String)>, String> {
    let told = |error: TableError| error.to_string();
    let mut gone = Vec::new();
    for name in warehouse.tables().await.map_err(told)? {
        let Some(model) = name.strip_suffix(PREDICTIONS) else { continue };
        let Some(table) = warehouse.load(&name).await.map_err(told)? else { continue };
        // One that was never landed to lacks nothing.
        if table.property(RETIRED).is_some() || table.snapshot_id().is_none() {
            continue;
        }
        let topic = wire::topic(prefix, model, Kind::Predictions);
        match feeds.partition_count(&topic).await {
            Err(SourceError::UnknownTopic { .. }) => gone.push((model.to_owned(), topic)),
            Err(error) => return Err(error.to_string()),
            Ok(_) => {}
        }
    }
    Ok(gone)
}

#[cfg(test)]
mod tests {
    use flywheel_schemas::contract::Contract;
    use flywheel_schemas::log::Folder;
    use flywheel_schemas::table;

    use super::*;
    use crate::metrics::Metrics;
    use crate::pipeline::tests::rig::{CONTRACT, Rig, START};

    #[tokio::test]
    async fn a_table_without_its_topic_is_an_alarm_unless_it_is_retired() {
        let rig = Rig::new(1).await;
        let look = async || {
            let shared = Shared { metrics: Metrics::new(), ..rig.shared.clone() };
            look(rig.source.feeds(), shared.clone(), watch::channel(false).1).await;
            let text = shared.metrics.render().unwrap();
            text.lines().any(|line| line == "flywheel_joiner_topic_gone{model=\"m\"} 1")
        };
        let topic = Folder::new(&rig.dir.path().join("log")).partition_dir("flywheel.m.predictions", 0);
        let topic = topic.parent().unwrap();
        rig.predict(1, START, START, 1.0).await;
        let mut pipeline = rig.pipeline("a").await;
        std::fs::rename(topic, topic.with_extension("away")).unwrap();
        assert!(!look().await, "nothing was landed from it");
        std::fs::rename(topic.with_extension("away"), topic).unwrap();
        rig.run(&mut pipeline).await;
        assert!(!look().await);
        std::fs::rename(topic, topic.with_extension("away")).unwrap();
        assert!(look().await);
        let spec = table::predictions(&Contract::parse(CONTRACT).unwrap());
        rig.shared.warehouse.table(&spec, &[(RETIRED, "true".to_owned())]).await.unwrap();
        assert!(!look().await);
    }
}
