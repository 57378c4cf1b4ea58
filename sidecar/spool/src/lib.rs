//! A bounded, checksummed, segmented log on local disk: bytes in, bytes out.

mod aside;
mod block;
mod cursor;
mod error;
mod options;
mod pending;
mod reader;
mod recovery;
mod schema;
mod segment;
mod shared;
mod spool;
mod storage;
mod watermark;
mod writer;

pub use block::Record;
pub use cursor::{Cursor, NOTE_BYTES_MAX};
pub use error::{AppendError, SpoolError};
pub use options::{Accepted, Options};
pub use pending::Pending;
pub use reader::{Reader, Skipped};
pub use recovery::Recovery;
pub use schema::SchemaKey;
pub use spool::{Spool, Usage};
