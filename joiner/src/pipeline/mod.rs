//! One model's way from the log to its tables. One task owns all of it: the feed, the batch, the tables, the index.
//!
//! A turn of the loop: take what the feed has; when it is time, commit the raw tables, then seal the ticks that they
//! have passed. Partitions come and go between turns. Nothing here decides by the local clock what a row holds; the
//! clock only decides how often is committed.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use flywheel_schemas::contract::Contract;
use flywheel_schemas::registry::Registry;
use flywheel_schemas::table as spec;
use flywheel_schemas::wire::{self, Kind};
use tokio::sync::mpsc;

use crate::config::Config;
use crate::contracts::Contracts;
use crate::gate::Rates;
use crate::generation;
use crate::index::Index;
use crate::land::{Aside, Landing, Landings};
use crate::metrics::Metrics;
use crate::partition::Partition;
use crate::source::{Feed, Feeds};
use crate::table::{Table, Warehouse};

mod error;
mod ownership;
#[cfg(feature = "testing")]
mod steps;
mod upkeep;

#[cfg(test)]
pub(crate) mod tests;

pub(crate) use error::PipelineError;
pub(crate) use ownership::said_property;
#[cfg(feature = "testing")]
pub use steps::{StepError, Steps};
use upkeep::{IndexLevel, PutOff};

/// Records taken from the feed in one turn: bounds the memory between two looks at what is waiting.
const RECORDS_PER_TURN: usize = 8192;

/// How long a turn waits for records where there are none. A feed that stays silent for so long is at its end.
const TURN: Duration = Duration::from_millis(50);

/// What passes by itself is tried again after this time, doubled up to the second one.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));

/// Properties of the training table.
pub(crate) const GRID: &str = "flywheel.grid";
pub(crate) const DRAIN: &str = "flywheel.drain";
pub(crate) const PARTITIONS: &str = "flywheel.partitions";
/// How many outcome records about a prediction count at most, the first ones.
pub(crate) const OUTCOMES_MAX: &str = "flywheel.outcomes-per-prediction";
/// Its value unless the table has another: far above what labels are made from, and little enough to hold in memory.
const OUTCOMES_MAX_DEFAULT: i64 = 1000;
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
    pub revisions: Table,
    pub unmatched: Table,
    pub dead_letter: Table,
    pub seal_log: Table,
    pub index: Index,
    pub partitions: BTreeMap<i32, Partition>,
    /// The number of partitions of each of the two topics.
    pub partition_count: i32,
    pub grid_ms: i64,
    pub drain_ms: i64,
    pub outcomes_max: usize,
    pub aside: Aside,
    pub rates: Rates,
    /// Partitions that wait, and when they are tried again.
    pub held: HashMap<(Kind, i32), Instant>,
    /// When a partition last gave a record.
    pub heard: HashMap<(Kind, i32), Instant>,
    /// When the raw tables were last committed.
    pub committed: Instant,
    /// The feed was at its end at the last turn and stayed silent.
    pub quiet: bool,
    /// A commit that failed and is tried again with the same batch; nothing is read meanwhile.
    put_off: Option<PutOff>,
    /// Before which event time the index holds nothing any more.
    index_expired_ms: i64,
    index_level: IndexLevel,
}

