//! Predictions: what a model server served.

use flywheel_schemas::wire::Kind;
use flywheel_spool::SchemaKey;

use super::{Intake, Row};
use crate::metrics::Route;
use crate::models::Version;
use crate::shared::Work;
use crate::transcode::{self, Fault, Receipt};

pub(crate) struct Predictions;

impl Intake for Predictions {
    const KIND: Kind = Kind::Predictions;
    const ROUTE: Route = Route::Predictions;
    const ID: &'static str = "prediction_id";
    const IDS: &'static str = "prediction_ids";

    fn schema(version: &Version) -> SchemaKey {
        version.prediction_schema
    }

    fn transcode(version: &Version, work: &mut Work, body: &[u8], receipt: &Receipt<'_>) -> Result<Row, Vec<Fault>> {
        let served = transcode::prediction(&version.plan, &mut work.scratch, body, receipt, &mut work.datum)?;
        let id = served.prediction_id;
        Ok(Row { prediction_id: id, id, sampled_out: served.sampled_out })
    }
}
