//! The views that `flywheel-joiner sql` prints, on the tables of the demonstration: three engines, one answer.

use flywheel_joiner::Config;
use flywheel_joiner::commands::sql::{self, Engine, Model, Names, Options, View};
use flywheel_tests::readers::{Rows, duckdb_sql, spark_sql, trino_sql};
use flywheel_tests::servers::{S3_ACCESS_KEY, S3_REGION, S3_SECRET_KEY, Set};
use serde_json::json;

const MODEL: &str = "flight_delay";

const ENGINES: [Engine; 3] = [Engine::Duckdb, Engine::Spark, Engine::Trino];

/// What a joiner on these servers is told, as far as the views ask.
fn config(set: &Set, namespace: &str) -> Config {
    let mut config = Config::default();
    config.log.prefix = namespace.to_owned();
    config.registry.url = set.registry.address().to_owned();
    config.catalog.url = set.catalog.address().to_owned();
    config.catalog.namespace = namespace.to_owned();
    config.catalog.warehouse = "s3://warehouse/".to_owned();
    config.catalog.properties = [
        ("s3.endpoint", set.s3.address()),
        ("s3.access-key-id", S3_ACCESS_KEY),
        ("s3.secret-access-key", S3_SECRET_KEY),
        ("s3.region", S3_REGION),
        ("s3.path-style-access", "true"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into();
    config
}

struct Views<'a> {
    set: &'a Set,
    model: Model,
    options: Options,
}

impl Views<'_> {
    /// The rows of a view over the tables of a namespace; `columns` are read of it.
    fn rows(&self, engine: Engine, namespace: &str, view: View, columns: &dyn Fn(Engine) -> String) -> Rows {
        let of_engine = match engine {
            Engine::Trino => format!("iceberg.{namespace}"),
            Engine::Duckdb => format!("ice.{namespace}"),
            Engine::Spark => namespace.to_owned(),
        };
        let names = Names { engine, namespace: &of_engine, model: MODEL };
        let text = sql::text(&names, view, &self.options, &self.model).unwrap();
        let text = format!("SELECT {} FROM (\n{text}\n) answer ORDER BY 1, 2", columns(engine));
        let rows = match engine {
            Engine::Spark => spark_sql(self.set.spark(), &text),
            Engine::Trino => trino_sql(self.set.trino(), &text),
            Engine::Duckdb => duckdb_sql(&self.set.python(namespace).duckdb().unwrap(), &text),
        };
        rows.unwrap_or_else(|error| panic!("{view:?} in {engine:?}: {error}"))
    }

    /// The rows that all engines give.
    fn agreed(&self, namespace: &str, view: View, columns: &dyn Fn(Engine) -> String) -> Rows {
        let [duckdb, spark, trino] = ENGINES.map(|engine| self.rows(engine, namespace, view, columns));
        assert!(spark == duckdb, "{view:?}: Spark gives {} rows, DuckDB {}", spark.len(), duckdb.len());
        assert!(trino == duckdb, "{view:?}: Trino gives {} rows, DuckDB {}", trino.len(), duckdb.len());
        duckdb
    }
}

/// Of a training row what no two engines write differently.
fn training(engine: Engine) -> String {
    let micros = |name: &str| match engine {
        Engine::Spark => format!("unix_micros({name})"),
        Engine::Trino => format!("CAST(to_unixtime({name}) * 1E6 AS BIGINT)"),
        Engine::Duckdb => format!("epoch_us({name})"),
    };
    let times: Vec<String> = ["as_of", "revised_at", "label_late15_at", "label_late15_known_at"].map(micros).to_vec();
    format!(
        "prediction_id, kafka_offset, label_landed, label_landed_status, CAST(label_arr_delay_min AS BIGINT) AS delay,
         label_arr_delay_min_status, label_late15, label_late15_status, CAST(sample_weight AS BIGINT) AS weight, {}",
        times.join(", ")
    )
}

/// The views give the same rows in every engine, and the audit none; where a row is changed, it names that row.
pub fn agree(set: &Set, namespace: &str) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let model = runtime.block_on(Model::read(&config(set, namespace), MODEL)).unwrap();
    let options =
        Options { as_of: None, rate: Some(0.25), condition: Some("label_late15 = FALSE".to_owned()), table: None };
    let mut views = Views { set, model, options };

    let current = views.agreed(namespace, View::TrainingCurrent, &training);
    let live = views.agreed(namespace, View::TrainingLive, &training);
    let sampled = views.agreed(namespace, View::TrainingSampled, &training);
    views.options.as_of = Some("2013-01-05T12:00:00Z".parse().unwrap());
    let earlier = views.agreed(namespace, View::TrainingAsOf, &training);
    views.agreed(namespace, View::UnmatchedCurrent, &|_| "prediction_id, event_id, reason".to_owned());
    assert!(!earlier.is_empty() && earlier.len() < current.len() && current.len() <= live.len());
    let late = |rows: &Rows| rows.iter().filter(|row| row[6] != json!(false)).count();
    assert_eq!(late(&sampled), late(&current), "rows that the condition does not hold for");
    let weights: Vec<_> = sampled.iter().filter(|row| row[6] == json!(false)).map(|row| row[8].clone()).collect();
    assert!(!weights.is_empty() && weights.iter().all(|weight| *weight == json!(4)), "{weights:?}");
    assert!(sampled.len() < current.len());

    let differences = |_: Engine| "side, prediction_id, what".to_owned();
    assert_eq!(views.agreed(namespace, View::Audit, &differences), Rows::new());
    // The same tables, but for one row.
    let changed = format!("{namespace}_changed");
    spark_sql(set.spark(), &format!("CREATE NAMESPACE {changed}")).unwrap();
    let first = current[0][0].as_str().unwrap();
    for table in ["predictions", "outcomes", "training", "label_revisions", "unmatched", "seal_log"] {
        let name = if table == "seal_log" { table.to_owned() } else { format!("{MODEL}_{table}") };
        let but = if table == "training" { format!(" WHERE prediction_id <> '{first}'") } else { String::new() };
        spark_sql(set.spark(), &format!("CREATE TABLE {changed}.{name} AS SELECT * FROM {namespace}.{name}{but}"))
            .unwrap();
    }
    let found = views.agreed(&changed, View::Audit, &differences);
    assert_eq!(json!(found), json!([["missing", first, "the whole row"]]));
}
