//! Sealing: at each tick, exactly the predictions whose `as_of` it is get their base row.
//!
//! For a partition let D be the last open tick at or before the last tick done, and R the last open tick at or before
//! the last tick that the landed records have passed. With `close` = event time + what the contract says, a copy of a
//! prediction that was ingested at i has `as_of ≤ R` exactly if `close ≤ R` and `i + drain < R`; and it was sealed
//! before exactly if the same holds of D. So the predictions that are due lie in one slice of the raw table: those
//! that close in (D, R], by event time, and late ones, by ingest time. Of the copies of an id the first one,
//! least (i, offset), decides. All copies share the event time, so the slice by event time shows them all; for late
//! ones their event times are looked at once more.
//!
//! The slice is read twice: first the few columns that tell which rows are due, of which some ten bytes a row are held
//! (`places`), then the whole rows, which go through the join into the writer batch by batch. Where a prediction may have
//! several copies, the few columns are read once more for those alone.
//!
//! All ticks that are ready are one join, one file and one commit, over all partitions of this joiner. The commit's
//! compare-and-set is on the last tick done of each partition, so no two joiners seal a tick.

mod commit;
mod copies;
mod id;
mod join;
mod places;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use flywheel_schemas::contract::Contract;
use futures::TryStreamExt;

use crate::label::Statement;
use crate::map::HashMap;
use crate::partition::{Partition, Ticked};
use crate::pipeline::{Pipeline, PipelineError};
use crate::table::Predicate;
use copies::Conflicts;
pub(crate) use copies::{Copies, Copy, Seen};
pub(crate) use id::Id;
use places::{Places, Repeats};

/// No event time is earlier (0001-01-01), in milliseconds: decoding refuses what is.
pub(crate) const EARLIEST_MS: i64 = -62_135_596_800_000;

/// Rows that are sealed in one commit at most, so that a long absence does not fill the memory. Above it fewer ticks
/// are taken at once, down to one.
pub(crate) const ROWS_MAX: usize = 400_000;

/// Predictions whose statements are looked for in one scan of the raw table: as long a list as a filter may be.
pub(crate) const IDS_PER_SCAN: usize = 1000;

/// The ticks of one partition that are done together: open ticks in (`done`, `ready`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    /// Last open tick at or before the last tick done; none where nothing was ever done.
    pub done: Option<i64>,
    /// Last open tick at or before the tick up to which is done; none where all of them are barred.
    pub ready: Option<i64>,
    /// That tick itself, open or not.
    pub through: i64,
}

/// What is sealed together.
#[derive(Default)]
struct Slice {
    /// The rows that hold it; none where there are none.
    predicate: Option<Predicate>,
    due: Places,
    /// The statements about those of them that the index does not have any more.
    landed: HashMap<(i32, i64), Vec<Statement>>,
    conflicts: Conflicts,
}

impl Pipeline {
    /// Seals all ticks that what is landed has passed. Returns whether any tick was done.
    pub(crate) async fn seal(&mut self) -> Result<bool, PipelineError> {
        self.gate().await?;
        let mut any = false;
        // Each turn moves at least one partition by at least one tick, or ends.
        loop {
            let goals: BTreeMap<i32, i64> =
                self.partitions.iter().filter_map(|(number, part)| Some((*number, part.ready_ms()?))).collect();
            if goals.is_empty() {
                return Ok(any);
            }
            if !self.seal_through(goals).await? {
                return Ok(any);
            }
            any = true;
        }
    }

    /// Seals up to the given ticks, or up to earlier ones where that would be too many rows. False where another
    /// joiner did so meanwhile.
    async fn seal_through(&mut self, mut goals: BTreeMap<i32, i64>) -> Result<bool, PipelineError> {
        let mut rows_max = Some(ROWS_MAX);
        // Each turn halves the ticks of a partition, and the last one takes what there is.
        loop {
            let spans = self.spans(&goals, |part| part.done_ms);
            if let Some(slice) = self.due(&spans, rows_max).await? {
                return self.write_rows(&spans, slice).await;
            }
            rows_max = self.halve(&mut goals, |part| part.done_ms).then_some(ROWS_MAX);
        }
    }

    /// Halves the ticks of each partition; false where none has more than one.
    pub(crate) fn halve(&self, goals: &mut BTreeMap<i32, i64>, done_ms: impl Fn(&Partition) -> Option<i64>) -> bool {
        let mut fewer = false;
        for (number, goal) in goals {
            let Some(part) = self.partitions.get(number) else { continue };
            let start = done_ms(part).unwrap_or_else(|| part.bars.tick_at(self.oldest_tick(*goal)));
            let half = part.bars.tick_at(start + (*goal - start) / 2).max(start + self.grid_ms);
            fewer |= half < *goal;
            *goal = half.min(*goal);
        }
        fewer
    }

    /// Where halving starts for a partition of which nothing is done: as far back as ids can reach is too far, so a
    /// span of the longest wait and a day.
    fn oldest_tick(&self, goal: i64) -> i64 {
        let longest = self.contracts.versions().map(|contract| contract.seal_ms()).max().unwrap_or(0);
        goal - longest - 86_400_000
    }

