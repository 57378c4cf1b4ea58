//! A pipeline turn by turn, over a `file:` log, a real catalog and real files.

mod audit;
mod duckdb;
mod gate;
mod land;
mod model;
mod random;
mod rig;
mod seal;
mod upkeep;
mod views;

use super::*;
