//! Ticks, and which of them are barred.
//!
//! A tick is an instant of the grid: a multiple of `grid` since the epoch, in log time. It is **barred** for a
//! partition when the log shows that it could not know what a tick should: around a gap in the outcome partition
//! (nobody wrote, so an outcome may still wait in a spool), and before that partition's first record. A prediction
//! that would be sealed at a barred tick waits for the next open one.
//!
//! | what the outcome partition shows | bars the ticks T with |
//! |---|---|
//! | its first record, appended at g1 | T ≤ g1 + drain |
//! | consecutive append times g0 < g1, more than five minutes apart | g0 < T ≤ g1 + max(drain, (g1 − g0) / 8) |
//!
//! The gate bars ticks too ([`crate::gate`]).
//!
//! All times are milliseconds since the epoch. Bars only grow at the log's end: whatever bars a tick has been read
//! before the watermark passes that tick.

/// Append times further apart than this are a gap, in milliseconds. Tick records come every five minutes at least.
pub const GAP_MS: i64 = 300_000;

/// An interval of barred ticks: `after < tick <= through`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Bar {
    /// None: from the beginning.
    pub after_ms: Option<i64>,
    pub through_ms: i64,
}

/// A bar of a partition, and why: `start`, `gap` or the cause of a gate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Barred {
    pub partition: i32,
    pub bar: Bar,
    pub cause: String,
}

/// The grid of a model and the bars of one of its partitions.
#[derive(Debug, Clone)]
pub struct Bars {
    grid_ms: i64,
    drain_ms: i64,
    /// From tick to tick, such that no two of them touch, in no order: a partition has few.
    bars: Vec<Bar>,
}

impl Bars {
    pub fn new(grid_ms: i64, drain_ms: i64) -> Bars {
        Bars { grid_ms: grid_ms.max(1), drain_ms, bars: Vec::new() }
    }

    pub fn drain_ms(&self) -> i64 {
        self.drain_ms
    }

    /// What an outcome record appended at `time_ms` bars, `last_ms` being the append time of the record before it.
    pub fn observe(&self, last_ms: Option<i64>, time_ms: i64) -> Option<Bar> {
        match last_ms {
            None => Some(Bar { after_ms: None, through_ms: time_ms + self.drain_ms }),
            Some(last) if time_ms - last > GAP_MS => {
                Some(Bar { after_ms: Some(last), through_ms: time_ms + self.drain_ms.max((time_ms - last) / 8) })
            }
            Some(_) => None,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.bars.is_empty()
    }

    /// How far before a tick a source of labels may be complete: five minutes and `drain`, in milliseconds.
    pub fn allowance_ms(&self) -> i64 {
        GAP_MS + self.drain_ms
    }

    /// Adds a bar, which becomes one with those that it touches; adding one again changes nothing.
    pub fn add(&mut self, bar: Bar) {
        let mut bar = self.on_grid(&bar);
        // Bars do not touch each other, so what is taken in here touches none of those that were left.
        self.bars.retain(|other| {
            let apart = !bar.touches(other);
            if !apart {
                bar = bar.with(other);
            }
            apart
        });
        self.bars.push(bar);
    }

    /// Whether every tick of a bar is barred already.
    pub fn covers(&self, bar: &Bar) -> bool {
        let bar = self.on_grid(bar);
        self.bars.iter().any(|other| other.with(&bar) == *other)
    }

    /// The same ticks between two ticks: bars without a tick between them touch.
    fn on_grid(&self, bar: &Bar) -> Bar {
        Bar { after_ms: bar.after_ms.map(|after| self.tick_at(after)), through_ms: self.tick_at(bar.through_ms) }
    }

    /// Where `tick` is barred, the tick after which all up to it are; none where that is the beginning of all.
    pub fn barred_since(&self, tick: i64) -> Option<i64> {
        self.bars.iter().find(|bar| bar.holds(tick)).and_then(|bar| bar.after_ms)
    }

    /// The last tick at or before `time_ms`, open or not.
    pub fn tick_at(&self, time_ms: i64) -> i64 {
        time_ms.div_euclid(self.grid_ms) * self.grid_ms
    }

    /// The first open tick T with T ≥ `from_ms` and T > `after_ms`.
    pub fn first_open(&self, from_ms: i64, after_ms: i64) -> i64 {
        let from = from_ms.max(after_ms.saturating_add(1));
        let mut tick = self.tick_at(from.saturating_add(self.grid_ms - 1));
        // Each turn leaves one bar behind for good, so there are at most as many turns as bars.
        while let Some(bar) = self.bars.iter().find(|bar| bar.holds(tick)) {
            tick = self.tick_at(bar.through_ms) + self.grid_ms;
        }
        tick
    }

    /// The last open tick at or before `time_ms`; none where all before are barred.
    pub fn last_open(&self, time_ms: i64) -> Option<i64> {
        let mut tick = self.tick_at(time_ms);
        while let Some(bar) = self.bars.iter().find(|bar| bar.holds(tick)) {
            tick = self.tick_at(bar.after_ms?);
        }
        Some(tick)
    }

    /// `as_of` of a prediction that is due at `close_ms` and was first ingested at `ingest_ms`: the first open tick at
    /// or after its close and more than `drain` after its ingest.
    pub fn as_of(&self, close_ms: i64, ingest_ms: i64) -> i64 {
        self.first_open(close_ms, ingest_ms + self.drain_ms)
    }
}

impl Bar {
    fn touches(&self, other: &Bar) -> bool {
        let begins_by = |bar: &Bar, through: i64| bar.after_ms.is_none_or(|after| after <= through);
        begins_by(self, other.through_ms) && begins_by(other, self.through_ms)
    }

