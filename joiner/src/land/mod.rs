//! Landing: from records to rows of the raw tables, with the offsets in the same commit.
//!
//! What the raw tables do not keep is kept elsewhere *before* the raw commit that passes its offset: records that
//! cannot be landed in `dead_letter`, gaps of the outcome partitions in `seal_log`.
//!
//! | record | what becomes of it |
//! |---|---|
//! | tick record | time moves |
//! | gate record in an outcome partition | said of its source ([`crate::gate`]); one that cannot be read: dead letter |
//! | framed, schema known, datum well formed, id and times sound | a row |
//! | schema id unknown, or registry away | its partition waits, with an alarm; the others go on |
//! | a column of its schema is of another type in the table | its partition waits, with an alarm |
//! | no value, not framed, schema unusable, datum damaged | dead letter |
//! | id no UUIDv7 or not of the event time (`ids: minted`), event time over an hour ahead of its ingest | dead letter |
//! | event time of a prediction is no whole millisecond | dead letter |
//! | `contract_version` is not that of the schema's contract | dead letter |
//! | key belongs to another partition | appended there, counted, not landed here |
//! | time chosen by its producer, and not by the broker (broker time) | its partition waits, with an alarm |
//! | appended over a minute ahead of this machine's clock (broker time) | its partition waits, with an alarm |

mod commit;
mod landing;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use flywheel_schemas::contract::{Contract, Ids};
use flywheel_schemas::gate::GateRecord;
use flywheel_schemas::wire::Kind;
use flywheel_schemas::{id, partition, wire};

use crate::bar::Barred;
use crate::contracts::SchemaFault;
use crate::decode::{Keys, Origin};
use crate::gate::Rates;
use crate::letters::DeadLetter;
use crate::pipeline::{Pipeline, PipelineError};
use crate::source::Record;
pub(crate) use landing::{Aside, Landing, Landings};

/// An event time further ahead of its own ingest than this is a clock gone wrong, in milliseconds.
const AHEAD_MAX_MS: i64 = 3_600_000;

/// An append time further ahead of this machine's clock than this is not believed, in milliseconds.
const CLOCK_AHEAD_MAX_MS: i64 = 60_000;

/// How long a partition waits before its schema id is looked up again.
const SCHEMA_RETRY: Duration = Duration::from_secs(2);

/// Rows are handed on in batches of this many: enough for the column writers, little enough to count by bytes.
const ROWS_PER_BATCH: usize = 8192;

/// What becomes of one record.
enum Landed {
    /// It became a row.
    Row,
    /// It did not, and its partition goes on.
    Passed,
    /// It is passed, and says something about label sources.
    Said(GateRecord),
    /// Its partition stops before it.
    Waits(String),
}

impl Pipeline {
    /// Takes records in, each in the order of its partition. Records of a partition that waits are left out: it is
    /// read again from where it stopped.
    pub(crate) async fn take(&mut self, records: Vec<Record>) -> Result<(), PipelineError> {
        let mut rows: BTreeMap<Kind, u64> = BTreeMap::new();
        let mut heard = None;
        for record in records {
            let (kind, number) = (record.kind, record.partition);
            let Some(part) = self.partitions.get(&number) else { continue };
            let side = part.side(kind);
            if side.waits_for.is_some() {
                continue;
            }
            match side.next() {
                // The record before the first to be landed is read again to see that the topic is still the same.
                Some(next) if record.offset < next => {
                    if side.last_ms().is_some_and(|last| record.time_ms > last) {
                        return Err(PipelineError::AnotherTopic {
                            topic: wire::topic(&self.config.log.prefix, &self.model, kind),
                            partition: number,
                            why: format!("offset {} was appended after it was landed", record.offset),
                        });
                    }
                    continue;
                }
                _ => {}
            }
            let ingest_ms = side.ingest_ms(record.time_ms);
            match self.land(&record, ingest_ms).await? {
                Landed::Row => {
                    *rows.entry(kind).or_default() += 1;
                    self.pass(&record, ingest_ms);
                }
                Landed::Passed => self.pass(&record, ingest_ms),
                Landed::Said(gate) => {
                    self.pass(&record, ingest_ms);
                    self.hear(&record, gate, ingest_ms);
                }
                Landed::Waits(why) => {
                    self.hold(&record, &why);
                    continue;
                }
            }
            // Records come in runs of one partition.
            if heard != Some((kind, number)) {
                heard = Some((kind, number));
                self.heard.insert((kind, number), Instant::now());
            }
        }
        for (kind, rows) in rows {
            self.metrics.landed(&self.model, kind, rows);
        }
        Ok(())
    }

