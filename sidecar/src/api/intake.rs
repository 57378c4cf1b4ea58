//! What both kinds of row and both forms of body share: checking a row, appending it, and counting it where it is refused.

use flywheel_schemas::wire::Kind;
use flywheel_spool::AppendError;

use super::error::Problem;
use super::{Intake, Row};
use crate::dead_letter::Letter;
use crate::models::{Entry, EntryError, Event, Model, Ticket, Version};
use crate::shared::{Shared, Work};
use crate::transcode::{Fault, Id, Receipt};

/// What is known of a request before its body is looked at.
pub(crate) struct Call<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) model: &'a Model,
    /// Receipt.
    pub(crate) now_ms: i64,
    pub(crate) traceparent: Option<&'a [u8]>,
    pub(crate) trace_id: Option<&'a str>,
}

/// A row that is on its way.
pub(crate) struct Appended {
    pub(crate) id: Id,
    /// None where sampling left it out.
    pub(crate) ticket: Option<Ticket>,
}

/// Why a row was not accepted.
pub(crate) enum Refusal {
    Faults(Vec<Fault>),
    Append(AppendError),
}

impl Call<'_> {
    /// Takes the model's clock to the time of the request; nothing else in a replay is appended until the entry goes.
    pub(crate) fn enter(&self) -> Result<Entry<'_>, Problem> {
        self.model.enter(self.now_ms).map_err(|error| match error {
            EntryError::WentBack { last_ms } => Problem::time_went_back(last_ms),
            EntryError::TooFar { days_max } => {
                Problem::bad_request(format!("Flywheel-Time is more than {days_max} days after the last one"))
            }
        })
    }

    pub(crate) fn receipt(&self) -> Receipt<'_> {
        Receipt { now_ms: self.now_ms, trace_id: self.trace_id }
    }

    /// Checks one row and appends it.
    pub(crate) fn append<I: Intake>(
        &self,
        version: &Version,
        entry: &mut Entry<'_>,
        work: &mut Work,
        body: &[u8],
    ) -> Result<Appended, Refusal> {
        self.append_row::<I>(version, entry, work, |work| I::transcode(version, work, body, &self.receipt()))
    }

    /// Appends the row that `transcode` writes to `work.datum`.
    pub(crate) fn append_row<I: Intake>(
        &self,
        version: &Version,
        entry: &mut Entry<'_>,
        work: &mut Work,
        transcode: impl FnOnce(&mut Work) -> Result<Row, Vec<Fault>>,
    ) -> Result<Appended, Refusal> {
        work.datum.clear();
        let Row { prediction_id, id, sampled_out } = transcode(work).map_err(Refusal::Faults)?;
        if sampled_out {
            entry.pass().map_err(Refusal::Append)?;
            self.model.lane(I::KIND).leave_out();
            return Ok(Appended { id, ticket: None });
        }
        let event = Event {
            kind: I::KIND,
            schema: I::schema(version),
            key: prediction_id.as_bytes(),
            id: id.as_bytes(),
            traceparent: self.traceparent,
            datum: &work.datum,
        };
        let ticket = entry.append(&event).map_err(Refusal::Append)?;
        Ok(Appended { id, ticket: Some(ticket) })
    }

    /// Counts a body that does not keep the contract, and keeps it as a dead letter. `body` may be cut.
    pub(crate) fn refuse(&self, kind: Kind, faults: &[Fault], body: &[u8], body_bytes: usize) {
        let reason = faults.first().map_or("unknown", |fault| fault.reason.word());
        self.model.lane(kind).refuse(&self.shared.metrics, self.model.name(), kind, reason);
        let keeps_body = self.model.version().keeps_refused_bodies;
        let body = keeps_body.then_some(body);
        let text = if keeps_body { Fault::to_string } else { Fault::without_unknown_keys };
        let faults: Vec<String> = faults.iter().map(text).collect();
        // The answer says what is wrong whether there is room for the letter or not.
        let _ = self.shared.dead_letters.keep(&Letter {
            model: self.model.name(),
            kind: kind.name(),
            reason,
            faults: &faults,
            body,
            body_bytes,
            received_ms: self.now_ms,
        });
    }

    /// Counts a row that the spool did not take. The client keeps it and sends it again.
    pub(crate) fn turn_away(&self, kind: Kind, error: AppendError) {
        let reason = match error {
            AppendError::Full => "spool_full",
            AppendError::TooLarge => "too_large",
            AppendError::Failed => "spool_failed",
            AppendError::Closed => "closed",
        };
        self.model.lane(kind).refuse(&self.shared.metrics, self.model.name(), kind, reason);
    }
}