    /// Both and what lies between them.
    fn with(&self, other: &Bar) -> Bar {
        // None is the earliest.
        Bar { after_ms: self.after_ms.min(other.after_ms), through_ms: self.through_ms.max(other.through_ms) }
    }

    fn holds(&self, tick: i64) -> bool {
        self.after_ms.is_none_or(|after| after < tick) && tick <= self.through_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000;

    fn bars() -> Bars {
        Bars::new(5 * MINUTE, 10 * MINUTE)
    }

    #[test]
    fn a_tick_is_a_multiple_of_the_grid() {
        assert_eq!(bars().first_open(5 * MINUTE, 0), 5 * MINUTE);
        assert_eq!(bars().first_open(5 * MINUTE + 1, 0), 10 * MINUTE);
        assert_eq!(bars().first_open(0, 5 * MINUTE), 10 * MINUTE);
        assert_eq!(bars().tick_at(-1), -5 * MINUTE);
    }

    #[test]
    fn before_the_first_record_all_is_barred() {
        let mut bars = bars();
        bars.add(bars.observe(None, 21 * MINUTE).expect("a bar"));
        assert_eq!(bars.last_open(31 * MINUTE), None);
        assert_eq!(bars.first_open(0, 0), 35 * MINUTE);
    }

    #[test]
    fn a_gap_bars_what_lies_in_it_and_the_drain_after_it() {
        let mut bars = bars();
        assert_eq!(bars.observe(Some(10 * MINUTE), 15 * MINUTE), None);
        let bar = bars.observe(Some(10 * MINUTE), 15 * MINUTE + 1).expect("a gap");
        assert_eq!(bar, Bar { after_ms: Some(10 * MINUTE), through_ms: 25 * MINUTE + 1 });
        bars.add(bar);
        assert_eq!(bars.first_open(11 * MINUTE, 0), 30 * MINUTE);
        assert_eq!(bars.last_open(29 * MINUTE), Some(10 * MINUTE));
        assert_eq!(bars.last_open(30 * MINUTE), Some(30 * MINUTE));
    }

    #[test]
    fn a_long_gap_bars_an_eighth_of_itself() {
        let bar = bars().observe(Some(0), 800 * MINUTE).expect("a gap");
        assert_eq!(bar.through_ms, 900 * MINUTE);
    }

    #[test]
    fn a_late_prediction_waits_for_the_drain() {
        assert_eq!(bars().as_of(60 * MINUTE, 0), 60 * MINUTE);
        assert_eq!(bars().as_of(60 * MINUTE, 55 * MINUTE), 70 * MINUTE);
    }

    #[test]
    fn overlapping_bars_are_left_one_after_the_other() {
        let mut bars = bars();
        bars.add(Bar { after_ms: Some(0), through_ms: 20 * MINUTE });
        bars.add(Bar { after_ms: Some(15 * MINUTE), through_ms: 40 * MINUTE });
        assert_eq!(bars.first_open(5 * MINUTE, 0), 45 * MINUTE);
        assert_eq!(bars.last_open(44 * MINUTE), Some(0));
    }
}