/// Runs one model until the commands end. Whatever fails, but for commits that are put off, is tried again from what
/// the tables have recorded.
pub(crate) async fn run(model: String, shared: Shared, feeds: Feeds, mut commands: mpsc::UnboundedReceiver<Command>) {
    let mut owned: Vec<i32> = Vec::new();
    let mut wait = RETRY.0;
    loop {
        let started = Instant::now();
        let error = match Pipeline::open(&model, &shared, &feeds).await {
            Ok(mut pipeline) => {
                let ended = pipeline.turn_until_closed(&mut owned, &mut commands, &feeds).await;
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
        if error.spoils_index()
            && let Err(error) = Index::discard(&shared.config.index.dir.join(&model))
        {
            shared.metrics.pipeline_failed(&model, &error.to_string(), false, wait);
        }
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
        if !config.writer_keeps_time() {
            for topic in [&predictions, &outcomes] {
                feeds.check_times(topic).await?;
            }
        }
        let contracts = Contracts::load(model, &config.log.prefix, shared.registry.clone()).await?;
        let newest = Arc::clone(contracts.newest().ok_or(PipelineError::NoContract)?);
        let Tables { predictions, outcomes, training, revisions, unmatched, dead_letter, seal_log } =
            Tables::open(&shared.warehouse, &contracts, &newest, count).await?;
        let number = |table: &Table, key: &str, other: i64| {
            table.property(key).and_then(|text| text.parse().ok()).unwrap_or(other)
        };
        let (grid_ms, drain_ms) =
            (number(&training, GRID, newest.seal.grid_ms), number(&training, DRAIN, newest.seal.drain_ms));
        let outcomes_max = number(&training, OUTCOMES_MAX, OUTCOMES_MAX_DEFAULT);
        let recorded = number(&training, PARTITIONS, i64::from(count));
        if recorded != i64::from(count) {
            return Err(PipelineError::AnotherTopic {
                topic: wire::topic(&config.log.prefix, model, Kind::Predictions),
                partition: count,
                why: format!("it has {count} partitions, the tables were filled from {recorded}"),
            });
        }
        let index = Index::open(&config.index.dir.join(model), &outcomes.uuid().to_string())?;
        let generation = generation::recorded([&predictions, &outcomes])?;
        Ok(Pipeline {
            model: model.to_owned(),
            warehouse: Arc::clone(&shared.warehouse),
            metrics: shared.metrics.clone(),
            cluster: generation::name(&shared.cluster, generation),
            feed: feeds.feed(model)?,
            contracts,
            landings: Landings { predictions: Landing::new(predictions), outcomes: Landing::new(outcomes) },
            training,
            revisions,
            unmatched,
            dead_letter,
            seal_log,
            index,
            partitions: BTreeMap::new(),
            partition_count: count,
            grid_ms,
            drain_ms,
            outcomes_max: usize::try_from(outcomes_max).unwrap_or(0),
            aside: Aside::default(),
            rates: Rates::new(grid_ms),
            held: HashMap::new(),
            heard: HashMap::new(),
            committed: Instant::now(),
            quiet: false,
            put_off: None,
            index_expired_ms: 0,
            index_level: IndexLevel::Low,
            config,
        })
    }

    async fn turn_until_closed(
        &mut self,
        owned: &mut Vec<i32>,
        commands: &mut mpsc::UnboundedReceiver<Command>,
        feeds: &Feeds,
    ) -> Result<(), PipelineError> {
        self.take_partitions(owned).await?;
        self.metrics.pipeline_goes_on(&self.model);
        loop {
            match commands.try_recv() {
                Ok(command) => {
                    note(owned, &command);
                    match command {
                        Command::Take(partitions) => self.take_partitions(&partitions).await?,
                        Command::Leave(partitions) => {
                            self.leave_partitions(&partitions)?;
                            if self.partitions.is_empty() {
                                self.check_topic(feeds).await?;
                            }
                        }
                    }
                    continue;
                }
                Err(mpsc::error::TryRecvError::Empty) => {}
                Err(mpsc::error::TryRecvError::Disconnected) => return Ok(()),
            }
            self.turn().await?;
        }
    }

    /// An error where the last partition was not given to another joiner, but went with its topic.
    async fn check_topic(&self, feeds: &Feeds) -> Result<(), PipelineError> {
        match feeds.partition_count(&wire::topic(&self.config.log.prefix, &self.model, Kind::Predictions)).await {
            Err(error) if !error.is_passing() => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Reads, and commits and seals where it is time.
    async fn turn(&mut self) -> Result<(), PipelineError> {
        self.keep_time().await?;
        match &self.put_off {
            Some(put_off) if !put_off.is_due() => {
                tokio::time::sleep(TURN).await;
                return Ok(());
            }
            Some(_) => {}
            None if self.index_level == IndexLevel::Full => tokio::time::sleep(TURN).await,
            None => {
                let records = self.feed.poll(RECORDS_PER_TURN, TURN).await?;
                self.quiet = records.is_empty() && self.feed.at_end();
                self.take(records).await?;
                self.release_held()?;
            }
        }
        if self.put_off.is_some() || self.is_due() {
            self.settle().await?;
        }
        self.expire_index()?;
        self.measure_index()
    }
}

struct Tables {
    predictions: Table,
    outcomes: Table,
    training: Table,
    revisions: Table,
    unmatched: Table,
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
                (OUTCOMES_MAX, OUTCOMES_MAX_DEFAULT.to_string()),
            ];
            warehouse.table(&spec::training(contract), &properties).await?;
            warehouse.table(&spec::label_revisions(contract), &[]).await?;
            warehouse.table(&spec::unmatched(contract), &[]).await?;
        }
        Ok(Tables {
            predictions: warehouse.table(&spec::predictions(newest), &[]).await?,
            outcomes: warehouse.table(&spec::outcomes(newest), &[]).await?,
            training: warehouse.table(&spec::training(newest), &[]).await?,
            revisions: warehouse.table(&spec::label_revisions(newest), &[]).await?,
            unmatched: warehouse.table(&spec::unmatched(newest), &[]).await?,
            dead_letter: warehouse.table(&spec::dead_letter(), &[]).await?,
            seal_log: warehouse.table(&spec::seal_log(), &[]).await?,
        })
    }
}
