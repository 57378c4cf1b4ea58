//! `flywheel-joiner adopt`: lets the tables of a model go on from topics that are not those they were filled from.
//!
//! | found of a partition | what is recorded |
//! |---|---|
//! | its topic is another one: it ends before what is landed, its record there is younger, its cluster is another | the next offset stays; the first record of the new topic is counted as it |
//! | its records went before they were landed | the next offset is the first that is there |
//!
//! Times and ticks stay as they are. The new topic's records are ingested no earlier than what was landed last, so no tick that
//! is done would have known them; the time between is a gap like any other, and bars ticks where it is long. Statements that
//! are landed go on counting for predictions that are still open. What the topics held and was not landed is lost, and the
//! ledger shows it.
//!
//! Each table is changed by a compare-and-set of its own, the raw tables last: a joiner goes on only when all are done. Where
//! this command dies between them, it is given once more.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use flywheel_schemas::wire::{self, Kind};

use crate::config::Config;
use crate::generation;
use crate::pipeline::PARTITIONS;
use crate::source::{Feed, Feeds, Source, SourceConfig};
use crate::table::{Progress, Table, Warehouse};

type Failed = Box<dyn std::error::Error>;

/// One record is read within that time, or the log is away.
const READ: Duration = Duration::from_secs(30);

/// The raw tables last, and of these the one that a joiner reads first at the very end.
const TABLES: [&str; 5] = ["training", "label_revisions", "unmatched", "outcomes", "predictions"];

#[derive(clap::Args)]
pub struct Arguments {
    model: String,
    /// Do it; without this it is only said what would be done
    #[arg(long)]
    yes: bool,
}

/// What is to be done, and why.
pub(crate) struct Plan {
    /// Each with what it has recorded and what it is to record.
    pub tables: Vec<(Table, Progress, Progress)>,
    /// Sentences for the person who decides.
    pub said: Vec<String>,
}

/// What has become of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Same,
    Another,
    /// The first offset that is there.
    BeginsAt(i64),
}

pub async fn run(config: Config, arguments: Arguments) -> Result<ExitCode, Failed> {
    let warehouse = Warehouse::open(&config.catalog()).await?;
    let source = Source::open(&beside(&config, "adopt")).await?;
    let plan = plan(&arguments.model, &config.log.prefix, source.cluster_id(), &warehouse, &source.feeds()).await;
    source.close().await;
    let plan = plan?;
    for sentence in &plan.said {
        println!("{sentence}");
    }
    if !arguments.yes {
        println!("Nothing is changed yet; --yes does it.");
        return Ok(ExitCode::SUCCESS);
    }
    plan.carry_out().await?;
    println!("done; joiners that run go on by themselves within half a minute");
    Ok(ExitCode::SUCCESS)
}

/// The log as a command reads it: in a group of its own, so that no running joiner loses a partition to it.
pub(super) fn beside(config: &Config, command: &str) -> SourceConfig {
    let source = config.source();
    SourceConfig { group: format!("{}-{command}", source.group), member: None, ..source }
}

/// Compares what the tables have recorded with what the topics hold.
pub(crate) async fn plan(
    model: &str,
    prefix: &str,
    cluster: &str,
    warehouse: &Warehouse,
    feeds: &Feeds,
) -> Result<Plan, Failed> {
    let mut tables: Vec<(&str, Table, Progress)> = Vec::new();
    let mut partitions = None;
    for suffix in TABLES {
        let Some(table) = warehouse.load(&format!("{model}_{suffix}")).await? else { continue };
        partitions = partitions.or_else(|| table.property(PARTITIONS)?.parse::<i32>().ok());
        if let Some(progress) = table.recorded()? {
            tables.push((suffix, table, progress));
        }
    }
    if tables.is_empty() {
        return Err(format!("nothing of a model `{model}` is landed in this catalog: there is nothing to adopt").into());
    }
    check_counts(model, prefix, partitions, feeds).await?;

    let newest = tables.iter().map(|(_, _, progress)| generation::parse(&progress.cluster).1).max().unwrap_or(1);
    let is_at = |progress: &Progress, generation: u32| progress.cluster == generation::name(cluster, generation);
    let done = tables.iter().filter(|(_, _, progress)| newest > 1 && is_at(progress, newest)).count();
    let is_half_done = (1..tables.len()).contains(&done);
    let next = if is_half_done { newest } else { newest + 1 };
    let mut said = vec![match is_half_done {
        true => format!("{model}: generation {next} was begun and not finished; the rest of it:"),
        false => format!("{model}: generation {next} follows {newest}:"),
    }];

    let mut is_needed = is_half_done;
    let mut changes = Vec::new();
    for (suffix, table, recorded) in tables {
        let mut to = Progress { cluster: generation::name(cluster, next), ..recorded.clone() };
        if recorded == to {
            continue;
        }
        let kind = match suffix {
            "predictions" => Some(Kind::Predictions),
            "outcomes" => Some(Kind::Outcomes),
            _ => None,
        };
        if let Some(kind) = kind {
            let topic = wire::topic(prefix, model, kind);
            let mut feed = feeds.feed(model)?;
            feed.count_from(kind, &recorded.bases);
            let moved = generation::parse(&recorded.cluster).0 != cluster;
            let found = look(&mut feed, kind, &recorded, moved).await?;
            is_needed |= found.values().any(|found| *found != Found::Same);
            for (number, found) in found {
                let sentence = settle(&mut to, &feed, kind, number, found).await?;
                said.push(format!("  {topic}, partition {number}: {sentence}"));
            }
        }
        changes.push((table, recorded, to));
    }
    if !is_needed {
        return Err(format!(
            "the topics of `{model}` are those that its tables were filled from, and all that is not landed is there: \
             there is nothing to adopt"
        )
        .into());
    }
    said.push(
        "What the topics held before and was not landed is lost; `flywheel-joiner status --completeness` says of whom. Rows \
         and ticks that are done stay as they are."
            .to_owned(),
    );
    Ok(Plan { tables: changes, said })
}

