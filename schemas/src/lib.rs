//! What crosses a process boundary: the contract, the Avro and Iceberg shapes that follow from it, ids, the wire, the registry.
//!
//! A [`Contract`](contract::Contract) declares one model. From it follow, and from nothing else:
//! the two topics and their [Avro schemas](avro), which carry the contract themselves; the [tables](table) and
//! their columns; and what a changed contract may change ([`evolution`]). The [`types`] table decides how a declared
//! type looks in each format.

pub mod contract;
pub mod evolution;
pub mod types;

pub mod avro;
pub mod datum;
pub mod table;

pub mod client_options;
pub mod gate;
pub mod id;
pub mod log;
pub mod partition;
pub mod register;
pub mod registry;
pub mod sampling;
pub mod show;
pub mod token;
pub mod wire;

#[cfg(feature = "kafka")]
pub mod cli;
#[cfg(feature = "kafka")]
pub mod topics;

#[cfg(any(test, feature = "testing"))]
pub mod testing;
