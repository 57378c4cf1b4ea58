//! Kills and outages on real servers: the training table is that of a quiet run, row for row.
//!
//! The moments are random; the seed is printed and taken from `FLYWHEEL_TEST_SEED` where that is set.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use flywheel_tests::demo::{self, Demo, on_servers};
use flywheel_tests::readers::Rows;
use flywheel_tests::servers::{Set, shared, signal, skipped};

use crate::kafka::{agrees, differences, publish};
use crate::{DEMONSTRATION, options};

const DAYS: u32 = 24;
const KILLS: usize = 10;
/// How long broker and registry stay away.
const OUTAGE: Duration = Duration::from_secs(30);

pub fn seed() -> u64 {
    let seed = std::env::var("FLYWHEEL_TEST_SEED").ok().and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or_else(|| uuid::Uuid::new_v4().as_u64_pair().1 >> 1);
    eprintln!("FLYWHEEL_TEST_SEED={seed}");
    seed
}

/// SplitMix64.
pub fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut word = *state;
    word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    word ^ (word >> 31)
}

/// The processes of the demonstration, by what it says of them.
#[derive(Default)]
pub struct Processes {
    pub running: HashMap<String, String>,
    started: usize,
}

impl Processes {
    pub fn hear(&mut self, line: &str) {
        if let Some((name, pid)) = line.split_once(" runs as process ") {
            self.running.insert(name.to_owned(), pid.to_owned());
            self.started += 1;
        } else if let Some((name, _)) = line.split_once(" (process ") {
            self.running.remove(name);
        }
    }
}

#[test]
fn ten_kills_of_each_change_nothing() {
    if skipped("ten_kills_of_each_change_nothing") {
        return;
    }
    let set = shared();
    let dir = tempfile::tempdir().unwrap();
    let flights = demo::flights(dir.path(), DAYS).unwrap();
    let quiet = dir.path().join("quiet");
    let begun = Instant::now();
    Demo::start(DEMONSTRATION, &options(&quiet, &flights)).unwrap().finish().unwrap();
    let quiet_time = begun.elapsed();
    publish(set, "quiet", &quiet);

    let mut random = seed();
    let mut arguments = options(&dir.path().join("killed"), &flights);
    arguments.extend(on_servers(set, "killed"));
    let mut demo = Demo::start(DEMONSTRATION, &arguments).unwrap();
    let mut processes = Processes::default();
    while processes.running.len() < 2 {
        processes.hear(&demo.line().unwrap().expect("both start"));
    }
    let mut left = HashMap::from([("sidecar", KILLS), ("joiner", KILLS)]);
    // Spread over the time that the run takes at the least, so that most fall into it.
    let pause = quiet_time / (2 * KILLS as u32 + 2);
    while left.values().any(|kills| *kills > 0) && !demo.has_ended() {
        let name = if next(&mut random).is_multiple_of(2) { "sidecar" } else { "joiner" };
        let name = if left[name] > 0 {
            name
        } else if name == "sidecar" {
            "joiner"
        } else {
            "sidecar"
        };
        // The random moment itself; nothing is waited for here.
        std::thread::sleep(pause.mul_f64((next(&mut random) % 2000) as f64 / 1000.0));
        while let Some(line) = demo.line_now() {
            processes.hear(&line);
        }
        let Some(pid) = processes.running.remove(name) else { continue };
        if signal("KILL", &pid).is_ok() {
            left.entry(name).and_modify(|kills| *kills -= 1);
        }
    }
    assert_eq!(left.values().sum::<usize>(), 0, "the run ended before all kills; {} starts", processes.started);
    demo.finish().unwrap();
    agrees(set, "killed", &flights);
    assert_eq!(differences(set, "quiet", "killed"), Rows::new());
}

#[test]
fn broker_and_registry_away_at_the_start_and_in_the_middle_change_nothing() {
    if skipped("broker_and_registry_away_at_the_start_and_in_the_middle_change_nothing") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    // Its own servers, since it takes them away.
    let mut set = Set::start(dir.path().join("set")).unwrap();
    let flights = demo::flights(dir.path(), DAYS).unwrap();
    let quiet = dir.path().join("quiet");
    Demo::start(DEMONSTRATION, &options(&quiet, &flights)).unwrap().finish().unwrap();

    let mut arguments = options(&dir.path().join("outage"), &flights);
    arguments.extend(on_servers(&set, "outage"));
    let mut demo = Demo::start(DEMONSTRATION, &arguments).unwrap();
    demo.until("first departure").unwrap();
    outage(&mut set);
    // The week in the middle.
    demo.until(&format!("week {:>2} ", (demo::days(DAYS) + 7) / 14)).unwrap();
    outage(&mut set);
    let said = demo.finish().unwrap();
    assert!(said.contains(" 0 put off with 503"), "{said}");
    publish(&set, "quiet", &quiet);
    agrees(&set, "outage", &flights);
    assert_eq!(differences(&set, "quiet", "outage"), Rows::new());
}

/// Kills both and brings them back.
fn outage(set: &mut Set) {
    set.kafka.kill().unwrap();
    set.registry.kill().unwrap();
    std::thread::sleep(OUTAGE);
    set.registry.restart().unwrap();
    set.kafka.restart().unwrap();
}
