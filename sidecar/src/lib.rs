//! The sidecar: beside a model server it takes what was served, and what became of it, typed and without loss.

pub mod config;
pub mod record;
pub mod transcode;

pub use config::{Config, ConfigError};
