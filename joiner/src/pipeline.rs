//! One model's way from the log to its tables. One task owns all of it: the feed, the batch, the tables, the index.
//!
//! A turn of the loop: take what the feed has; when it is time, commit the raw tables, then seal the ticks that they
//! have passed. Partitions come and go between turns. Nothing here decides by the local clock what a row holds; the
//! clock only decides how often is committed.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use flywheel_schemas::contract::Contract;
use flywheel_schemas::registry::{Registry, RegistryError};
use flywheel_schemas::table as spec;
use flywheel_schemas::wire::{self, Kind};
use futures::TryStreamExt;
use tokio::sync::mpsc;

use crate::bar::Bars;
use crate::config::Config;
use crate::contracts::Contracts;
use crate::index::{Index, IndexError};
use crate::land::{Aside, Landing, Landings};
use crate::metrics::Metrics;
use crate::partition::{Partition, Side};
use crate::source::{Feed, Feeds, SourceError};
use crate::table::{Mark, Predicate, Table, TableError, Warehouse};

#[cfg(test)]
mod tests;

/// Records taken from the feed in one turn: bounds the memory between two looks at what is waiting.
const RECORDS_PER_TURN: usize = 8192;

/// How long a turn waits for records where there are none. A feed that stays silent for so long is at its end.
const TURN: Duration = Duration::from_millis(50);

/// An idle partition gets a tick record after this time, by the broker's clock.
const TICK_AFTER: Duration = Duration::from_secs(10);

/// What passes by itself is tried again after this time, doubled up to the second one.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));

/// Properties of the training table.
pub(crate) const GRID: &str = "flywheel.grid";
pub(crate) const DRAIN: &str = "flywheel.drain";
pub(crate) const PARTITIONS: &str = "flywheel.partitions";
/// Through which tick the table is complete: RFC 3339, least tick done over all partitions.
pub const COMPLETE_THROUGH: &str = "flywheel.complete-through";

/// What a pipeline is told.
#[derive(Debug)]
pub(crate) enum Command {
    Take(Vec<i32>),
    Leave(Vec<i32>),
}

/// What every pipeline shares.
#[derive(Clone)]
pub(crate) struct Shared {
    pub config: Arc<Config>,
    pub warehouse: Arc<Warehouse>,
    pub registry: Registry,
    pub metrics: Metrics,
    pub cluster: String,
}

