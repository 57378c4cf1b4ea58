//! Where labels changed after the base row.
//!
//! From one open tick to the next a prediction's labels change only where a statement about it became known in between or
//! one of its labels closed. So those predictions alone are looked at: of which a statement was ingested in the span, and
//! those of which a label other than the one that seals it closed in the span.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Builder, RecordBatch, StringBuilder, TimestampMicrosecondBuilder};
use arrow::datatypes::{Field, Schema};
use flywheel_schemas::id::time_ms_of;

use super::candidates::{Found, Times};
use super::final_tick;
use crate::decode::LabelColumns;
use crate::label::{self, LabelState, Statement};
use crate::partition::Partition;
use crate::pipeline::{Pipeline, PipelineError};
use crate::seal::{Copy, EARLIEST_MS, Id, Span};

/// Rows of a batch.
const ROWS_PER_BATCH: usize = 8192;

impl Pipeline {
    /// The revisions of the ticks of `spans`. None where more than `rows_max` predictions are to be looked at.
    pub(super) async fn revisions(
        &self,
        spans: &BTreeMap<i32, Span>,
        rows_max: Option<usize>,
    ) -> Result<Option<Vec<RecordBatch>>, PipelineError> {
        let open: Vec<Times> = spans
            .values()
            .filter_map(|span| Some((span.done.unwrap_or(EARLIEST_MS), span.ready?)))
            .filter(|(done, ready)| done < ready)
            .collect();
        let (Some(done), Some(ready)) =
            (open.iter().map(|times| times.0).min(), open.iter().map(|times| times.1).max())
        else {
            return Ok(Some(Vec::new()));
        };
        let seal_ms = self.contracts.versions().map(|contract| contract.seal_ms()).min().unwrap_or(0);
        let is_minted = self.has_minted_ids();
        let ids = self
            .stated((done, ready), |id, partition, ingest_ms| {
                let Some(Span { done, ready: Some(ready), .. }) = spans.get(&partition) else { return false };
                let is_new = done.is_none_or(|done| ingest_ms >= done) && ingest_ms < *ready;
                // What is not sealed before the last tick is not revised at it.
                is_new && (!is_minted || time_ms_of(id).is_some_and(|time| time + seal_ms < *ready))
            })
            .await?;
        if rows_max.is_some_and(|rows_max| ids.len() > rows_max) {
            return Ok(None);
        }
        let slices: Vec<Times> =
            self.later_closes().into_iter().map(|close| (done - close + 1, ready - close + 1)).collect();
        let Some(found) = self.predictions(spans, &ids, &slices, rows_max).await? else { return Ok(None) };
        self.revise(spans, &found).await.map(Some)
    }

    /// The closes of labels that come after the base row, in milliseconds after the prediction.
    fn later_closes(&self) -> BTreeSet<i64> {
        let versions = self.contracts.versions();
        let closes = versions.flat_map(|contract| {
            let labels = contract.labels.iter().filter(|label| label.is_streaming());
            labels.map(|label| contract.close_ms(label)).filter(|close| *close > contract.seal_ms())
        });
        closes.collect()
    }

    async fn revise(&self, spans: &BTreeMap<i32, Span>, found: &Found) -> Result<Vec<RecordBatch>, PipelineError> {
        let mut firsts: Vec<(&Id, &Copy)> = found.seen.firsts().collect();
        firsts.sort_unstable_by_key(|(id, first)| (first.event_ms, *id));
        let mut rows = Rows::new(self);
        let mut batches = Vec::new();
        for firsts in firsts.chunks(ROWS_PER_BATCH) {
            let ready = |copy: &Copy| spans.get(&copy.partition).and_then(|span| span.ready).unwrap_or(EARLIEST_MS);
            let ids: Vec<Cow<'_, str>> = firsts.iter().map(|(id, _)| id.text()).collect();
            let bounded: Vec<(&str, i64)> =
                ids.iter().zip(firsts).map(|(id, (_, first))| (id.as_ref(), ready(first))).collect();
            let statements = self.statements_about(&bounded, self.outcomes_max).await?;
            for (id, (_, first)) in ids.iter().zip(firsts) {
                let statements = statements.get(id.as_ref()).map(Vec::as_slice).unwrap_or_default();
                let (Some(span), Some(part)) = (spans.get(&first.partition), self.partitions.get(&first.partition))
                else {
                    continue;
                };
                let contract = self.contract(first.version)?;
                let prediction =
                    label::Prediction { event_time_ms: first.event_ms, exposure: found.exposure(first.place()) };
                let at = |tick_ms: i64| label::evaluate(contract, &prediction, tick_ms, statements);
                let mut changes = self.changes(span, part, first, statements)?;
                let Some(mut before) = changes.next().map(at) else { continue };
                for tick_ms in changes {
                    let states = at(tick_ms);
                    if !states.iter().zip(&before).all(|(state, before)| state.says_the_same(before)) {
                        rows.push(id, first, tick_ms, contract, &states);
                    }
                    before = states;
                }
                if rows.len() >= ROWS_PER_BATCH {
                    batches.push(std::mem::replace(&mut rows, Rows::new(self)).finish()?);
                }
            }
        }
        if rows.len() > 0 {
            batches.push(rows.finish()?);
        }
        Ok(batches)
    }

