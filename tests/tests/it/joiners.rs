//! Three joiners in one group, to which everything happens that happens to joiners: they are killed and stopped, longer
//! than the group waits for them, too; commits take effect and are answered with an error, or arrive when their author
//! has long gone on; log, catalog and store go away; the disk is full; other engines rewrite the tables. The tables are
//! those of a quiet run and what SQL computes from the raw ones, whoever's partitions went where.
//!
//! The moments are random; the seed is printed and taken from `FLYWHEEL_TEST_SEED` where that is set. `FLYWHEEL_TEST_FAULTS`
//! says how many faults there are to be at the least; else it is [`FAULTS_MIN`]. A run of hundreds wants more days than
//! [`DAYS`] too: `FLYWHEEL_TEST_FAULTS=200 FLYWHEEL_TEST_DAYS=60`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use flywheel_tests::demo::{self, Demo, on_servers};
use flywheel_tests::readers::{Rows, spark_sql};
use flywheel_tests::servers::{Set, shared, signal, skipped};
use serde_json::{Value, json};

use crate::chaos::{Processes, seed};
use crate::faults::{Deck, Kind, Place, full_disk};
use crate::kafka::{differences, publish};
use crate::{DEMONSTRATION, options, views};

const DAYS: u32 = 10;
/// Long enough for an engine to look after each table.
const HOUSE_DAYS: u32 = 30;
/// Every kind at least once.
const FAULTS_MIN: usize = 25;
/// How much longer a run may take for each fault, on a busy machine.
const PER_FAULT: Duration = Duration::from_secs(20);

const TABLES: [&str; 5] = ["predictions", "outcomes", "training", "label_revisions", "unmatched"];

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
        let log = std::fs::File::options().create(true).append(true).open(self.log()).unwrap();
        // Without the signal, a file that cannot grow is an error of the write.
        let mut command = Command::new("sh");
        command.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\"", DEMONSTRATION, "joiner", "--with-parent", "--config"]);
        command.arg(&self.config).arg("run").env("RUST_LOG", "warn");
        let child = command.stdin(Stdio::piped()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        self.child = Some(child);
    }

    fn log(&self) -> PathBuf {
        self.config.with_extension("log")
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
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.log()).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let end = &lines[lines.len().saturating_sub(30)..];
            eprintln!("--- the end of {}:\n{}", self.log().display(), end.join("\n"));
        }
    }
}

/// The demonstration with two joiners more than its own.
struct Three {
    demo: Demo,
    /// Sidecar and joiner of the demonstration.
    processes: Processes,
    others: [Joiner; 2],
}

impl Three {
    fn start(data: &Path, arguments: &[String]) -> Three {
        let mut demo = Demo::start(DEMONSTRATION, arguments).unwrap();
        let mut processes = Processes::default();
        while processes.running.len() < 2 {
            processes.hear(&demo.line().unwrap().expect("both start"));
        }
        Three { demo, processes, others: [Joiner::new(data, "second"), Joiner::new(data, "third")] }
    }

    fn hear(&mut self) {
        while let Some(line) = self.demo.line_now() {
            self.processes.hear(&line);
        }
    }

    fn pid(&self, which: usize) -> Option<String> {
        match which {
            0 => self.processes.running.get("joiner").cloned(),
            number => Some(self.others[number - 1].pid()),
        }
    }

    /// Whether there was one to harm.
    fn harm(&mut self, kind: Kind, deck: &mut Deck) -> bool {
        // The demonstration's own is told by a signal of a file that cannot grow, and would die of it.
        let first = u64::from(kind == Kind::FullDisk);
        let which = (first + deck.number(3 - first)) as usize;
        let Some(pid) = self.pid(which) else { return false };
        match kind {
            // The demonstration starts its own again.
            Kind::Kill if which == 0 => {
                self.processes.running.remove("joiner");
                signal("KILL", &pid).is_ok()
            }
            Kind::Kill => {
                self.others[which - 1].kill();
                self.others[which - 1].start();
                true
            }
            Kind::Stop => {
                let stopped = signal("STOP", &pid).is_ok();
                std::thread::sleep(deck.time());
                let _ = signal("CONT", &pid);
                stopped
            }
            _ => {
                full_disk(&pid, true);
                std::thread::sleep(deck.time());
                full_disk(&pid, false);
                true
            }
        }
    }

    /// What the joiners beside that of the demonstration have logged.
    fn logs(&self) -> String {
        self.others.iter().map(|joiner| std::fs::read_to_string(joiner.log()).unwrap()).collect()
    }

    /// What the demonstration said to its end, all records having been landed.
    fn finish(self) -> String {
        let said = self.demo.finish().unwrap();
        drop(self.others);
        for kind in ["predictions", "outcomes"] {
            let line = said.lines().rfind(|line| line.starts_with(kind)).unwrap();
            let numbers: Vec<u64> = line.split_whitespace().skip(1).map(|word| word.parse().unwrap()).collect();
            assert!(numbers[0] > 0 && numbers[0] == numbers[1] && numbers[2..] == [0, 0, 0], "{line}");
        }
        said
    }
}

fn run(data: &Path, flights: &Path) -> Vec<String> {
    let mut arguments = options(data, flights);
    arguments.push("--corrections".to_owned());
    arguments
}