    pub(crate) fn spans(
        &self,
        goals: &BTreeMap<i32, i64>,
        done_ms: impl Fn(&Partition) -> Option<i64>,
    ) -> BTreeMap<i32, Span> {
        let span = |(number, goal): (&i32, &i64)| {
            let part = self.partitions.get(number)?;
            let done = done_ms(part).and_then(|done| part.bars.last_open(done));
            Some((*number, Span { done, ready: part.bars.last_open(*goal), through: *goal }))
        };
        goals.iter().filter_map(span).collect()
    }

    /// Reads the slice. None where it holds more than `rows_max` rows.
    async fn due(&self, spans: &BTreeMap<i32, Span>, rows_max: Option<usize>) -> Result<Option<Slice>, PipelineError> {
        let seal_ms = || self.contracts.versions().map(|contract| contract.seal_ms());
        let (Some(least), Some(greatest)) = (seal_ms().min(), seal_ms().max()) else {
            return Ok(Some(Slice::default()));
        };
        let drain_ms = self.drain_ms;
        let open: Vec<(&Span, i64)> = spans.values().filter_map(|span| Some((span, span.ready?))).collect();
        let open: Vec<(&Span, i64)> = open.into_iter().filter(|(span, ready)| span.done != Some(*ready)).collect();
        let Some(ready) = open.iter().map(|(_, ready)| *ready).max() else { return Ok(Some(Slice::default())) };
        // None, a partition of which nothing was sealed, is less than any tick.
        let done = open.iter().map(|(span, _)| span.done).min().flatten();
        let slice = match done {
            None => Predicate::EventTimeBetween(EARLIEST_MS, ready - least + 1),
            Some(done) => Predicate::Or(vec![
                Predicate::EventTimeBetween(done - greatest + 1, ready - least + 1),
                Predicate::And(vec![
                    Predicate::EventTimeBetween(EARLIEST_MS, ready - least + 1),
                    Predicate::IngestTimeFrom(done - drain_ms),
                ]),
            ]),
        };
        let expired_before_ms = self.index.expired_before_ms()?;
        let mut due = Places::default();
        let mut repeats = Repeats::default();
        let mut late: HashSet<String> = HashSet::new();
        let mut expired: Vec<(String, (i32, i64))> = Vec::new();
        let mut rows = 0;
        let mut stream = Box::pin(self.landings.predictions.table.scan(&Copies::COLUMNS, slice.clone()).await?);
        while let Some(batch) = stream.try_next().await? {
            let copies = Copies::of(&batch)?;
            for row in 0..batch.num_rows() {
                let Some(span) = spans.get(&copies.partitions.value(row)) else { continue };
                let (id, copy) = (copies.ids.value(row), copies.copy(row));
                let close_ms = copy.event_ms + self.contract(copy.version)?.seal_ms();
                rows += usize::from(span.ready.is_some_and(|ready| close_ms <= ready));
                repeats.see(id);
                if span.done.is_some_and(|done| close_ms <= done) {
                    repeats.suspect(id);
                    late.insert(id.to_owned());
                }
                if self.as_of_within(spans, &copy)?.is_some() {
                    due.insert(copy.place());
                    if copy.event_ms < expired_before_ms {
                        expired.push((id.to_owned(), copy.place()));
                    }
                }
            }
            if rows_max.is_some_and(|rows_max| rows > rows_max) {
                return Ok(None);
            }
        }
        drop(stream);
        let mut conflicts = Conflicts::default();
        if !repeats.is_empty() {
            let mut seen = self.repeated(spans, &slice, &repeats, &mut due).await?;
            self.find_earlier_copies(&late, &mut seen).await?;
            conflicts = self.conflicts(spans, &seen).await?;
            for (_, first) in seen.firsts() {
                if self.as_of_within(spans, first)?.is_some() {
                    due.insert(first.place());
                }
            }
        }
        expired.retain(|(_, place)| due.contains(*place));
        let landed = self.landed_about(&expired).await?;
        Ok(Some(Slice { predicate: (!due.is_empty()).then_some(slice), due, landed, conflicts }))
    }

    /// The copies of the predictions of which there may be several. None of them is due before it is known to be the first.
    async fn repeated(
        &self,
        spans: &BTreeMap<i32, Span>,
        slice: &Predicate,
        repeats: &Repeats,
        due: &mut Places,
    ) -> Result<Seen, PipelineError> {
        let mut seen = Seen::default();
        let mut stream = Box::pin(self.landings.predictions.table.scan(&Copies::COLUMNS, slice.clone()).await?);
        while let Some(batch) = stream.try_next().await? {
            let copies = Copies::of(&batch)?;
            for row in 0..batch.num_rows() {
                let id = copies.ids.value(row);
                if spans.contains_key(&copies.partitions.value(row)) && repeats.contains(id) {
                    let copy = copies.copy(row);
                    due.remove(copy.place());
                    seen.add(id, copy);
                }
            }
        }
        Ok(seen)
    }

