//! Statements that found no place.
//!
//! The time of a statement is over at the first open tick T that is more than `drain` after its ingest and not before the
//! event time of its prediction + the longest window + lateness of the contract under which it was stated. Of copies of a
//! statement the first one counts. At T it gets a row with the first reason that holds:
//!
//! | reason | when |
//! |---|---|
//! | `sampled_out` | its prediction was not ingested before T, and the contract says that it was left out |
//! | `no_prediction` | its prediction was not ingested before T |
//! | `unknown_label` | it speaks of no label of the contract under which its prediction was served |
//! | `too_late` | it was ingested at or after the last tick at which the labels of its prediction may change |
//! | `outside_window` | it happened outside the window of each label that it speaks of |
//! | `over_limit` | as many statements about its prediction as count were ingested before it |
//!
//! A prediction may still come, and then the statement counts; `_unmatched_current` leaves such a row out. A statement that
//! speaks of a label of a batch job is that job's.
//!
//! The event time of a prediction is that of its id; where ids do not hold it, the `t` of the statement stands for it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Field, Schema};
use flywheel_schemas::contract::Contract;
use flywheel_schemas::id::time_ms_of;
use futures::TryStreamExt;

use super::candidates::{Found, Times};
use super::final_tick;
use crate::bar::Bars;
use crate::label::{Place, Statement, is_of_batch, place};
use crate::pipeline::{Pipeline, PipelineError};
use crate::seal::{EARLIEST_MS, IDS_PER_SCAN, Span};
use crate::table::Predicate;

/// What is said of a statement.
struct Verdict {
    as_of_ms: i64,
    reason: &'static str,
}

/// By partition and offset of the statement.
type Verdicts = HashMap<(i32, i64), Verdict>;

impl Pipeline {
    /// The rows of the ticks of `spans`. None where statements about more than `rows_max` predictions are to be looked at.
    pub(super) async fn unmatched(
        &self,
        spans: &BTreeMap<i32, Span>,
        rows_max: Option<usize>,
    ) -> Result<Option<Vec<RecordBatch>>, PipelineError> {
        let ids = self.over(spans).await?;
        if rows_max.is_some_and(|rows_max| ids.len() > rows_max) {
            return Ok(None);
        }
        let Some(found) = self.predictions(spans, &ids, &[], rows_max).await? else { return Ok(None) };
        let mut batches = Vec::new();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        for ids in ids.chunks(IDS_PER_SCAN) {
            let bounded: Vec<(&str, i64)> =
                ids.iter().filter_map(|id| Some((*id, spans.get(&self.home(id))?.ready?))).collect();
            let mut verdicts = Verdicts::new();
            for (id, statements) in self.statements_about(&bounded, usize::MAX).await? {
                self.judge(spans, &found, id, &statements, &mut verdicts)?;
            }
            if !verdicts.is_empty() {
                batches.extend(self.rows_without_place(ids, &verdicts).await?);
            }
        }
        Ok(Some(batches))
    }

    fn home(&self, id: &str) -> i32 {
        flywheel_schemas::partition::of(id.as_bytes(), self.partition_count)
    }

    /// Predictions with statements whose time may be over in `spans`.
    async fn over(&self, spans: &BTreeMap<i32, Span>) -> Result<BTreeSet<String>, PipelineError> {
        let longest = || self.contracts.versions().map(|contract| contract.longest_ms());
        let (Some(least), Some(greatest)) = (longest().min(), longest().max()) else { return Ok(BTreeSet::new()) };
        let open: BTreeMap<i32, Times> = spans
            .iter()
            .filter_map(|(number, span)| Some((*number, (span.done.unwrap_or(EARLIEST_MS), span.ready?))))
            .filter(|(_, (done, ready))| done < ready)
            .collect();
        let (Some(done), Some(ready)) =
            (open.values().map(|times| times.0).min(), open.values().map(|times| times.1).max())
        else {
            return Ok(BTreeSet::new());
        };
        let is_minted = self.has_minted_ids();
        // By ingest: those whose prediction's time was over already. Where ids do not tell that time, all that the longest
        // window may concern.
        let before = if is_minted { self.drain_ms } else { self.drain_ms.saturating_add(greatest) };
        let mut ids = self
            .stated((done.saturating_sub(before), ready), |id, partition, ingest_ms| {
                let Some((done, ready)) = open.get(&partition) else { return false };
                let is_new = ingest_ms >= done.saturating_sub(before) && ingest_ms < *ready;
                is_new && (!is_minted || time_ms_of(id).is_some_and(|time| time + least <= *ready))
            })
            .await?;
        if is_minted {
            let slice = |(done, ready): Times| (done.saturating_sub(greatest) + 1, ready - least + 1);
            let closing = self.ids_between(slice((done, ready)), ready).await?;
            ids.extend(closing.into_iter().filter(|id| {
                let own = open.get(&self.home(id)).map(|times| slice(*times));
                own.is_some_and(|(from, before)| time_ms_of(id).is_some_and(|time| (from..before).contains(&time)))
            }));
        }
        Ok(ids)
    }

    /// Minted ids of an event time in `times` of which there are statements with an ingest time before `before_ms`.
    async fn ids_between(&self, times: Times, before_ms: i64) -> Result<BTreeSet<String>, PipelineError> {
        let expired = self.index.expired_before_ms()?;
        let mut ids: BTreeSet<String> = self.index.ids(times.0.max(expired), times.1, before_ms)?.into_iter().collect();
        if times.0 < expired {
            let from = times.0.max(0);
            let predicate = Predicate::PredictionIdBetween(
                crate::index::least_id(from),
                crate::index::least_id(times.1.min(expired).max(from)),
            );
            let table = &self.landings.outcomes.table;
            let mut stream = Box::pin(table.scan(&["prediction_id"], predicate).await?);
            while let Some(batch) = stream.try_next().await? {
                let texts = batch.column(0).as_any().downcast_ref::<StringArray>();
                let texts = texts.ok_or(PipelineError::Column { name: "prediction_id" })?;
                ids.extend(texts.iter().flatten().map(str::to_owned));
            }
        }
        Ok(ids)
    }

