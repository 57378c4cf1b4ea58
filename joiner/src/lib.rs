//! The joiner: Kafka to Iceberg. Lands what was served and what came of it, and seals both into training rows.

pub mod decode;
pub mod index;
pub mod label;
pub mod source;
pub mod table;
