//! Predictions: what a model server served.

use flywheel_schemas::wire::Kind;
use flywheel_spool::SchemaKey;

use super::{Intake, Row};
use crate::metrics::Route;
use crate::models::Version;
use crate::shared::Work;
use crate::transcode::{self, Candidates, Fault, Receipt, Served};

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
        transcode::prediction(&version.plan, &mut work.scratch, body, receipt, &mut work.datum).map(Row::from)
    }

    fn has_items(body: &[u8]) -> bool {
        Candidates::are_in(body)
    }
}

impl From<Served> for Row {
    fn from(served: Served) -> Row {
        let id = served.prediction_id;
        Row { prediction_id: id, id, sampled_out: served.sampled_out }
    }
}
