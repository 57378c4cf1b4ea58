//! The joiner: from the log to the tables.
//!
//! ```text
//! log ─► source ─► decode (Avro → Arrow) ─► land ─► <model>_predictions, <model>_outcomes     at once, append-only
//!                                              └─► index (local disk; a cache of <model>_outcomes)
//! tick ─► seal: predictions due at this tick ⋈ index ─► label ─► <model>_training             one row each
//! ```
//!
//! The tables are the only arbiter: what a joiner has landed or sealed is what a snapshot has recorded, and every
//! commit is a compare-and-set on that ([`table`]). So any number of joiners may run, stall, die and come back.
//! Time moves only by the log ([`bar`]); labels are a pure function of what is landed ([`label`]).

pub mod config;
pub mod app;

pub mod source;
pub mod decode;
mod contracts;
mod generation;
mod partition;
mod pipeline;
mod land;
mod letters;
pub mod index;
pub mod bar;
pub mod label;
mod seal;
mod revise;
pub mod table;

mod gate;
mod side;
mod missing;
pub mod completeness;
mod admin;
mod map;
mod metrics;
pub mod commands;

pub use app::App;
pub use commands::run_from_args;
pub use config::Config;
#[cfg(feature = "testing")]
pub use pipeline::{StepError, Steps};
