//! What the gate records of a partition have said so far.

use std::collections::BTreeMap;

use flywheel_schemas::gate::{Cause, GateRecord};
use serde::{Deserialize, Serialize};

use crate::bar::Bar;

/// Sources that may report to a partition, and releases that are not over. A contract names few; the bound keeps a writer
/// of nonsense from filling the table's properties.
const SAID_MAX: usize = 64;

/// What was said in a partition, up to some record. Written as JSON into a property of the outcomes table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Said {
    reports: BTreeMap<String, Report>,
    releases: Vec<Release>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Report {
    /// When the log received the first one.
    first_ms: i64,
    /// The greatest one.
    complete_through_ms: i64,
}

/// Ticks T with `after < T <= through` are not barred by the cause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Release {
    cause: Cause,
    after_ms: i64,
    through_ms: i64,
}

/// A record that there is no room for.
#[derive(Debug, thiserror::Error)]
#[error("{SAID_MAX} sources have reported to this partition, or as many releases are not over; this one is left out")]
pub(crate) struct Full;

impl Said {
    /// Takes up a record that the log received at `ingest_ms`.
    pub fn take(&mut self, record: GateRecord, ingest_ms: i64) -> Result<(), Full> {
        match record {
            GateRecord::Progress { source, complete_through_ms } => {
                if self.reports.len() >= SAID_MAX && !self.reports.contains_key(&source) {
                    return Err(Full);
                }
                let report = self.reports.entry(source).or_insert(Report { first_ms: ingest_ms, complete_through_ms });
                report.complete_through_ms = report.complete_through_ms.max(complete_through_ms);
            }
            GateRecord::Release { cause, through_ms } => {
                if self.releases.len() >= SAID_MAX {
                    return Err(Full);
                }
                self.releases.push(Release { cause, after_ms: ingest_ms, through_ms });
            }
        }
        Ok(())
    }

    /// Forgets what no tick after `done_ms` asks for.
    pub fn forget(&mut self, done_ms: i64) {
        self.releases.retain(|release| release.through_ms > done_ms);
    }

    /// Whether a person has let this tick be open.
    pub fn is_released(&self, cause: &Cause, tick: i64) -> bool {
        let holds = |release: &Release| release.after_ms < tick && tick <= release.through_ms;
        self.releases.iter().any(|release| release.cause == *cause && holds(release))
    }

    /// Whether the source has stated anything before this tick.
    pub fn is_heard(&self, source: &str, tick: i64) -> bool {
        self.reports.get(source).is_some_and(|report| report.first_ms < tick)
    }

    /// The sources that bar a tick after all that was said.
    pub fn silent(&self, tick: i64, allowance_ms: i64) -> impl Iterator<Item = Cause> {
        let is_late = move |report: &Report| report.complete_through_ms.saturating_add(allowance_ms) < tick;
        let late = self.reports.iter().filter(move |(_, report)| is_late(report));
        late.map(|(source, _)| Cause::Progress(source.clone())).filter(move |cause| !self.is_released(cause, tick))
    }

    /// What sources bar of the ticks T with `last < T <= time`, these being the ingest times of consecutive records: all
    /// that was said before such a tick was said up to the first of them.
    pub fn barred(&self, last_ms: i64, time_ms: i64, grid_ms: i64, allowance_ms: i64) -> Vec<(Cause, Bar)> {
        let last_tick = time_ms.div_euclid(grid_ms) * grid_ms;
        let mut barred = Vec::new();
        for (source, report) in &self.reports {
            let after_ms = last_ms.max(report.complete_through_ms.saturating_add(allowance_ms));
            let mut tick = (after_ms.div_euclid(grid_ms) + 1).saturating_mul(grid_ms);
            if tick > last_tick {
                continue;
            }
            let cause = Cause::Progress(source.clone());
            let mut run: Option<Bar> = None;
            while tick <= last_tick {
                if self.is_released(&cause, tick) {
                    barred.extend(run.take().map(|bar| (cause.clone(), bar)));
                } else {
                    let bar = run.get_or_insert(Bar { after_ms: Some(tick - grid_ms), through_ms: tick });
                    bar.through_ms = tick;
                }
                tick += grid_ms;
            }
            barred.extend(run.map(|bar| (cause, bar)));
        }
        barred
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000;
    const GRID: i64 = 5 * MINUTE;

    fn said(complete_minute: i64) -> Said {
        let mut said = Said::default();
        let record = GateRecord::Progress { source: "s".to_owned(), complete_through_ms: complete_minute * MINUTE };
        said.take(record, complete_minute * MINUTE).unwrap();
        said
    }

    fn bars(said: &Said, last: i64, time: i64) -> Vec<(i64, i64)> {
        let barred = said.barred(last * MINUTE, time * MINUTE, GRID, 15 * MINUTE);
        barred.iter().map(|(_, bar)| (bar.after_ms.unwrap() / MINUTE, bar.through_ms / MINUTE)).collect()
    }

    #[test]
    fn a_silent_source_bars_from_its_word_and_the_allowance_on() {
        let said = said(20);
        assert_eq!(bars(&said, 20, 39), []);
        assert_eq!(bars(&said, 39, 40), [(35, 40)], "35 is as late as it may be");
        assert_eq!(bars(&said, 40, 44), []);
        assert_eq!(bars(&said, 44, 61), [(40, 60)]);
        assert_eq!(said.silent(35 * MINUTE, 15 * MINUTE).count(), 0);
        assert_eq!(said.silent(35 * MINUTE + 1, 15 * MINUTE).count(), 1);
    }

    #[test]
    fn an_older_word_takes_nothing_back() {
        let mut said = said(20);
        let older = GateRecord::Progress { source: "s".to_owned(), complete_through_ms: 0 };
        said.take(older, 30 * MINUTE).unwrap();
        assert_eq!(bars(&said, 30, 36), []);
        assert!(said.is_heard("s", 20 * MINUTE + 1) && !said.is_heard("s", 20 * MINUTE) && !said.is_heard("t", GRID));
    }

    #[test]
    fn a_release_opens_the_ticks_after_it_up_to_its_end() {
        let mut said = said(20);
        let cause = Cause::Progress("s".to_owned());
        said.take(GateRecord::Release { cause: cause.clone(), through_ms: 60 * MINUTE }, 50 * MINUTE).unwrap();
        let other = Cause::Progress("t".to_owned());
        said.take(GateRecord::Release { cause: other, through_ms: 600 * MINUTE }, 50 * MINUTE).unwrap();
        assert_eq!(bars(&said, 36, 71), [(35, 50), (60, 70)]);
        said.forget(59 * MINUTE);
        assert!(said.is_released(&cause, 60 * MINUTE));
        said.forget(60 * MINUTE);
        assert!(!said.is_released(&cause, 60 * MINUTE));
    }

    #[test]
    fn nobody_fills_it() {
        let mut said = Said::default();
        let of = |n: usize| GateRecord::Progress { source: format!("s{n}"), complete_through_ms: 0 };
        for n in 0..SAID_MAX {
            said.take(of(n), 0).unwrap();
        }
        assert!(said.take(of(SAID_MAX), 0).is_err());
        said.take(of(3), 0).unwrap();
    }
}
