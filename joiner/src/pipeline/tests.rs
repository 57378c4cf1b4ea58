//! A pipeline turn by turn, over a `file:` log, a real catalog and real files.

mod land;
mod model;
mod random;
mod rig;
mod seal;
mod upkeep;

use super::*;
