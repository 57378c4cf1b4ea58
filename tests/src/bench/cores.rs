//! Which core a thread runs on, so that two sides of a comparison do not take each other's.

use std::error::Error;
use std::process::{Command, Stdio};

/// Binds the calling thread to a core, by `taskset` of util-linux.
pub fn bind_this_thread(core: usize) -> Result<(), Box<dyn Error>> {
    let this = std::fs::read_link("/proc/thread-self")?;
    let id = this.file_name().and_then(|name| name.to_str()).ok_or("no thread id in /proc/thread-self")?;
    let mut taskset = Command::new("taskset");
    let status = taskset.args(["-cp", &core.to_string(), id]).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    if status.success() { Ok(()) } else { Err(format!("taskset does not bind to core {core}; two are needed").into()) }
}
