//! What can go wrong with a table, and what to do about it.

use arrow::error::ArrowError;
use iceberg::ErrorKind;

/// What to do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Back off and call again, with the same batch: the network, the store or the catalog is away or busy.
    Passing,
    /// Nothing changes until a person changes something: no permission, no such table, another schema, another
    /// cluster. Park the model, raise an alarm, and try again only now and then.
    Parked,
}

/// An error of a catalog, a table or its files.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    #[error("catalog setting `{setting}`: {reason}")]
    Setting { setting: String, reason: String },
    #[error("table {table}: {}; nothing is written to it until that is put right", faults.join("; "))]
    Schema { table: String, faults: Vec<String> },
    #[error(
        "table {table} was written from the cluster {recorded}, and this is the cluster {present}: offsets of the one \
         mean nothing in the other"
    )]
    Cluster { table: String, recorded: String, present: String },
    #[error("table {table}: its recorded progress is not to be understood: {text}")]
    Progress { table: String, text: String },
    #[error("table {table}: a batch must have a lower and an upper mark for the same partitions")]
    Bounds { table: String },
    #[error("table {table}, {action}: {source}")]
    Iceberg { table: String, action: &'static str, kind: Kind, source: Box<iceberg::Error> },
    #[error("table {table}, {action}: {source}")]
    Arrow { table: String, action: &'static str, source: ArrowError },
    #[error("table {table}, {action}: no answer within {seconds} s")]
    Late { table: String, action: &'static str, seconds: u64 },
    #[error("table {table}: not committed after {attempts} attempts, the last of them: {source}")]
    GivenUp { table: String, attempts: u32, source: Box<TableError> },
    #[error("catalog database {file}: {source}")]
    Database { file: String, source: sqlx::Error },
}

impl TableError {
    pub fn kind(&self) -> Kind {
        match self {
            TableError::Iceberg { kind, .. } => *kind,
            TableError::Late { .. } | TableError::Database { .. } => Kind::Passing,
            TableError::GivenUp { source, .. } => source.kind(),
            TableError::Setting { .. }
            | TableError::Schema { .. }
            | TableError::Cluster { .. }
            | TableError::Progress { .. }
            | TableError::Bounds { .. }
            | TableError::Arrow { .. } => Kind::Parked,
        }
    }

    /// Whether another try may do.
    pub fn is_passing(&self) -> bool {
        self.kind() == Kind::Passing
    }

    pub(super) fn iceberg(table: &str, action: &'static str, error: iceberg::Error) -> TableError {
        let kind = kind_of(&error);
        TableError::Iceberg { table: table.to_owned(), action, kind, source: Box::new(error) }
    }

    /// The same error, to be parked.
    pub(super) fn parked(mut self) -> TableError {
        if let TableError::Iceberg { kind, .. } = &mut self {
            *kind = Kind::Parked;
        }
        self
    }

    /// Whether the iceberg crate calls it invalid data, which may be a passing read of a half-written file or lasting.
    pub(super) fn is_invalid_data(&self) -> bool {
        matches!(self, TableError::Iceberg { source, .. } if source.kind() == ErrorKind::DataInvalid)
    }

    /// Whether the catalog answered that somebody else was first.
    pub(super) fn is_conflict(&self) -> bool {
        matches!(self, TableError::Iceberg { source, .. } if source.kind() == ErrorKind::CatalogCommitConflicts)
    }
}

fn kind_of(error: &iceberg::Error) -> Kind {
    match error.kind() {
        ErrorKind::TableNotFound | ErrorKind::NamespaceNotFound | ErrorKind::FeatureUnsupported => Kind::Parked,
        _ if is_denied(error) => Kind::Parked,
        _ => Kind::Passing,
    }
}

/// The crate keeps the status of an answer in the text alone: `status: 403 Forbidden` of a catalog, `code: 401` of a
/// token endpoint; a store's refusal is the source, `PermissionDenied (permanent) at …`.
fn is_denied(error: &iceberg::Error) -> bool {
    let text = error.to_string();
    let coded = ["401", "403", "404"]
        .iter()
        .any(|code| text.contains(&format!("status: {code}")) || text.contains(&format!("code: {code}")));
    let refused = std::error::Error::source(error).is_some_and(|source| {
        let source = source.to_string();
        ["PermissionDenied", "ConfigInvalid"].iter().any(|kind| source.starts_with(kind))
    });
    coded || refused
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_parked_and_outages_pass() {
        let status = |status: &str| {
            iceberg::Error::new(ErrorKind::Unexpected, "Received response with unexpected status code")
                .with_context("status", status)
        };
        for (text, kind) in [
            ("401 Unauthorized", Kind::Parked),
            ("403 Forbidden", Kind::Parked),
            ("429 Too Many Requests", Kind::Passing),
            ("503 Service Unavailable", Kind::Passing),
        ] {
            assert_eq!(TableError::iceberg("t", "loading", status(text)).kind(), kind, "{text}");
        }
        let gone = iceberg::Error::new(ErrorKind::TableNotFound, "no");
        assert_eq!(TableError::iceberg("t", "loading", gone).kind(), Kind::Parked);
    }
}
