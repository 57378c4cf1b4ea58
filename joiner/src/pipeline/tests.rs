//! A pipeline turn by turn, over a `file:` log, a real catalog and real files.

mod alarms;
mod adopt;
mod audit;
mod attribution;
mod commands;
mod duckdb;
mod failures;
mod gate;
mod evolution;
mod land;
mod model;
mod random;
pub(crate) mod rig;
mod seal;
mod upkeep;
mod views;

use super::*;
