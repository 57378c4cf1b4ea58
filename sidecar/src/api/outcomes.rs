//! Outcomes: what became of a prediction.

use flywheel_schemas::wire::Kind;
use flywheel_spool::SchemaKey;

use super::{Intake, Row};
use crate::metrics::Route;
use crate::models::Version;
use crate::shared::Work;
use crate::transcode::{self, Fault, Receipt};

pub(crate) struct Outcomes;

impl Intake for Outcomes {
    const KIND: Kind = Kind::Outcomes;
    const ROUTE: Route = Route::Outcomes;
    const ID: &'static str = "event_id";
    const IDS: &'static str = "event_ids";

    fn schema(version: &Version) -> SchemaKey {
        version.outcome_schema
    }

    fn transcode(version: &Version, work: &mut Work, body: &[u8], receipt: &Receipt<'_>) -> Result<Row, Vec<Fault>> {
        let stated = transcode::outcome(&version.plan, &mut work.scratch, body, receipt, &mut work.datum)?;
        Ok(Row { prediction_id: stated.prediction_id, id: stated.event_id, sampled_out: false })
    }
}