pub(crate) struct Pipeline {
    pub model: String,
    pub config: Arc<Config>,
    pub warehouse: Arc<Warehouse>,
    pub metrics: Metrics,
    pub cluster: String,
    pub feed: Feed,
    pub contracts: Contracts,
    pub landings: Landings,
    pub training: Table,
    pub dead_letter: Table,
    pub seal_log: Table,
    pub index: Index,
    pub partitions: BTreeMap<i32, Partition>,
    /// The number of partitions of each of the two topics.
    pub partition_count: i32,
    pub grid_ms: i64,
    pub drain_ms: i64,
    pub aside: Aside,
    /// Partitions that wait, and when they are tried again.
    pub held: HashMap<(Kind, i32), Instant>,
    /// When a partition last gave a record.
    pub heard: HashMap<(Kind, i32), Instant>,
    /// When the raw tables were last committed.
    pub committed: Instant,
    /// The feed was at its end at the last turn and stayed silent.
    pub quiet: bool,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum PipelineError {
    #[error("{0}")]
    Source(#[from] SourceError),
    #[error("{0}")]
    Table(#[from] TableError),
    #[error("registry: {0}")]
    Registry(#[from] RegistryError),
    #[error("outcome index: {0}")]
    Index(#[from] IndexError),
    #[error("the model has no registered contract yet")]
    NoContract,
    #[error("rows were served under contract version {version}, which is not registered")]
    UnknownContract { version: i32 },
    #[error("column `{name}` is missing or of another type")]
    Column { name: &'static str },
    #[error("rows: {0}")]
    Decode(String),
    #[error(
        "{topic}, partition {partition}, is not the topic that the tables were filled from: {why}. Nothing is landed \
         from it; restore the topic, or start the model under another prefix"
    )]
    AnotherTopic { topic: String, partition: i32, why: String },
}

impl PipelineError {
    pub fn decode(error: impl std::fmt::Display) -> PipelineError {
        PipelineError::Decode(error.to_string())
    }

    /// Whether it passes without a person.
    fn is_passing(&self) -> bool {
        match self {
            PipelineError::Source(error) => error.is_passing(),
            PipelineError::Table(error) => error.is_passing(),
            PipelineError::Registry(error) => error.is_passing(),
            PipelineError::NoContract => true,
            _ => false,
        }
    }
}

/// Runs one model until the commands end. Whatever fails is tried again from what the tables have recorded.
pub(crate) async fn run(model: String, shared: Shared, feeds: Feeds, mut commands: mpsc::UnboundedReceiver<Command>) {
    let mut owned: Vec<i32> = Vec::new();
    let mut wait = RETRY.0;
    loop {
        let started = Instant::now();
        let error = match Pipeline::open(&model, &shared, &feeds).await {
            Ok(mut pipeline) => {
                let ended = pipeline.turn_until_closed(&mut owned, &mut commands).await;
                pipeline.forget_held();
                match ended {
                    Ok(()) => return,
                    Err(error) => error,
                }
            }
            Err(error) => error,
        };
        if started.elapsed() > RETRY.1 {
            wait = RETRY.0;
        }
        shared.metrics.pipeline_failed(&model, &error.to_string(), error.is_passing(), wait);
        let until = tokio::time::Instant::now() + wait;
        wait = (wait * 2).min(RETRY.1);
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(until) => break,
                command = commands.recv() => match command {
                    Some(command) => note(&mut owned, &command),
                    None => return,
                },
            }
        }
    }
}

fn note(owned: &mut Vec<i32>, command: &Command) {
    match command {
        Command::Take(partitions) => {
            owned.extend(partitions);
            owned.sort_unstable();
            owned.dedup();
        }
        Command::Leave(partitions) => owned.retain(|number| !partitions.contains(number)),
    }
}

impl Pipeline {
    async fn open(model: &str, shared: &Shared, feeds: &Feeds) -> Result<Pipeline, PipelineError> {
        let config = Arc::clone(&shared.config);
        let [predictions, outcomes] =
            [Kind::Predictions, Kind::Outcomes].map(|kind| wire::topic(&config.log.prefix, model, kind));
        let count = feeds.partition_count(&predictions).await?;
        let of_outcomes = feeds.partition_count(&outcomes).await?;
        if count != of_outcomes {
            return Err(PipelineError::AnotherTopic {
                topic: outcomes,
                partition: of_outcomes,
                why: format!("it has {of_outcomes} partitions, the predictions have {count}"),
            });
        }
        let contracts = Contracts::load(model, &config.log.prefix, shared.registry.clone()).await?;
        let newest = Arc::clone(contracts.newest().ok_or(PipelineError::NoContract)?);
        let Tables { predictions, outcomes, training, dead_letter, seal_log } =
            Tables::open(&shared.warehouse, &contracts, &newest, count).await?;
        let number = |table: &Table, key: &str, other: i64| {
            table.property(key).and_then(|text| text.parse().ok()).unwrap_or(other)
        };
        let (grid_ms, drain_ms) =
            (number(&training, GRID, newest.seal.grid_ms), number(&training, DRAIN, newest.seal.drain_ms));
        let recorded = number(&training, PARTITIONS, i64::from(count));
        if recorded != i64::from(count) {
            return Err(PipelineError::AnotherTopic {
                topic: wire::topic(&config.log.prefix, model, Kind::Predictions),
                partition: count,
                why: format!("it has {count} partitions, the tables were filled from {recorded}"),
            });
        }
        let index = Index::open(&config.index.dir.join(model), &outcomes.uuid().to_string())?;
        Ok(Pipeline {
            model: model.to_owned(),
            warehouse: Arc::clone(&shared.warehouse),
            metrics: shared.metrics.clone(),
            cluster: shared.cluster.clone(),
            feed: feeds.feed(model)?,
            contracts,
            landings: Landings { predictions: Landing::new(predictions), outcomes: Landing::new(outcomes) },
            training,
            dead_letter,
            seal_log,
            index,
            partitions: BTreeMap::new(),
            partition_count: count,
            grid_ms,
            drain_ms,
            aside: Aside::default(),
            held: HashMap::new(),
            heard: HashMap::new(),
            committed: Instant::now(),
            quiet: false,
            config,
        })
    }

    async fn turn_until_closed(
        &mut self,
        owned: &mut Vec<i32>,
        commands: &mut mpsc::UnboundedReceiver<Command>,
    ) -> Result<(), PipelineError> {
        self.take_partitions(owned).await?;
        loop {
            match commands.try_recv() {
                Ok(command) => {
                    note(owned, &command);
                    match command {
                        Command::Take(partitions) => self.take_partitions(&partitions).await?,
                        Command::Leave(partitions) => self.leave_partitions(&partitions),
                    }
                    continue;
                }
                Err(mpsc::error::TryRecvError::Empty) => {}
                Err(mpsc::error::TryRecvError::Disconnected) => return Ok(()),
            }
            let records = self.feed.poll(RECORDS_PER_TURN, TURN).await?;
            self.quiet = records.is_empty() && self.feed.at_end();
            self.take(records).await?;
            self.release_held()?;
            if self.is_due() {
                self.commit().await?;
                self.seal().await?;
            }
            self.keep_time().await?;
        }
    }

    /// Starts with partitions from what the tables have recorded.
    async fn take_partitions(&mut self, numbers: &[i32]) -> Result<(), PipelineError> {
        let new: Vec<i32> = numbers.iter().copied().filter(|number| !self.partitions.contains_key(number)).collect();
        if new.is_empty() {
            return Ok(());
        }
        let predictions = self.recorded(Kind::Predictions).await?;
        let outcomes = self.recorded(Kind::Outcomes).await?;
        let training = self.training.progress().await?.map(|progress| progress.marks).unwrap_or_default();
        for number in new.iter().copied() {
            let part = Partition {
                predictions: Side::new(predictions.get(&number).copied()),
                outcomes: Side::new(outcomes.get(&number).copied()),
                done_ms: training.get(&number).map(|mark| mark.next),
                bars: Bars::new(self.grid_ms, self.drain_ms),
            };
            if let Some(done) = part.done_ms
                && [&part.predictions, &part.outcomes].iter().any(|side| side.last_ms().is_none_or(|last| last < done))
            {
                return Err(PipelineError::AnotherTopic {
                    topic: wire::topic(&self.config.log.prefix, &self.model, Kind::Predictions),
                    partition: number,
                    why: "the training table is ahead of the raw tables, one of which was rolled back".to_owned(),
                });
            }
            for kind in [Kind::Predictions, Kind::Outcomes] {
                self.start_side(kind, number, part.side(kind).landed).await?;
                self.heard.insert((kind, number), Instant::now());
            }
            self.partitions.insert(number, part);
        }
        self.metrics.partitions(&self.model, self.partitions.len());
        self.take_bars(&new).await?;
        self.catch_up().await
    }

    /// Seeks one record before the recorded offset, so that reading shows whether it is still the same topic.
    async fn start_side(&mut self, kind: Kind, number: i32, landed: Option<Mark>) -> Result<(), PipelineError> {
        let Some(mark) = landed else { return Ok(self.feed.assign(kind, number, -1)?) };
        let (low, end) = self.feed.offsets(kind, number).await?;
        let topic = || wire::topic(&self.config.log.prefix, &self.model, kind);
        if end < mark.next {
            let why = format!("it ends at offset {end}, but {} is landed already", mark.next);
            return Err(PipelineError::AnotherTopic { topic: topic(), partition: number, why });
        }
        if low > mark.next {
            let why = format!("it begins at offset {low}: records from {} on went before they were landed", mark.next);
            return Err(PipelineError::AnotherTopic { topic: topic(), partition: number, why });
        }
        Ok(self.feed.assign(kind, number, (mark.next - 1).max(low))?)
    }

    /// Leaves partitions to others: what was read of them and not committed is read by their next owner.
    fn leave_partitions(&mut self, numbers: &[i32]) {
        for number in numbers {
            if self.partitions.remove(number).is_some() {
                self.feed.unassign(*number);
                self.metrics.partition_left(&self.model, *number);
            }
        }
        self.metrics.partitions(&self.model, self.partitions.len());
        // Rows of the partitions left are mixed with the others' in the batch; all that stay are read again.
        self.landings.predictions.clear();
        self.landings.outcomes.clear();
        self.forget_held();
        for (number, part) in &mut self.partitions {
            for kind in [Kind::Predictions, Kind::Outcomes] {
                let landed = part.side(kind).landed;
                *part.side_mut(kind) = Side::new(landed);
                if let Err(error) = self.feed.assign(kind, *number, landed.map_or(-1, |mark| mark.next)) {
                    self.metrics.pipeline_failed(&self.model, &error.to_string(), true, Duration::ZERO);
                }
            }
        }
    }

    /// Takes back the alarms of partitions that wait: they may be another's from now on, or are read again.
    fn forget_held(&mut self) {
        for (kind, number) in std::mem::take(&mut self.held).into_keys() {
            self.metrics.partition_forgotten(&self.model, kind, number);
        }
    }

    async fn recorded(&mut self, kind: Kind) -> Result<BTreeMap<i32, Mark>, PipelineError> {
        let cluster = self.cluster.clone();
        let landing = self.landings.get_mut(kind);
        match landing.table.progress().await? {
            None => Ok(BTreeMap::new()),
            Some(progress) if progress.cluster == cluster => Ok(progress.marks),
            Some(progress) => Err(PipelineError::AnotherTopic {
                topic: wire::topic(&self.config.log.prefix, &self.model, kind),
                partition: 0,
                why: format!("it is on cluster {cluster}, the tables were filled from cluster {}", progress.cluster),
            }),
        }
    }

    /// Takes over what the seal log has barred for these partitions.
    pub(crate) async fn take_bars(&mut self, numbers: &[i32]) -> Result<(), PipelineError> {
        self.seal_log.refresh().await?;
        for (number, bar) in crate::letters::read_bars(&self.seal_log, &self.model, numbers).await? {
            if let Some(part) = self.partitions.get_mut(&number) {
                part.bars.add(bar);
            }
        }
        Ok(())
    }

    /// Brings the index up to what the outcomes table has recorded.
    pub(crate) async fn catch_up(&mut self) -> Result<(), PipelineError> {
        let recorded = self.recorded(Kind::Outcomes).await?;
        let mut stamp = self.index.stamp()?;
        let ahead = stamp.iter().any(|(number, next)| recorded.get(number).is_none_or(|mark| mark.next < *next));
        if ahead {
            self.index.clear()?;
            stamp.clear();
        }
        for (number, mark) in recorded.iter().filter(|(number, _)| self.partitions.contains_key(number)) {
            let from = stamp.get(number).copied().unwrap_or(0);
            if from >= mark.next {
                continue;
            }
            let predicate = Predicate::And(vec![Predicate::Partition(*number), Predicate::OffsetFrom(from)]);
            let table = &self.landings.outcomes.table;
            let columns: Vec<String> = table.arrow_schema().fields().iter().map(|field| field.name().clone()).collect();
            let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
            let mut stream = Box::pin(table.scan(&columns, predicate).await?);
            while let Some(batch) = stream.try_next().await? {
                let mut statements = crate::decode::statements(&batch).map_err(PipelineError::decode)?;
                statements.retain(|(_, statement)| {
                    statement.partition == *number && (from..mark.next).contains(&statement.offset)
                });
                // Only the last batch may move the stamp: before it the partition is not whole.
                self.index.apply(&statements, &BTreeMap::new())?;
            }
            drop(stream);
            self.index.apply(&[], &BTreeMap::from([(*number, mark.next)]))?;
            self.metrics.caught_up(&self.model, *number, mark.next - from);
        }
        Ok(())
    }

    /// Appends tick records to partitions that were silent, unless the writers keep the time.
    async fn keep_time(&mut self) -> Result<(), PipelineError> {
        if self.config.writer_keeps_time() {
            return Ok(());
        }
        let silent: Vec<(Kind, i32)> =
            self.heard.iter().filter(|(_, at)| at.elapsed() >= TICK_AFTER).map(|(key, _)| *key).collect();
        for (kind, number) in silent {
            if self.partitions.contains_key(&number) {
                self.feed.append_tick(kind, number).await?;
                self.heard.insert((kind, number), Instant::now());
            } else {
                self.heard.remove(&(kind, number));
            }
        }
        Ok(())
    }
}

struct Tables {
    predictions: Table,
    outcomes: Table,
    training: Table,
    dead_letter: Table,
    seal_log: Table,
}

impl Tables {
    /// Creates what is missing, with the columns of every registered contract.
    async fn open(
        warehouse: &Warehouse,
        contracts: &Contracts,
        newest: &Contract,
        partitions: i32,
    ) -> Result<Tables, PipelineError> {
        for contract in contracts.versions() {
            warehouse.table(&spec::predictions(contract), &[]).await?;
            warehouse.table(&spec::outcomes(contract), &[]).await?;
            let properties = [
                (GRID, contract.seal.grid_ms.to_string()),
                (DRAIN, contract.seal.drain_ms.to_string()),
                (PARTITIONS, partitions.to_string()),
            ];
            warehouse.table(&spec::training(contract), &properties).await?;
        }
        Ok(Tables {
            predictions: warehouse.table(&spec::predictions(newest), &[]).await?,
            outcomes: warehouse.table(&spec::outcomes(newest), &[]).await?,
            training: warehouse.table(&spec::training(newest), &[]).await?,
            dead_letter: warehouse.table(&spec::dead_letter(), &[]).await?,
            seal_log: warehouse.table(&spec::seal_log(), &[]).await?,
        })
    }
}
