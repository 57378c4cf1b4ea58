//! The whole system in one process over local disk: from departures and landings to examples, and what a plain SQL over
//! the CSV says of them.

use std::path::{Path, PathBuf};

use flywheel_tests::demo::{self, Demo};
use flywheel_tests::oracle;
use flywheel_tests::readers::{Python, duckdb_sql, pyiceberg};
use serde_json::json;
use tempfile::TempDir;

use crate::{DEMONSTRATION, options};

/// Three weeks: a model is trained at the end of the first, judged at the end of the second, serves in the third.
const DAYS: u32 = 17;

struct Place {
    /// Holds the folder until the end of the test.
    _dir: TempDir,
    data: PathBuf,
    flights: PathBuf,
}

fn place() -> Place {
    let dir = tempfile::tempdir().unwrap();
    let flights = demo::flights(dir.path(), DAYS).unwrap();
    Place { data: dir.path().join("data"), flights, _dir: dir }
}

/// DuckDB and PyIceberg see the tables as the CSV gives them: the counts, and every row.
fn agrees(data: &Path, flights: &Path) {
    let python = Python::local(data);
    let duckdb = python.duckdb().unwrap();
    let expected = duckdb_sql(&duckdb, &oracle::counts(&format!("({})", oracle::labels(flights)))).unwrap();
    let counts = |table: &str| oracle::counts(&oracle::training(table));
    assert_eq!(duckdb_sql(&duckdb, &counts("flight_delay_training")).unwrap(), expected);
    let reader = python.pyiceberg().unwrap();
    assert_eq!(pyiceberg(&reader, "flight_delay_training", &counts("scanned")).unwrap(), expected);
    let none: Vec<Vec<serde_json::Value>> = Vec::new();
    assert_eq!(duckdb_sql(&duckdb, &oracle::differences(flights, "flight_delay_training")).unwrap(), none);
    let twice = "SELECT prediction_id FROM flight_delay_training GROUP BY 1 HAVING count(*) > 1";
    assert_eq!(duckdb_sql(&duckdb, twice).unwrap(), none);
}

#[test]
fn the_demonstration_gives_what_the_csv_says() {
    let place = place();
    let said = Demo::start(DEMONSTRATION, &options(&place.data, &place.flights)).unwrap().finish().unwrap();
    agrees(&place.data, &place.flights);
    // The ledger's two lines: nothing is missing, refused or lost.
    for kind in ["predictions", "outcomes"] {
        let line = said.lines().rfind(|line| line.starts_with(kind)).unwrap();
        let numbers: Vec<u64> = line.split_whitespace().skip(1).map(|word| word.parse().unwrap()).collect();
        assert!(numbers[0] > 0 && numbers[0] == numbers[1] && numbers[2..] == [0, 0, 0], "{line}");
    }
    // A trained model has served, and better than the constant.
    let loss = |version: &str| -> Option<f64> {
        let line = said.lines().find(|line| line.starts_with(version))?;
        line.split_whitespace().nth(3)?.parse().ok()
    };
    assert!(loss("week-01").unwrap() < loss("constant").unwrap(), "{said}");

    // A second start says what there is; one with other flights is refused.
    let again = Demo::start(DEMONSTRATION, &options(&place.data, &place.flights)).unwrap().finish().unwrap();
    assert!(again.contains("--fresh") && again.contains("week-01"), "{again}");
    let other = demo::flights(place.data.parent().unwrap(), DAYS - 1).unwrap();
    let refused = Demo::start(DEMONSTRATION, &options(&place.data, &other)).unwrap().finish().unwrap_err();
    assert!(std::env::var_os("FLYWHEEL_TEST_DAYS").is_some() || refused.to_string().contains("--fresh"), "{refused}");
}

#[test]
fn what_is_stated_after_the_base_row_is_a_revision_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let (data, flights) = (dir.path().join("data"), demo::flights(dir.path(), 3).unwrap());
    let mut arguments = options(&data, &flights);
    arguments.push("--corrections".to_owned());
    Demo::start(DEMONSTRATION, &arguments).unwrap().finish().unwrap();
    let duckdb = Python::local(&data).duckdb().unwrap();
    // A diverted flight has no delay that could be corrected.
    let stated = "SELECT DISTINCT o.prediction_id FROM flight_delay_outcomes o
        JOIN flight_delay_training t ON o.prediction_id = t.prediction_id AND o.ingest_time >= t.as_of
        WHERE o.op = 'retract' OR o.revision = 0 OR o.label_arr_delay_min IS NOT NULL ORDER BY 1";
    let stated = duckdb_sql(&duckdb, stated).unwrap();
    let revised = "SELECT prediction_id FROM flight_delay_label_revisions ORDER BY 1";
    assert_eq!(duckdb_sql(&duckdb, revised).unwrap(), stated);
    assert!(stated.len() > 50, "{}", stated.len());

    let taken_back =
        "SELECT min(prediction_id) FROM flight_delay_label_revisions WHERE label_landed_status = 'default'";
    let id = duckdb_sql(&duckdb, taken_back).unwrap()[0][0].as_str().unwrap().to_owned();
    let get = |id: &str| {
        let config = data.join("joiner.toml").display().to_string();
        let words = ["joiner", "--config", &config, "get", id, "--model", "flight_delay"];
        let output = std::process::Command::new(DEMONSTRATION).args(words).output().unwrap();
        (output.status.code(), serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap())
    };
    let (code, found) = get(&id);
    let count = |name: &str| found[name].as_array().unwrap().len();
    assert_eq!((code, count("predictions"), count("outcomes"), count("unmatched")), (Some(0), 1, 2, 0), "{found}");
    let (before, after) = (&found["training"][0], &found["label_revisions"][0]);
    assert_eq!((&before["label_landed"], &after["label_landed"]), (&json!(true), &json!(false)));
    assert_eq!(found["outcomes"][1]["op"], json!("retract"));
    assert_eq!(get("013bf5ab-df60-7394-b307-000000000000").0, Some(3));
}

#[test]
fn an_interrupted_and_a_killed_run_go_on_to_the_same_tables() {
    let place = place();
    let arguments = options(&place.data, &place.flights);
    // A Ctrl-C in the second week.
    let mut demo = Demo::start(DEMONSTRATION, &arguments).unwrap();
    demo.until("week  1").unwrap();
    demo.interrupt().unwrap();
    let said = demo.finish().unwrap();
    assert!(said.contains("goes on from there"), "{said}");
    // A kill of the whole process in the third.
    let mut demo = Demo::start(DEMONSTRATION, &arguments).unwrap();
    demo.until("week  2").unwrap();
    demo.kill().unwrap();
    let said = Demo::start(DEMONSTRATION, &arguments).unwrap().finish().unwrap();
    assert!(said.starts_with("going on after"), "{said}");
    agrees(&place.data, &place.flights);
    // Every accepted record is in the raw table under the number that it was given.
    let duckdb = Python::local(&place.data).duckdb().unwrap();
    let gaps =
        "SELECT count(*) FROM (SELECT producer_id, max(producer_seq) AS last, count(DISTINCT producer_seq) AS seen
        FROM flight_delay_predictions GROUP BY 1) WHERE last <> seen";
    assert_eq!(duckdb_sql(&duckdb, gaps).unwrap(), [[json!(0)]]);
}
