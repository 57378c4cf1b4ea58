//! A pipeline turn by turn, over a `file:` log, a real catalog and real files.

mod land;
mod rig;
mod seal;
mod upkeep;

use super::*;
