//! The same on real servers: Kafka, the registry, the REST catalog and S3. The tables are those of a run over local
//! disk, row for row, by every engine.

use std::path::Path;

use flywheel_joiner::commands::sql::{self, Engine, Names};
use flywheel_tests::demo::{self, Demo, on_servers};
use flywheel_tests::oracle;
use flywheel_tests::readers::{Python, Rows, duckdb_sql, pyiceberg, spark_sql, trino_sql};
use flywheel_tests::servers::{Set, shared, skipped};
use serde_json::json;

use crate::{DEMONSTRATION, options};

const DAYS: u32 = 10;

/// Runs the demonstration on a set of servers to its end.
pub fn run(set: &Set, prefix: &str, data: &Path, flights: &Path) -> String {
    let mut arguments = options(data, flights);
    arguments.extend(on_servers(set, prefix));
    Demo::start(DEMONSTRATION, &arguments).unwrap().finish().unwrap()
}

/// What differs between two training tables, the four coordinates aside, by `EXCEPT` both ways in Spark and in Trino.
pub fn differences(set: &Set, one: &str, other: &str) -> Rows {
    let columns: Vec<String> = spark_sql(set.spark(), &format!("DESCRIBE {one}.flight_delay_training"))
        .unwrap()
        .into_iter()
        .filter_map(|row| row[0].as_str().map(str::to_owned))
        .take_while(|name| !name.is_empty() && !name.starts_with('#'))
        .filter(|name| !["kafka_partition", "kafka_offset", "producer_id", "producer_seq"].contains(&name.as_str()))
        .collect();
    let names = columns.clone();
    let columns = columns.join(", ");
    let except = |catalog: &str, from: &str, without: &str| {
        format!(
            "SELECT prediction_id FROM (SELECT {columns} FROM {catalog}{from}.flight_delay_training
             EXCEPT ALL SELECT {columns} FROM {catalog}{without}.flight_delay_training) AS difference LIMIT 10"
        )
    };
    let mut rows = Rows::new();
    for (from, without) in [(one, other), (other, one)] {
        rows.extend(spark_sql(set.spark(), &except("", from, without)).unwrap());
        rows.extend(trino_sql(set.trino(), &except("iceberg.", from, without)).unwrap());
    }
    // A row that differs says little; the columns by which it does say more.
    for name in names.iter().filter(|_| !rows.is_empty()) {
        let differ = format!(
            "SELECT '{name}', count(*), min(CAST(a.{name} AS STRING)), min(CAST(b.{name} AS STRING))
             FROM {one}.flight_delay_training a JOIN {other}.flight_delay_training b
             ON a.prediction_id = b.prediction_id WHERE NOT (a.{name} <=> b.{name}) HAVING count(*) > 0"
        );
        eprintln!("{:?}", spark_sql(set.spark(), &differ).unwrap());
    }
    rows
}

/// The labels of a training table by Spark, Trino, DuckDB and PyIceberg are those of the CSV.
pub fn agrees(set: &Set, namespace: &str, flights: &Path) {
    let python = set.python(namespace);
    let duckdb = python.duckdb().unwrap();
    let expected = duckdb_sql(&duckdb, &oracle::counts(&format!("({})", oracle::labels(flights)))).unwrap();
    let counts = |table: &str| oracle::counts(&oracle::training(table));
    assert_eq!(duckdb_sql(&duckdb, &counts("flight_delay_training")).unwrap(), expected, "DuckDB");
    let reader = python.pyiceberg().unwrap();
    assert_eq!(pyiceberg(&reader, "flight_delay_training", &counts("scanned")).unwrap(), expected, "PyIceberg");
    let spark = spark_sql(set.spark(), &counts(&format!("{namespace}.flight_delay_training"))).unwrap();
    assert_eq!(spark, expected, "Spark");
    let trino = trino_sql(set.trino(), &counts(&format!("iceberg.{namespace}.flight_delay_training"))).unwrap();
    assert_eq!(trino, expected, "Trino");
    let none = Rows::new();
    assert_eq!(duckdb_sql(&duckdb, &oracle::differences(flights, "flight_delay_training")).unwrap(), none);
    // Nothing that was accepted is missing.
    let in_trino = format!("iceberg.{namespace}");
    let spark = Names { engine: Engine::Spark, namespace, model: "flight_delay" };
    let trino = Names { engine: Engine::Trino, namespace: &in_trino, model: "flight_delay" };
    assert_eq!(spark_sql(set.spark(), &sql::missing(&spark)).unwrap(), none, "Spark");
    assert_eq!(trino_sql(set.trino(), &sql::missing(&trino)).unwrap(), none, "Trino");
    let counts = spark_sql(set.spark(), &sql::completeness(&spark)).unwrap();
    assert!(!counts.is_empty() && counts.iter().all(|row| row[4..] == [json!(0), json!(0)]), "{counts:?}");
    assert_eq!(trino_sql(set.trino(), &sql::completeness(&trino)).unwrap(), counts, "Trino");
}

