//! What a joiner knows of one partition of a model: how far each topic is read and landed, and which ticks are done.

use flywheel_schemas::wire::Kind;

use crate::bar::Bars;
use crate::gate::Gate;
use crate::table::Mark;

/// One topic's side of a partition.
#[derive(Debug, Clone, Default)]
pub(crate) struct Side {
    /// What the table has recorded; none before the first commit.
    pub landed: Option<Mark>,
    /// What has been read into the batch on top of that.
    pub read: Option<Mark>,
    /// The offset of the record before which reading has stopped, if it has.
    pub waits_for: Option<i64>,
}

impl Side {
    pub fn new(landed: Option<Mark>) -> Side {
        Side { landed, read: landed, waits_for: None }
    }

    /// The offset of the next record to read; none: from the beginning.
    pub fn next(&self) -> Option<i64> {
        self.read.map(|mark| mark.next)
    }

    /// The ingest time of the last record read.
    pub fn last_ms(&self) -> Option<i64> {
        self.read.map(|mark| mark.time_ms)
    }

    /// The ingest time of a record: its append time, raised to that of the record before it.
    pub fn ingest_ms(&self, append_ms: i64) -> i64 {
        self.last_ms().map_or(append_ms, |last| last.max(append_ms))
    }

    /// Moves past the record at `offset`.
    pub fn pass(&mut self, offset: i64, ingest_ms: i64) {
        self.read = Some(Mark { next: offset + 1, time_ms: ingest_ms });
    }
}

/// A table that goes from tick to tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ticked {
    Training,
    Revisions,
    Unmatched,
}

impl Ticked {
    /// Those whose ticks follow those of the training table.
    pub const FOLLOWERS: [Ticked; 2] = [Ticked::Revisions, Ticked::Unmatched];
}

#[derive(Debug, Clone)]
pub(crate) struct Partition {
    pub predictions: Side,
    pub outcomes: Side,
    /// The last tick that the training table has recorded as done.
    pub done_ms: Option<i64>,
    /// The last tick that each of the tables that follow it has recorded as done.
    pub revised_ms: Option<i64>,
    pub unmatched_ms: Option<i64>,
    pub bars: Bars,
    pub gate: Gate,
}

impl Partition {
    /// The last tick that a table has recorded as done.
    pub fn tick_of(&self, table: Ticked) -> Option<i64> {
        match table {
            Ticked::Training => self.done_ms,
            Ticked::Revisions => self.revised_ms,
            Ticked::Unmatched => self.unmatched_ms,
        }
    }

    pub fn set_tick(&mut self, table: Ticked, tick_ms: Option<i64>) {
        match table {
            Ticked::Training => self.done_ms = tick_ms,
            Ticked::Revisions => self.revised_ms = tick_ms,
            Ticked::Unmatched => self.unmatched_ms = tick_ms,
        }
    }

    /// Whether a table that follows the training table has not recorded all of its ticks.
    pub fn is_followed_late(&self) -> bool {
        Ticked::FOLLOWERS.iter().any(|table| self.tick_of(*table) < self.done_ms)
    }

    /// The last tick that is done in all three tables.
    pub fn complete_ms(&self) -> Option<i64> {
        self.done_ms.min(self.revised_ms).min(self.unmatched_ms)
    }

    pub fn side(&self, kind: Kind) -> &Side {
        match kind {
            Kind::Predictions => &self.predictions,
            Kind::Outcomes => &self.outcomes,
        }
    }

    pub fn side_mut(&mut self, kind: Kind) -> &mut Side {
        match kind {
            Kind::Predictions => &mut self.predictions,
            Kind::Outcomes => &mut self.outcomes,
        }
    }

    /// The last tick that everything landed has passed, if the training table has not recorded it yet.
    pub fn ready_ms(&self) -> Option<i64> {
        self.tick_passed(self.predictions.landed?.time_ms, self.outcomes.landed?.time_ms)
    }

    /// The same for everything read: such a tick waits for the batch to be committed.
    pub fn waiting_ms(&self) -> Option<i64> {
        self.tick_passed(self.predictions.read?.time_ms, self.outcomes.read?.time_ms)
    }

    /// Whether anything was read that is not landed.
    pub fn is_ahead(&self) -> bool {
        [&self.predictions, &self.outcomes].iter().any(|side| side.read != side.landed)
    }

    fn tick_passed(&self, predictions_ms: i64, outcomes_ms: i64) -> Option<i64> {
        let tick = self.bars.tick_at(predictions_ms.min(outcomes_ms));
        self.done_ms.is_none_or(|done| tick > done).then_some(tick)
    }
}