    /// For predictions that closed before the slice: whether an earlier copy of them is in the table.
    async fn find_earlier_copies(&self, late: &HashSet<String>, seen: &mut Seen) -> Result<(), PipelineError> {
        let times = || late.iter().flat_map(|id| seen.of(id)).map(|first| first.event_ms);
        let (Some(least), Some(greatest)) = (times().min(), times().max()) else { return Ok(()) };
        let predicate = Predicate::EventTimeBetween(least, greatest + 1);
        let mut stream = Box::pin(self.landings.predictions.table.scan(&Copies::COLUMNS, predicate).await?);
        while let Some(batch) = stream.try_next().await? {
            let copies = Copies::of(&batch)?;
            for row in 0..batch.num_rows() {
                if late.contains(copies.ids.value(row)) {
                    seen.add(copies.ids.value(row), copies.copy(row));
                }
            }
        }
        Ok(())
    }

    /// The statements about these predictions by the places of their copies, from the raw table.
    async fn landed_about(
        &self,
        expired: &[(String, (i32, i64))],
    ) -> Result<HashMap<(i32, i64), Vec<Statement>>, PipelineError> {
        let mut places: BTreeMap<&str, Vec<(i32, i64)>> = BTreeMap::new();
        for (id, place) in expired {
            places.entry(id).or_default().push(*place);
        }
        let mut landed: HashMap<(i32, i64), Vec<Statement>> = HashMap::default();
        let ids: Vec<&str> = places.keys().copied().collect();
        for ids in ids.chunks(IDS_PER_SCAN) {
            let mut about: HashMap<&str, Vec<Statement>> = ids.iter().map(|id| (*id, Vec::new())).collect();
            for (id, statement) in self.landed_statements(ids).await? {
                if let Some(all) = about.get_mut(id.as_str()) {
                    all.push(statement);
                }
            }
            for (id, mut all) in about {
                all.sort_unstable_by_key(Statement::order);
                all.truncate(self.outcomes_max);
                for place in places.get(id).into_iter().flatten() {
                    landed.insert(*place, all.clone());
                }
            }
        }
        Ok(landed)
    }

    /// The statements about these predictions, from the raw table.
    pub(crate) async fn landed_statements(&self, ids: &[&str]) -> Result<Vec<(String, Statement)>, PipelineError> {
        let table = &self.landings.outcomes.table;
        let schema = table.arrow_schema();
        let columns: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        let predicate = Predicate::PredictionIds(ids.iter().map(|id| (*id).to_owned()).collect());
        let mut stream = Box::pin(table.scan(&columns, predicate).await?);
        let mut all = Vec::new();
        while let Some(batch) = stream.try_next().await? {
            all.extend(crate::decode::statements(&batch).map_err(PipelineError::decode)?);
        }
        Ok(all)
    }

    /// The tick at which a copy would be sealed if it were the first, where that lies in the span of its partition.
    fn as_of_within(&self, spans: &BTreeMap<i32, Span>, copy: &Copy) -> Result<Option<i64>, PipelineError> {
        let (Some(span), Some(part)) = (spans.get(&copy.partition), self.partitions.get(&copy.partition)) else {
            return Ok(None);
        };
        let close_ms = copy.event_ms + self.contract(copy.version)?.seal_ms();
        let as_of_ms = part.bars.as_of(close_ms, copy.ingest_ms);
        let after = part.done_ms.is_none_or(|done| as_of_ms > done);
        Ok((after && as_of_ms <= span.through).then_some(as_of_ms))
    }

    pub(crate) fn contract(&self, version: i32) -> Result<&Arc<Contract>, PipelineError> {
        self.contracts.version(version).ok_or(PipelineError::UnknownContract { version })
    }

    /// Joins the rows that are due with their outcomes and commits them with the ticks that they complete.
    async fn write_rows(&mut self, spans: &BTreeMap<i32, Span>, slice: Slice) -> Result<bool, PipelineError> {
        let mut writer = self.training.writer()?;
        if let Some(predicate) = &slice.predicate {
            let table = &self.landings.predictions.table;
            let schema = table.arrow_schema();
            let columns: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
            let mut stream = Box::pin(table.scan(&columns, predicate.clone()).await?);
            while let Some(batch) = stream.try_next().await? {
                if let Some(batch) = self.join(&batch, spans, &slice)? {
                    writer.write(&batch).await?;
                }
            }
        }
        let Slice { due, conflicts, .. } = slice;
        let files = writer.close().await?;
        let is_committed = self.commit_ticks(Ticked::Training, spans, files, due.len()).await?;
        if is_committed {
            for (number, span) in spans {
                self.metrics.sealed_through(&self.model, *number, span.through);
            }
            if let Some(example) = &conflicts.example {
                self.metrics.conflicting_duplicates(&self.model, conflicts.count, example);
            }
        }
        Ok(is_committed)
    }
}
