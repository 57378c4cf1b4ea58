//! Why a schema, a datum or a batch was refused.

use arrow::error::ArrowError;
use flywheel_schemas::types::Type;
use flywheel_schemas::wire::Kind;

#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    #[error("the schema of these {} has no field `{field}`, without which a record cannot be landed: add it", .kind.name())]
    Missing { kind: Kind, field: &'static str },
    #[error("field `{field}` of the schema is {found}, but must be {expected}")]
    Type { field: String, expected: Type, found: String },
    #[error("field `{field}` of the schema: {found} has no place in a table")]
    Shape { field: String, found: &'static str },
    #[error("two fields of the schema belong to the column `{column}`: rename one")]
    Duplicate { column: String },
    #[error("only outcomes make statements")]
    Kind,
    #[error("{}byte {position}: {fault}", prefix(.field))]
    Datum { field: String, position: usize, fault: DatumFault },
    #[error("the table has no column `{0}`: add it before rows of this schema are written")]
    NoColumn(String),
    #[error("the column `{column}` is {found} in the table, but {expected} in the schema")]
    Column { column: String, expected: String, found: String },
    #[error("the column `{0}` needs a value in each row, but the schema has none or leaves room for a null")]
    Optional(String),
    #[error("more than {} bytes were pushed into one batch", super::ROWS_BYTES_MAX)]
    Overfull,
    #[error("the rows make no batch: {0}")]
    Batch(#[from] ArrowError),
}

/// What is wrong with a datum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DatumFault {
    #[error("the datum ends within a value")]
    Truncated,
    #[error("a varint of more than 64 bits")]
    Varint,
    #[error("an int of more than 32 bits")]
    IntRange,
    #[error("a negative length, or one beyond the end of the datum")]
    Length,
    #[error("text that is not UTF-8")]
    Utf8,
    #[error("a union branch other than 0 and 1")]
    Branch,
    #[error("a boolean other than 0 and 1")]
    Boolean,
    #[error("an array block of more items than there are bytes")]
    BlockCount,
    #[error("an array block whose byte size is not that of its items")]
    BlockSize,
    #[error("a decimal without digits, or with more than its precision")]
    Decimal,
    #[error("bytes are left over after the last field")]
    Trailing,
    #[error("longer than {} bytes", super::DATUM_BYTES_MAX)]
    TooLong,
    #[error("null where a row needs a value")]
    Null,
    #[error("a time outside of the years 1 to 9999")]
    Time,
    #[error("neither assert nor retract")]
    Op,
}

impl DecodeError {
    pub(super) fn datum(field: &str, position: usize, fault: DatumFault) -> DecodeError {
        DecodeError::Datum { field: field.to_owned(), position, fault }
    }
}

fn prefix(field: &str) -> String {
    if field.is_empty() { String::new() } else { format!("field `{field}`, ") }
}