/// The tables of `name` are those of `quiet`, and what SQL computes from their raw ones; no file stands in them twice.
fn agree(set: &Set, quiet: &str, name: &str) {
    assert_eq!(differences(set, quiet, name), Rows::new());
    // Revisions and all.
    views::agree(set, name);
    for table in TABLES {
        let paths = format!("SELECT file_path, content FROM {name}.flight_delay_{table}.files");
        let paths: Vec<Vec<Value>> = spark_sql(set.spark(), &paths).unwrap();
        let distinct: BTreeSet<String> = paths.iter().map(|row| row[0].to_string()).collect();
        assert_eq!(distinct.len(), paths.len(), "{table} names a file twice");
        assert!(paths.iter().all(|row| row[1] == json!(0)), "{table} has delete files");
    }
    for table in ["predictions", "outcomes", "training"] {
        let copies = "SELECT count(*) - count(DISTINCT kafka_partition, kafka_offset) FROM";
        let copies = spark_sql(set.spark(), &format!("{copies} {name}.flight_delay_{table}")).unwrap();
        assert_eq!(copies, [[json!(0)]], "{table} has a record twice");
    }
}

/// Waits until the tables are made, and lets each commit keep so few snapshots and manifests that many commits remove some.
fn shorten(set: &Set, name: &str, three: &mut Three) {
    let short = "'commit.manifest.min-count-to-merge' = '4', 'history.expire.min-snapshots-to-keep' = '6'";
    for table in TABLES {
        let statement = format!("ALTER TABLE {name}.flight_delay_{table} SET TBLPROPERTIES ({short})");
        while spark_sql(set.spark(), &statement).is_err() {
            assert!(!three.demo.has_ended(), "the run ended before {table} was made");
            three.hear();
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

#[test]
fn three_joiners_do_what_one_does_whatever_happens_to_them() {
    if skipped("three_joiners_do_what_one_does_whatever_happens_to_them") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    // Servers of its own, since it takes them away.
    let mut place = Place::start(&dir.path().join("set"));
    let flights = demo::flights(dir.path(), DAYS).unwrap();
    let quiet = dir.path().join("quiet");
    Demo::start(DEMONSTRATION, &run(&quiet, &flights)).unwrap().finish().unwrap();
    publish(&place.set, "three_quiet", &quiet);

    let data = dir.path().join("three");
    let mut arguments = run(&data, &flights);
    arguments.extend(place.on_servers("three"));
    let mut three = Three::start(&data, &arguments);
    shorten(&place.set, "three", &mut three);
    let faults_min =
        std::env::var("FLYWHEEL_TEST_FAULTS").ok().and_then(|text| text.parse().ok()).unwrap_or(FAULTS_MIN);
    three.demo.allow(PER_FAULT * faults_min as u32);
    let (mut deck, mut faults) = (Deck::new(seed()), 0);
    while faults + place.met() < faults_min && !three.demo.has_ended() {
        std::thread::sleep(Duration::from_millis(deck.number(1_200)));
        three.hear();
        let kind = deck.draw();
        faults += match kind {
            Kind::Kill | Kind::Stop | Kind::FullDisk => usize::from(three.harm(kind, &mut deck)),
            kind => place.trouble(kind, &mut deck),
        };
    }
    let faults = faults + place.met();
    println!("{faults} faults before the end of the run");
    assert!(faults >= faults_min, "the run ended after {faults}");
    place.calm();
    three.finish();
    agree(&place.set, "three_quiet", "three");
    for table in TABLES {
        let snapshots = format!("SELECT count(*) FROM three.flight_delay_{table}.snapshots");
        let snapshots = spark_sql(place.set.spark(), &snapshots).unwrap();
        assert!(snapshots[0][0].as_u64().unwrap() <= 9, "{table}: {snapshots:?}");
    }
    // Without an engine that rewrites them, only a joiner has merged manifests.
    let merged = "SELECT sum(existing_data_files_count) FROM three.flight_delay_predictions.manifests";
    assert_ne!(spark_sql(place.set.spark(), merged).unwrap(), [[json!(0)]]);
}

/// What an engine does to keep a table small: `TABLE` is its name.
const HOUSEKEEPING: [&str; 3] = [
    "CALL ice.system.rewrite_data_files(table => 'TABLE', options => map('min-input-files', '2'))",
    "CALL ice.system.rewrite_manifests(table => 'TABLE', use_caching => false)",
    "CALL ice.system.expire_snapshots(table => 'TABLE', older_than => TIMESTAMP '2100-01-01 00:00:00', retain_last => 1)",
];

#[test]
fn spark_keeps_house_while_three_joiners_commit() {
    if skipped("spark_keeps_house_while_three_joiners_commit") {
        return;
    }
    let set = shared();
    let dir = tempfile::tempdir().unwrap();
    let flights = demo::flights(dir.path(), HOUSE_DAYS).unwrap();
    let quiet = dir.path().join("quiet");
    Demo::start(DEMONSTRATION, &run(&quiet, &flights)).unwrap().finish().unwrap();
    publish(set, "house_quiet", &quiet);

    let data = dir.path().join("house");
    let mut arguments = run(&data, &flights);
    arguments.extend(on_servers(set, "house"));
    let mut three = Three::start(&data, &arguments);
    shorten(set, "house", &mut three);
    let mut done: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    while !three.demo.has_ended() {
        three.hear();
        for table in TABLES {
            for call in HOUSEKEEPING {
                let statement = call.replace("TABLE", &format!("house.flight_delay_{table}"));
                match spark_sql(set.spark(), &statement) {
                    Ok(_) => *done.entry((table, call)).or_default() += 1,
                    // The joiners were first each time.
                    Err(error) => println!("{table}: {}", error.to_string().lines().next().unwrap_or_default()),
                }
            }
        }
    }
    println!("{done:?}");
    assert_eq!(done.len(), TABLES.len() * HOUSEKEEPING.len(), "{done:?}");
    let logs = three.logs();
    three.finish();
    agree(set, "house_quiet", "house");
    assert!(!logs.contains("ERROR"), "{logs}");
}
