//! DuckDB over the tables of a rig, as a process of its own: it reads the SQLite catalog and the files, and nothing of ours.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::rig::Rig;

/// Whether `FLYWHEEL_SKIP_SERVERS=1` asks to leave out what other programs are needed for; says so where it does.
pub fn skipped(test: &str) -> bool {
    let skip = std::env::var("FLYWHEEL_SKIP_SERVERS").is_ok_and(|value| value == "1");
    if skip {
        // Past the test harness, which keeps the output of tests that pass to itself.
        let _ = writeln!(std::io::stderr(), "{test}: SKIPPED, because FLYWHEEL_SKIP_SERVERS=1");
    }
    skip
}

/// The rows that each of these statements gives, one after the other in one session. The tables are there as `main.m_training`
/// and so on.
pub fn ask(rig: &Rig, statements: &[String]) -> Vec<Vec<Vec<Value>>> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/servers/python.sh");
    let config = &rig.shared.config.catalog;
    let arguments = ["duckdb", "--catalog", &config.url, "--namespace", &config.namespace];
    let mut child = Command::new(script)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("tests/servers/python.sh: {error}"));
    let mut input = child.stdin.take().unwrap();
    let lines: Vec<String> =
        statements.iter().map(|text| text.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    let writer = std::thread::spawn(move || {
        for line in lines {
            writeln!(input, "{line}").unwrap();
        }
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let answers: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    // The first line says that it is ready.
    assert_eq!(answers.len(), statements.len() + 1, "{said}");
    let rows = answers.into_iter().skip(1).zip(statements).map(|(mut answer, statement)| {
        assert!(answer["error"].is_null(), "{answer}\nin: {statement}");
        serde_json::from_value(answer["rows"].take()).unwrap()
    });
    rows.collect()
}
