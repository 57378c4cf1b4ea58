//! Generations: which topics the tables of a model were filled from.
//!
//! The first are the topics that were there when the tables were made. Where they are gone (made anew, on another cluster, or
//! with records that went before they were landed), a person begins the next generation ([`adopt`](crate::commands)). The
//! progress of every table names it beside the cluster, so that a joiner that knows only the one before commits nothing more.
//!
//! Offsets go on: those of a topic that was made anew are counted from where the one before ended, the progress of the raw
//! table says by how much. So a pair of partition and offset stands for one record for ever, in tables, index and dead
//! letters, and nothing that is recorded needs another meaning: marks, ticks that are done, times that have passed.

use crate::table::{Table, TableError};

/// What stands between the id of a cluster and the number of a generation; ids of clusters are base64 or UUIDs.
const MARK: char = '#';

/// How progress names the log of a generation: the first one by its cluster alone.
pub(crate) fn name(cluster: &str, generation: u32) -> String {
    if generation <= 1 { cluster.to_owned() } else { format!("{cluster}{MARK}{generation}") }
}

/// Cluster and generation of such a name.
pub(crate) fn parse(name: &str) -> (&str, u32) {
    let parts = name.rsplit_once(MARK).and_then(|(cluster, number)| Some((cluster, number.parse().ok()?)));
    parts.unwrap_or((name, 1))
}

/// The newest generation that these tables, as they were loaded last, have recorded; where none has any, the first.
///
/// # Errors
/// What is recorded and is no progress.
pub(crate) fn recorded<'a>(tables: impl IntoIterator<Item = &'a Table>) -> Result<u32, TableError> {
    let mut newest = 1;
    for table in tables {
        if let Some(progress) = table.recorded()? {
            newest = newest.max(parse(&progress.cluster).1);
        }
    }
    Ok(newest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_cluster_and_generation() {
        assert_eq!(name("c", 1), "c");
        assert_eq!(name("c", 12), "c#12");
        for (text, parsed) in [("c", ("c", 1)), ("c#12", ("c", 12)), ("c#x", ("c#x", 1))] {
            assert_eq!(parse(text), parsed);
        }
    }
}