    /// The open tick with which a prediction's labels are to be compared first, and those at which they may be others. None
    /// where it is not sealed by the end of the span.
    fn changes(
        &self,
        span: &Span,
        part: &Partition,
        first: &Copy,
        statements: &[Statement],
    ) -> Result<impl Iterator<Item = i64> + use<>, PipelineError> {
        let contract = self.contract(first.version)?;
        let bars = &part.bars;
        let as_of = bars.as_of(first.event_ms + contract.seal_ms(), first.ingest_ms);
        let last = final_tick(contract, bars, first.event_ms, first.ingest_ms).min(span.ready.unwrap_or(EARLIEST_MS));
        let from = span.done.map_or(as_of, |done| done.max(as_of));
        let mut ticks = BTreeSet::new();
        if from < last {
            let known = statements.iter().map(|statement| bars.first_open(i64::MIN, statement.ingest_time_ms));
            let labels = contract.labels.iter().filter(|label| label.is_streaming());
            let closed = labels.map(|label| bars.first_open(first.event_ms + contract.close_ms(label), i64::MIN));
            ticks.extend(known.chain(closed).filter(|tick| from < *tick && *tick <= last));
            if !ticks.is_empty() {
                ticks.insert(from);
            }
        }
        Ok(ticks.into_iter())
    }
}

/// Rows of the table.
struct Rows {
    ids: StringBuilder,
    event_times: TimestampMicrosecondBuilder,
    as_of: TimestampMicrosecondBuilder,
    versions: Int32Builder,
    labels: LabelColumns,
}

impl Rows {
    fn new(pipeline: &Pipeline) -> Rows {
        let times = || TimestampMicrosecondBuilder::new().with_timezone("+00:00");
        Rows {
            ids: StringBuilder::new(),
            event_times: times(),
            as_of: times(),
            versions: Int32Builder::new(),
            labels: LabelColumns::new(pipeline.revisions.arrow_schema()),
        }
    }

    fn len(&self) -> usize {
        self.labels.len()
    }

    fn push(
        &mut self,
        id: &str,
        copy: &Copy,
        tick_ms: i64,
        contract: &flywheel_schemas::contract::Contract,
        states: &[LabelState],
    ) {
        self.ids.append_value(id);
        self.event_times.append_value(copy.event_ms.saturating_mul(1000));
        self.as_of.append_value(tick_ms.saturating_mul(1000));
        self.versions.append_value(copy.version);
        self.labels.push_streaming(contract, states);
    }

    fn finish(mut self) -> Result<RecordBatch, PipelineError> {
        let mut columns: Vec<(String, ArrayRef)> = vec![
            ("prediction_id".to_owned(), Arc::new(self.ids.finish())),
            ("event_time".to_owned(), Arc::new(self.event_times.finish())),
            ("as_of".to_owned(), Arc::new(self.as_of.finish())),
            ("contract_version".to_owned(), Arc::new(self.versions.finish())),
        ];
        columns.extend(self.labels.finish());
        let fields = columns.iter().map(|(name, column)| Field::new(name, column.data_type().clone(), true));
        let schema = Schema::new(fields.collect::<Vec<_>>());
        let columns = columns.into_iter().map(|(_, column)| column).collect();
        RecordBatch::try_new(Arc::new(schema), columns).map_err(PipelineError::decode)
    }
}
