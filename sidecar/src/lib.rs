//! The sidecar: beside a model server it takes what was served, and what became of it, typed and without loss.
//!
//! ```text
//! model server ─POST─► api ─► transcode (JSON to Avro, by the contract) ─► spool ═disk═► forward ─► Kafka, or a folder
//!              ◄─202──────────────────────────────────────────────────────┘
//! ```
//! The request path ends at the spool: it waits for no network. What it refuses goes to the dead letters, what it accepts
//! is numbered and stands in the ledger. [`App`] puts the parts together; [`Config`] says how.

pub mod config;
mod contracts;
mod install;
mod models;
mod shared;

mod api;
mod crowd;
mod server;
mod privacy;
pub mod transcode;
pub mod record;
mod dead_letter;
mod ledger;
pub mod forward;
mod watch;

mod admin;
mod metrics;
mod shutdown;
mod salvage;
mod app;
mod files;
mod command;

#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;

pub use app::{App, AppError, Handle, Stopped};
pub use command::{command, run_from_args};
pub use config::{Config, ConfigError};
