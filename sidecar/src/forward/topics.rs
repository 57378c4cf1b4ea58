//! Which topic each record of a spool goes to, and under what CloudEvents source.

use std::sync::Arc;

use flywheel_schemas::wire::{self, Kind};

use crate::record::RecordKind;

/// The topics of one spool directory: the two of a model, or those of the whole service.
#[derive(Debug, Clone)]
pub struct Topics {
    name: String,
    source: String,
    targets: Vec<Arc<Target>>,
}

/// Where records of one kind go.
#[derive(Debug, Clone)]
pub struct Target {
    pub kind: RecordKind,
    pub topic: String,
    /// The registry's subject of its values.
    pub subject: String,
    /// The CloudEvents type.
    pub event: &'static str,
    /// Whether the topic has one partition only.
    pub single: bool,
}

impl Target {
    fn new(kind: RecordKind, topic: String, event: &'static str, single: bool) -> Arc<Target> {
        let subject = wire::subject(&topic);
        Arc::new(Target { kind, topic, subject, event, single })
    }
}

impl Topics {
    /// The predictions and outcomes of a model.
    pub fn model(prefix: &str, model: &str) -> Topics {
        let topic = |kind| wire::topic(prefix, model, kind);
        Topics {
            name: model.to_string(),
            source: format!("/flywheel/{model}"),
            targets: vec![
                Target::new(RecordKind::Prediction, topic(Kind::Predictions), "flywheel.prediction.v1", false),
                Target::new(RecordKind::Outcome, topic(Kind::Outcomes), "flywheel.outcome.v1", false),
            ],
        }
    }

    /// The ledgers and dead letters of all models.
    pub fn service(prefix: &str) -> Topics {
        Topics {
            name: "service".to_string(),
            source: "/flywheel".to_string(),
            targets: vec![
                Target::new(RecordKind::Ledger, wire::ledger_topic(prefix), "flywheel.ledger.v1", true),
                Target::new(RecordKind::DeadLetter, wire::dead_letter_topic(prefix), "flywheel.dead_letter.v1", true),
            ],
        }
    }

    /// The model, or `service`: for logs.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The CloudEvents source.
    pub fn source(&self) -> &str {
        &self.source
    }

    pub fn all(&self) -> &[Arc<Target>] {
        &self.targets
    }

    /// Where records of this kind go; none where this spool has no place for them.
    pub fn target(&self, kind: RecordKind) -> Option<&Arc<Target>> {
        self.targets.iter().find(|target| target.kind == kind)
    }
}