    /// What is said of the statements about one prediction whose time is over in its partition's span.
    fn judge(
        &self,
        spans: &BTreeMap<i32, Span>,
        found: &Found,
        id: &str,
        statements: &[Statement],
        verdicts: &mut Verdicts,
    ) -> Result<(), PipelineError> {
        let mut firsts: Vec<(usize, &Statement)> = statements.iter().enumerate().collect();
        firsts.sort_unstable_by_key(|(number, statement)| (statement.event_id.as_str(), *number));
        firsts.dedup_by_key(|(_, statement)| statement.event_id.as_str());
        for (number, statement) in firsts {
            let counts = number < self.outcomes_max;
            let (Some(span), Some(part)) = (spans.get(&statement.partition), self.partitions.get(&statement.partition))
            else {
                continue;
            };
            let stated = self.stated_under(statement)?;
            let event_ms = match time_ms_of(id).filter(|_| self.has_minted_ids()) {
                Some(time) => time,
                None => statement.time_us().div_euclid(1000),
            };
            let as_of_ms = part.bars.as_of(event_ms + stated.longest_ms(), statement.ingest_time_ms);
            let is_in =
                span.ready.is_some_and(|ready| as_of_ms <= ready) && span.done.is_none_or(|done| as_of_ms > done);
            if !is_in || is_of_batch(stated, statement) {
                continue;
            }
            if let Some(reason) = self.reason(found, id, statement, counts, as_of_ms, stated, &part.bars)? {
                verdicts.insert((statement.partition, statement.offset), Verdict { as_of_ms, reason });
            }
        }
        Ok(())
    }

    /// The contract under which something was stated; the oldest where a producer did not say.
    fn stated_under(&self, statement: &Statement) -> Result<&Arc<Contract>, PipelineError> {
        match statement.contract_version {
            Some(version) => self.contract(version),
            None => self.contracts.versions().next().ok_or(PipelineError::NoContract),
        }
    }

    fn reason(
        &self,
        found: &Found,
        id: &str,
        statement: &Statement,
        counts: bool,
        as_of_ms: i64,
        stated: &Contract,
        bars: &Bars,
    ) -> Result<Option<&'static str>, PipelineError> {
        let mut reasons = Vec::new();
        for first in found.seen.of(id).filter(|first| first.ingest_ms < as_of_ms) {
            let served = self.contract(first.version)?;
            if is_of_batch(served, statement) {
                return Ok(None);
            }
            let place = place(served, first.event_ms, statement);
            let is_late = statement.ingest_time_ms >= final_tick(served, bars, first.event_ms, first.ingest_ms);
            reasons.push(match place {
                Place::NoLabel => "unknown_label",
                _ if is_late => "too_late",
                Place::NoWindow => "outside_window",
                Place::Found => return Ok((!counts).then_some("over_limit")),
            });
        }
        // Of an id that was given again, the reason that comes last in the table above: that nearest to a place.
        let nearest =
            ["outside_window", "too_late", "unknown_label"].into_iter().find(|reason| reasons.contains(reason));
        Ok(nearest.or(Some(if stated.samples_out(id) { "sampled_out" } else { "no_prediction" })))
    }

    /// The landed rows of statements about these predictions of which something is said.
    async fn rows_without_place(&self, ids: &[&str], verdicts: &Verdicts) -> Result<Vec<RecordBatch>, PipelineError> {
        let table = &self.landings.outcomes.table;
        let schema = table.arrow_schema();
        let columns: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        let predicate = Predicate::PredictionIds(ids.iter().map(|id| (*id).to_owned()).collect());
        let mut stream = Box::pin(table.scan(&columns, predicate).await?);
        let mut batches = Vec::new();
        while let Some(batch) = stream.try_next().await? {
            let statements = crate::decode::statements(&batch).map_err(PipelineError::decode)?;
            let verdict = |(_, statement): &(String, Statement)| verdicts.get(&(statement.partition, statement.offset));
            let verdicts: Vec<Option<&Verdict>> = statements.iter().map(verdict).collect();
            let chosen: BooleanArray = verdicts.iter().map(|verdict| Some(verdict.is_some())).collect();
            if chosen.true_count() == 0 {
                continue;
            }
            let rows = filter_record_batch(&batch, &chosen).map_err(PipelineError::decode)?;
            let said = || verdicts.iter().flatten();
            let as_of = TimestampMicrosecondArray::from_iter_values(said().map(|verdict| verdict.as_of_ms * 1000));
            let reasons = StringArray::from_iter_values(said().map(|verdict| verdict.reason));
            let mut fields: Vec<Arc<Field>> = rows.schema().fields().iter().cloned().collect();
            let mut columns: Vec<ArrayRef> = rows.columns().to_vec();
            let more: [(&str, ArrayRef); 2] =
                [("as_of", Arc::new(as_of.with_timezone("+00:00"))), ("reason", Arc::new(reasons))];
            for (name, column) in more {
                fields.push(Arc::new(Field::new(name, column.data_type().clone(), true)));
                columns.push(column);
            }
            batches.push(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(PipelineError::decode)?);
        }
        Ok(batches)
    }
}
