//! The Python client: its own tests, on the sidecar of this build.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use flywheel_tests::servers::{scripts, skipped};

use crate::DEMONSTRATION;

/// On an idle machine they take half a minute.
const LONGEST: Duration = Duration::from_secs(900);

#[test]
fn the_python_client_keeps_what_it_promises() {
    if skipped("the_python_client_keeps_what_it_promises") {
        return;
    }
    run(&["-m", "mypy", "--cache-dir", "/dev/null"]);
    run(&["-m", "pytest"]);
}

/// Runs Python with the client on its path; what it says is shown where it fails.
fn run(arguments: &[&str]) {
    let said = tempfile::NamedTempFile::new().unwrap();
    let output = said.reopen().unwrap();
    let mut python = Command::new(scripts().join("python-client.sh"))
        .arg("run")
        .args(arguments)
        .env("FLYWHEEL_SIDECAR", format!("'{DEMONSTRATION}' sidecar"))
        .stdin(Stdio::null())
        .stdout(output.try_clone().unwrap())
        .stderr(output)
        .spawn()
        .unwrap();
    let end = Instant::now() + LONGEST;
    let status = loop {
        if let Some(status) = python.try_wait().unwrap() {
            break Some(status);
        }
        if Instant::now() > end {
            python.kill().unwrap();
            python.wait().unwrap();
            break None;
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    let said = std::fs::read_to_string(said.path()).unwrap();
    assert!(status.is_some_and(|status| status.success()), "python3 {}: {status:?}\n{said}", arguments.join(" "));
}