/// Keys lie in partitions by the number of these, and ticks, bars and joins go by partition: with another number nothing that
/// is open could be finished.
async fn check_counts(model: &str, prefix: &str, recorded: Option<i32>, feeds: &Feeds) -> Result<(), Failed> {
    for kind in [Kind::Predictions, Kind::Outcomes] {
        let topic = wire::topic(prefix, model, kind);
        let count = feeds.partition_count(&topic).await?;
        if let Some(recorded) = recorded.filter(|recorded| *recorded != count) {
            return Err(format!(
                "{topic} has {count} partitions, the tables of `{model}` were filled from {recorded}. With another number the \
                 keys lie elsewhere, and the statements about predictions that are open would not be found. Make both \
                 topics anew with {recorded} partitions (delete them, then `flywheel-schemas register --partitions \
                 {recorded}`) and adopt these; or let the joiner fill tables of their own from them, in another \
                 catalog.namespace"
            )
            .into());
        }
    }
    Ok(())
}

/// What has become of each partition of which something is landed. A topic is made anew as a whole.
async fn look(feed: &mut Feed, kind: Kind, recorded: &Progress, moved: bool) -> Result<BTreeMap<i32, Found>, Failed> {
    let mut found = BTreeMap::new();
    for (number, mark) in &recorded.marks {
        let Some(mark) = mark.known() else { continue };
        let (low, end) = feed.offsets(kind, *number).await?;
        let is_another = moved
            || end < mark.next
            || (low..end).contains(&(mark.next - 1))
                && time_at(feed, kind, *number, mark.next - 1).await?.is_some_and(|time_ms| time_ms > mark.time_ms);
        let what = match is_another {
            _ if low > mark.next => Found::BeginsAt(low),
            true => Found::Another,
            false => Found::Same,
        };
        found.insert(*number, what);
    }
    if found.values().any(|what| *what == Found::Another) {
        for what in found.values_mut().filter(|what| **what == Found::Same) {
            *what = Found::Another;
        }
    }
    Ok(found)
}

/// When the record at an offset was appended; none where there is none.
async fn time_at(feed: &mut Feed, kind: Kind, number: i32, offset: i64) -> Result<Option<i64>, Failed> {
    feed.assign(kind, number, offset)?;
    let end = Instant::now() + READ;
    let found = loop {
        let records = feed.poll(1, Duration::from_millis(100)).await?;
        if let Some(record) = records.first() {
            break Some((record.offset, record.time_ms));
        }
        if feed.at_end() {
            break None;
        }
        if Instant::now() > end {
            return Err(format!("no record came within {} s; is the log away?", READ.as_secs()).into());
        }
    };
    feed.unassign(number);
    Ok(found.filter(|(at, _)| *at == offset).map(|(_, time_ms)| time_ms))
}

/// Notes what is to be recorded of a partition, and says it.
async fn settle(to: &mut Progress, feed: &Feed, kind: Kind, number: i32, found: Found) -> Result<String, Failed> {
    let Some(mark) = to.marks.get_mut(&number) else { return Ok(String::new()) };
    Ok(match found {
        Found::Same => "goes on as it is".to_owned(),
        Found::BeginsAt(low) => {
            let lost = low - mark.next;
            mark.next = low;
            format!("{lost} records went before they were landed and are lost; it goes on with the first that is there")
        }
        Found::Another => {
            let (low, end) = feed.offsets(kind, number).await?;
            let base = to.bases.get(&number).copied().unwrap_or(0);
            to.bases.insert(number, mark.next - (low - base));
            format!(
                "another topic, with {} records; all of them are read, counted from offset {} on",
                end - low,
                mark.next
            )
        }
    })
}

impl Plan {
    /// # Errors
    /// Where a table has moved since the plan was made; what was changed by then stays, and the command is given again.
    pub async fn carry_out(self) -> Result<(), Failed> {
        for (mut table, from, to) in self.tables {
            if !table.replace_progress(&from, &to).await? {
                let name = table.name();
                return Err(format!("{name} was committed to meanwhile; give the command again").into());
            }
        }
        Ok(())
    }
}
