//! Outcomes: what became of a prediction.

use flywheel_schemas::wire::Kind;
use flywheel_spool::SchemaKey;

use super::{Intake, Row};
use crate::metrics::Route;
use crate::models::Version;
use crate::transcode::{self, Fault, Receipt, Scratch};

pub(crate) struct Outcomes;

impl Intake for Outcomes {
    const KIND: Kind = Kind::Outcomes;
    const ROUTE: Route = Route::Outcomes;
    const ID: &'static str = "event_id";
    const IDS: &'static str = "event_ids";

    fn schema(version: &Version) -> SchemaKey {
        version.outcome_schema
    }

    fn transcode(
        version: &Version,
        scratch: &mut Scratch,
        body: &[u8],
        receipt: &Receipt<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Row, Vec<Fault>> {
        let stated = transcode::outcome(&version.plan, scratch, body, receipt, out)?;
        Ok(Row { prediction_id: stated.prediction_id, id: stated.event_id, sampled_out: false })
    }
}
