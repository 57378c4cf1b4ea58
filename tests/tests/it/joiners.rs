//! Three joiners in one group, which are killed and stopped at random moments, stopped for longer than the group waits for
//! them, too: the tables are those of a quiet run and what SQL computes from the raw ones, whoever's partitions went where.
//!
//! The moments are random; the seed is printed and taken from `FLYWHEEL_TEST_SEED` where that is set. `FLYWHEEL_TEST_FAULTS`
//! says how many faults there are to be at the least; else it is [`FAULTS_MIN`].

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use flywheel_tests::demo::{self, Demo, on_servers};
use flywheel_tests::readers::{Rows, spark_sql};
use flywheel_tests::servers::{shared, signal, skipped};
use serde_json::Value;

use crate::chaos::{Processes, next, seed};
use crate::kafka::{differences, publish};
use crate::{DEMONSTRATION, options, views};

const DAYS: u32 = 10;
const FAULTS_MIN: usize = 25;
/// Stopped for so many milliseconds: the session of a member ends after 6 s.
const STOPPED_MS: [u64; 4] = [50, 400, 1_500, 8_000];

/// A joiner beside that of the demonstration.
struct Joiner {
    config: PathBuf,
    child: Option<Child>,
}

impl Joiner {
    /// With the settings of the demonstration's joiner and an index of its own.
    fn new(data: &Path, name: &str) -> Joiner {
        let settings = std::fs::read_to_string(data.join("joiner.toml")).unwrap();
        let index = data.join("index").display().to_string();
        assert!(settings.contains(&index), "{settings}");
        let config = data.join(format!("{name}.toml"));
        std::fs::write(&config, settings.replace(&index, &format!("{index}-{name}"))).unwrap();
        let mut joiner = Joiner { config, child: None };
        joiner.start();
        joiner
    }

    fn start(&mut self) {
        let log = std::fs::File::options().create(true).append(true).open(self.config.with_extension("log")).unwrap();
        let mut command = Command::new(DEMONSTRATION);
        command.args(["joiner", "--config"]).arg(&self.config).arg("run");
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        self.child = Some(child);
    }

    fn pid(&self) -> String {
        self.child.as_ref().unwrap().id().to_string()
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Joiner {
    fn drop(&mut self) {
        self.kill();
    }
}

#[test]
fn three_joiners_that_die_and_stall_do_what_one_does() {
    if skipped("three_joiners_that_die_and_stall_do_what_one_does") {
        return;
    }
    let set = shared();
    let dir = tempfile::tempdir().unwrap();
    let flights = demo::flights(dir.path(), DAYS).unwrap();
    let quiet = dir.path().join("quiet");
    let run = |data: &Path| {
        let mut arguments = options(data, &flights);
        arguments.push("--corrections".to_owned());
        arguments
    };
    Demo::start(DEMONSTRATION, &run(&quiet)).unwrap().finish().unwrap();
    publish(set, "three_quiet", &quiet);

    let data = dir.path().join("three");
    let mut arguments = run(&data);
    arguments.extend(on_servers(set, "three"));
    let mut demo = Demo::start(DEMONSTRATION, &arguments).unwrap();
    let mut processes = Processes::default();
    while processes.running.len() < 2 {
        processes.hear(&demo.line().unwrap().expect("both start"));
    }
    let mut others = [Joiner::new(&data, "second"), Joiner::new(&data, "third")];
    let faults_min =
        std::env::var("FLYWHEEL_TEST_FAULTS").ok().and_then(|text| text.parse().ok()).unwrap_or(FAULTS_MIN);
    let (mut random, mut faults) = (seed(), 0);
    while faults < faults_min && !demo.has_ended() {
        std::thread::sleep(Duration::from_millis(next(&mut random) % 1_200));
        while let Some(line) = demo.line_now() {
            processes.hear(&line);
        }
        let (which, is_kill) = (next(&mut random) % 3, next(&mut random).is_multiple_of(2));
        let pid = match which {
            0 => processes.running.get("joiner").cloned(),
            number => Some(others[number as usize - 1].pid()),
        };
        let Some(pid) = pid else { continue };
        if is_kill {
            match which {
                // The demonstration starts it again.
                0 => {
                    processes.running.remove("joiner");
                    let _ = signal("KILL", &pid);
                }
                number => {
                    let other = &mut others[number as usize - 1];
                    other.kill();
                    other.start();
                }
            }
        } else if signal("STOP", &pid).is_ok() {
            std::thread::sleep(Duration::from_millis(STOPPED_MS[(next(&mut random) % 4) as usize]));
            let _ = signal("CONT", &pid);
        }
        faults += 1;
    }
    println!("{faults} faults before the end of the run");
    assert!(faults >= faults_min, "the run ended after {faults}");
    let said = demo.finish().unwrap();
    drop(others);
    for kind in ["predictions", "outcomes"] {
        let line = said.lines().rfind(|line| line.starts_with(kind)).unwrap();
        let numbers: Vec<u64> = line.split_whitespace().skip(1).map(|word| word.parse().unwrap()).collect();
        assert!(numbers[0] > 0 && numbers[0] == numbers[1] && numbers[2..] == [0, 0, 0], "{line}");
    }
    assert_eq!(differences(set, "three_quiet", "three"), Rows::new());
    // Revisions and all, as SQL computes them from the raw tables.
    views::agree(set, "three");
    for table in ["predictions", "outcomes", "training", "label_revisions", "unmatched"] {
        let paths = format!("SELECT file_path FROM three.flight_delay_{table}.files");
        let paths: Vec<Value> = spark_sql(set.spark(), &paths).unwrap().into_iter().map(|row| row[0].clone()).collect();
        let distinct: BTreeSet<String> = paths.iter().map(ToString::to_string).collect();
        assert_eq!(distinct.len(), paths.len(), "{table} names a file twice");
    }
}