/// Copies the training table of an embedded run into the REST catalog, so that one engine sees both.
pub fn publish(set: &Set, namespace: &str, data: &Path) {
    let file = data.join("training.parquet");
    // By DuckDB, since PyIceberg reads a null list of structs as an empty one.
    let reader = Python::local(data).duckdb().unwrap();
    duckdb_sql(&reader, &format!("COPY (SELECT * FROM flight_delay_training) TO '{}'", file.display())).unwrap();
    spark_sql(set.spark(), &format!("CREATE NAMESPACE IF NOT EXISTS {namespace}")).unwrap();
    // By a view, since Spark takes parquet.`PATH` for a table of the default catalog.
    let view = format!("{namespace}_rows");
    let path = format!("OPTIONS (path 'file://{}')", file.display());
    spark_sql(set.spark(), &format!("CREATE OR REPLACE TEMPORARY VIEW {view} USING parquet {path}")).unwrap();
    spark_sql(set.spark(), &format!("CREATE TABLE {namespace}.flight_delay_training AS SELECT * FROM {view}")).unwrap();
}

#[test]
fn the_demonstration_on_real_servers_gives_the_same_table() {
    if skipped("the_demonstration_on_real_servers_gives_the_same_table") {
        return;
    }
    let set = shared();
    let dir = tempfile::tempdir().unwrap();
    let flights = demo::flights(dir.path(), DAYS).unwrap();
    let embedded = dir.path().join("embedded");
    Demo::start(DEMONSTRATION, &options(&embedded, &flights)).unwrap().finish().unwrap();
    publish(set, "embedded", &embedded);
    run(set, "servers", &dir.path().join("servers"), &flights);
    agrees(set, "servers", &flights);
    assert_eq!(differences(set, "embedded", "servers"), Rows::new());
    the_example_scripts_run(set, "servers");
    assert_eq!(differences(set, "embedded", "servers"), Rows::new(), "after compaction");
}

/// What stands in `examples/` for Spark and Trino, statement by statement, on the tables of `namespace`.
fn the_example_scripts_run(set: &Set, namespace: &str) {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let statements = |file: &str| -> Vec<String> {
        let text = std::fs::read_to_string(examples.join(file)).unwrap();
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("--")).collect();
        let text = lines.join("\n").replace("flywheel.flight", &format!("{namespace}.flight"));
        text.split(';').map(str::trim).filter(|statement| !statement.is_empty()).map(str::to_owned).collect()
    };
    for file in ["spark/compact.sql", "spark/training_set.sql"] {
        for statement in statements(file) {
            spark_sql(set.spark(), &statement).unwrap_or_else(|error| panic!("{file}: {statement}: {error}"));
        }
    }
    for file in ["trino/compact.sql", "trino/quality.sql"] {
        for statement in statements(file) {
            trino_sql(set.trino(), &statement).unwrap_or_else(|error| panic!("{file}: {statement}: {error}"));
        }
    }
}