    /// Moves a side past a record, and notes what an outcome record shows to be barred.
    fn pass(&mut self, record: &Record, ingest_ms: i64) {
        let Some(part) = self.partitions.get_mut(&record.partition) else { return };
        if record.kind == Kind::Outcomes {
            let last_ms = part.outcomes.last_ms();
            if let Some(bar) = part.bars.observe(last_ms, ingest_ms) {
                let cause = if bar.after_ms.is_none() { "start" } else { "gap" };
                part.bars.add(bar);
                self.aside.bars.push(Barred { partition: record.partition, bar, cause: cause.to_owned() });
                self.metrics.gap(&self.model, record.partition, &bar);
            }
            let allowance_ms = part.bars.allowance_ms();
            let of_sources = last_ms.map(|last| part.gate.read.barred(last, ingest_ms, self.grid_ms, allowance_ms));
            for (cause, bar) in of_sources.into_iter().flatten() {
                part.bars.add(bar);
                self.aside.bars.push(Barred { partition: record.partition, bar, cause: cause.to_string() });
            }
        }
        part.side_mut(record.kind).pass(record.offset, ingest_ms);
        if !self.held.is_empty() && self.held.remove(&(record.kind, record.partition)).is_some() {
            self.metrics.partition_goes_on(&self.model, record.kind, record.partition);
        }
    }

    /// Takes up what a gate record says, after the ticks before it were looked at.
    fn hear(&mut self, record: &Record, gate: GateRecord, ingest_ms: i64) {
        let Some(part) = self.partitions.get_mut(&record.partition) else { return };
        if let Some(done) = part.done_ms {
            part.gate.read.forget(done);
        }
        tracing::debug!(model = self.model, partition = record.partition, ?gate, "gate record");
        if let Err(error) = part.gate.read.take(gate, ingest_ms) {
            self.bury(record, ingest_ms, "gate_full", error.to_string());
        }
    }

    fn hold(&mut self, record: &Record, why: &str) {
        self.feed.pause(record.kind, record.partition, record.offset);
        if let Some(part) = self.partitions.get_mut(&record.partition) {
            part.side_mut(record.kind).waits_for = Some(record.offset);
        }
        let retry = Instant::now() + SCHEMA_RETRY;
        let first = self.held.insert((record.kind, record.partition), retry).is_none();
        self.metrics.partition_waits(&self.model, record.kind, record.partition, record.offset, why, first);
    }

    /// Lets partitions that waited long enough try again.
    pub(crate) fn release_held(&mut self) -> Result<(), PipelineError> {
        let now = Instant::now();
        for ((kind, number), retry) in &mut self.held {
            let Some(side) = self.partitions.get_mut(number).map(|part| part.side_mut(*kind)) else { continue };
            if *retry <= now
                && let Some(offset) = side.waits_for.take()
            {
                self.feed.assign(*kind, *number, offset)?;
                *retry = now + SCHEMA_RETRY;
            }
        }
        Ok(())
    }

    async fn land(&mut self, record: &Record, ingest_ms: i64) -> Result<Landed, PipelineError> {
        if !self.config.writer_keeps_time() {
            if !record.time_by_log {
                let why = "its time was chosen by its producer (CreateTime), but log.ingest_time is `broker`";
                return Ok(Landed::Waits(why.to_owned()));
            }
            let ahead_ms = record.time_ms - now_ms();
            if ahead_ms > CLOCK_AHEAD_MAX_MS {
                return Ok(Landed::Waits(format!("appended {ahead_ms} ms ahead of this machine's clock")));
            }
        }
        if record.tick {
            return Ok(Landed::Passed);
        }
        if let Some(header) = record.gate.as_deref().filter(|_| record.kind == Kind::Outcomes) {
            match GateRecord::from_header(header) {
                Ok(gate) => return Ok(Landed::Said(gate)),
                Err(fault) => self.bury(record, ingest_ms, "invalid_gate_record", fault),
            }
            return Ok(Landed::Passed);
        }
        let Some(value) = record.value.as_deref() else {
            self.bury(record, ingest_ms, "no_value", "the record has no value".to_owned());
            return Ok(Landed::Passed);
        };
        let Some((schema_id, datum)) = wire::unframe(value) else {
            let detail = "the value does not begin with a zero byte and a schema id".to_owned();
            self.bury(record, ingest_ms, "not_framed", detail);
            return Ok(Landed::Passed);
        };
        let known = self.contracts.knows(record.kind, schema_id);
        let schema = match self.contracts.schema(record.kind, schema_id).await {
            Ok(schema) => schema,
            Err(SchemaFault::Wait(why)) => return Ok(Landed::Waits(format!("schema id {schema_id}: {why}"))),
            Err(SchemaFault::Unusable(why)) => {
                self.bury(record, ingest_ms, "unusable_schema", format!("schema id {schema_id}: {why}"));
                return Ok(Landed::Passed);
            }
        };
        if !known {
            self.widen(&schema.contract).await?;
        }
        if self.landings.get_mut(record.kind).admit(schema_id, &schema.decoder).is_err() {
            self.widen(&schema.contract).await?;
            if let Err(error) = self.landings.get_mut(record.kind).admit(schema_id, &schema.decoder) {
                return Ok(Landed::Waits(format!("schema id {schema_id}: {error}")));
            }
        }
        let keys = match schema.decoder.check(datum) {
            Ok(keys) => keys,
            Err(error) => {
                self.bury(record, ingest_ms, "undecodable", format!("schema id {schema_id}: {error}"));
                return Ok(Landed::Passed);
            }
        };
        let home = partition::of(keys.prediction_id.as_bytes(), self.partition_count);
        if home != record.partition {
            self.feed.reroute(record, home).await?;
            self.metrics.rerouted(&self.model, record.kind, record.partition, home);
            return Ok(Landed::Passed);
        }
        if let Err((reason, detail)) = examine(&schema.contract, record.kind, &keys, ingest_ms) {
            self.bury(record, ingest_ms, reason, detail);
            return Ok(Landed::Passed);
        }
        let origin = Origin {
            ingest_time_ms: ingest_ms,
            partition: record.partition,
            offset: record.offset,
            producer_id: record.producer_id.as_deref(),
            producer_seq: record.producer_seq,
        };
        let landing = self.landings.get_mut(record.kind);
        if record.kind == Kind::Outcomes {
            let statement = schema.decoder.statement(datum, &origin).map_err(PipelineError::decode)?;
            // What the log holds lands, whoever it is about; that it will find no prediction is known already.
            if schema.contract.samples_out(keys.prediction_id) {
                self.metrics.sampled_out_outcome(&self.model);
            }
            landing.keep(keys.prediction_id, statement);
        }
        landing.rows.push(&schema.decoder, datum, &origin);
        if landing.rows.len() >= ROWS_PER_BATCH {
            landing.cut()?;
        }
        self.aside.touch();
        Ok(Landed::Row)
    }

