//! What can stop a pipeline.

use flywheel_schemas::registry::RegistryError;

use crate::index::IndexError;
use crate::source::SourceError;
use crate::table::TableError;

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
    #[error("what the outcomes table has recorded of partition {partition}'s gate cannot be read: {cause}")]
    Said { partition: i32, cause: String },
    #[error("rows: {0}")]
    Decode(String),
    #[error(
        "{topic}, partition {partition}, is not the topic that the tables were filled from: {why}. Nothing is landed \
         from it; restore the topic, or let the tables go on from the one that is there: `flywheel-joiner adopt MODEL` \
         says what that means"
    )]
    AnotherTopic { topic: String, partition: i32, why: String },
    /// Somebody took a table back while a joiner was at work on it.
    #[error(
        "table {table} has gone back to {recorded} in partition {partition}, where {known} was recorded: it was rolled \
         back, or dropped and made anew. What it lacks is landed or sealed again, as far as log and raw tables have it"
    )]
    WentBack { table: String, partition: i32, recorded: i64, known: i64 },
    #[error(
        "table {behind} has not landed what {training} was sealed from in partition {partition}: it was rolled back or \
         dropped. Nothing is landed; bring {behind} back to its last snapshot, or drop the tables that are made from it \
         ({training}, its revisions, unmatched) too, and all of them are made again from what the log still has"
    )]
    Behind { behind: String, training: String, partition: i32 },
    #[error(
        "table {table} says nothing of {model}, partition {partition}, of which outcomes are landed: it was rolled back or \
         dropped, and which ticks are barred stands nowhere else. Nothing is landed; bring it back to its last snapshot"
    )]
    BarsLost { table: String, model: String, partition: i32 },
}

impl PipelineError {
    pub fn decode(error: impl std::fmt::Display) -> PipelineError {
        PipelineError::Decode(error.to_string())
    }

    /// Whether it passes without a person.
    pub fn is_passing(&self) -> bool {
        match self {
            PipelineError::Source(error) => error.is_passing(),
            PipelineError::Table(error) => error.is_passing(),
            PipelineError::Registry(error) => error.is_passing(),
            // What becomes of it shows when the partitions are taken anew.
            PipelineError::NoContract | PipelineError::WentBack { .. } => true,
            _ => false,
        }
    }

    /// Whether the index is to be built anew from the table.
    pub fn spoils_index(&self) -> bool {
        matches!(self, PipelineError::Index(IndexError::Store { .. } | IndexError::Damaged { .. }))
    }
}
