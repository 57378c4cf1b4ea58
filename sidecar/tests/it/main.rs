//! The sidecar from outside: real HTTP over TCP and a Unix socket, a folder as log and registry.

mod client;
mod contracts;
mod intake;
mod limits;
mod losses;
mod replay;
mod privacy;
mod restart;
mod rows;
mod sampling;
mod sidecar;
mod source_progress;