    fn bury(&mut self, record: &Record, ingest_ms: i64, reason: &'static str, detail: String) {
        let topic = wire::topic(&self.config.log.prefix, &self.model, record.kind);
        self.metrics.dead_letter(&self.model, record.kind, record.partition, record.offset, reason);
        self.aside.dead_letters.push(DeadLetter::new(&self.model, topic, record, ingest_ms, reason, detail));
        self.aside.touch();
    }

    /// Gives the tables the columns of a contract that is met for the first time, before its first row.
    async fn widen(&mut self, contract: &Contract) -> Result<(), PipelineError> {
        use flywheel_schemas::table;
        for (kind, spec) in
            [(Kind::Predictions, table::predictions(contract)), (Kind::Outcomes, table::outcomes(contract))]
        {
            let table = self.warehouse.table(&spec, &[]).await?;
            self.landings.get_mut(kind).replace_table(table)?;
        }
        self.training = self.warehouse.table(&table::training(contract), &[]).await?;
        self.revisions = self.warehouse.table(&table::label_revisions(contract), &[]).await?;
        self.unmatched = self.warehouse.table(&table::unmatched(contract), &[]).await?;
        // It may ask for the counts of labels that were not counted so far.
        self.rates = Rates::new(self.grid_ms);
        Ok(())
    }
}

/// Whether the ids and times of a well-formed record hold together.
fn examine(contract: &Contract, kind: Kind, keys: &Keys, ingest_ms: i64) -> Result<(), (&'static str, String)> {
    let event_ms = keys.event_time_us.div_euclid(1000);
    if contract.ids == Ids::Minted {
        // Another spelling would be another id in keys, index and tables.
        let id = uuid::Uuid::try_parse(keys.prediction_id).ok();
        let id = id.filter(|id| *id.hyphenated().encode_lower(&mut [0; 36]) == *keys.prediction_id);
        match (id.as_ref().and_then(id::time_ms), kind) {
            (None, _) => {
                return Err(("invalid_id", "prediction_id is no UUIDv7 in lower-case, hyphenated text".to_owned()));
            }
            (Some(id_ms), Kind::Predictions) if id_ms * 1000 != keys.event_time_us => {
                let detail = format!("the id is of {id_ms} ms, event_time is {} µs", keys.event_time_us);
                return Err(("id_time_mismatch", detail));
            }
            _ => {}
        }
    }
    // A copy is known by id and event time, and ticks are in milliseconds; minted ids say as much.
    if kind == Kind::Predictions && keys.event_time_us % 1000 != 0 {
        return Err(("event_time_not_whole", format!("event_time is {} µs: no whole millisecond", keys.event_time_us)));
    }
    // The row is sealed by the version that it names.
    if kind == Kind::Predictions && keys.contract_version != Some(contract.version) {
        let said = keys.contract_version.map_or("none".to_owned(), |version| version.to_string());
        let detail = format!("contract_version is {said}, the schema's contract is version {}", contract.version);
        return Err(("contract_version_mismatch", detail));
    }
    if kind == Kind::Predictions && event_ms - ingest_ms > AHEAD_MAX_MS {
        return Err((
            "event_time_ahead",
            format!("event_time is {} ms after the log received it", event_ms - ingest_ms),
        ));
    }
    Ok(())
}

fn now_ms() -> i64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
