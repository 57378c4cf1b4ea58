//! Whole-system tests. Those on real servers share one set of them (`flywheel_tests::servers::shared`).

mod log;
mod servers;
