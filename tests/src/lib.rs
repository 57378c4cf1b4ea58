//! What the whole-system tests stand on: [`servers`] starts the real ones, [`readers`] asks the engines that a user
//! would ask, [`demo`] runs the demonstration as a process, [`system`] the two services with a contract of a test's own,
//! [`oracle`] says in plain SQL what must come out; [`proxy`] makes trouble on the way to a server.

pub mod bench;
pub mod demo;
pub mod oracle;
pub mod proxy;
pub mod readers;
pub mod servers;
pub mod soak;
pub mod system;
