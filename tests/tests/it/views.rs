//! The views that `flywheel-joiner sql` prints, on the tables of the demonstration: three engines, one answer.

use flywheel_joiner::Config;
use flywheel_joiner::commands::sql::{self, Engine, Model, Names, Options, View};
use flywheel_joiner::table::Warehouse;
use flywheel_schemas::contract::Contract;
use flywheel_schemas::registry::Registry;
use flywheel_schemas::{register, table};
use flywheel_tests::readers::{Rows, duckdb_sql, spark_sql, trino_sql};
use flywheel_tests::servers::{S3_ACCESS_KEY, S3_REGION, S3_SECRET_KEY, Set};
use serde_json::json;

const MODEL: &str = "flight_delay";
/// Its contract.
const CONTRACT: &str = include_str!("../../../examples/contracts/flight_delay.yaml");

const ENGINES: [Engine; 3] = [Engine::Duckdb, Engine::Spark, Engine::Trino];

/// What a joiner on these servers is told, as far as the views ask.
pub fn config(set: &Set, namespace: &str) -> Config {
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
        let outcomes = self.options.outcomes.as_ref().map(|table| format!("{of_engine}.{table}"));
        let options = Options { outcomes, ..self.options.clone() };
        let text = sql::text(&names, view, &options, &self.model).unwrap();
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
    let condition = Some("label_late15 = FALSE".to_owned());
    let options = Options { rate: Some(0.25), condition, ..Options::default() };
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
    attribute(&mut views, namespace);
    runtime.block_on(backfill(set, namespace, &current));
}

/// Landings that name the aircraft alone go to its last departure, or its first within the window.
fn attribute(views: &mut Views<'_>, namespace: &str) {
    let landings = format!(
        "CREATE TABLE {namespace}.landings AS
         SELECT p.prediction_id AS outcome_id, p.tail_number, min(o.event_time) AS event_time, TRUE AS label_landed
         FROM {namespace}.{MODEL}_predictions p JOIN {namespace}.{MODEL}_outcomes o ON o.prediction_id = p.prediction_id
         WHERE o.label_landed GROUP BY p.prediction_id, p.tail_number"
    );
    spark_sql(views.set.spark(), &landings).unwrap();
    views.options.outcomes = Some("landings".to_owned());
    views.options.entity = vec!["tail_number".to_owned()];
    views.options.labels = vec!["landed".to_owned()];
    views.options.window = Some(24 * 3_600_000);
    let columns = |_: Engine| "outcome_id, prediction_id, label_landed".to_owned();
    let last = views.agreed(namespace, View::AttributionLastTouch, &columns);
    let first = views.agreed(namespace, View::AttributionFirstTouch, &columns);
    let right = |rows: &Rows| rows.iter().filter(|row| row[0] == row[1]).count();
    assert!(!last.is_empty() && last.len() == first.len());
    // Few aircraft depart again before they are said to have landed, but many have departed twice within a day.
    assert!(right(&last) * 20 > last.len() * 19, "{} of {}", right(&last), last.len());
    assert!(right(&first) < right(&last), "{} and {}", right(&first), right(&last));
}

/// A label more on a model whose rows are there: Trino and Spark write the same rows, and nothing twice.
async fn backfill(set: &Set, namespace: &str, current: &Rows) {
    let config = config(set, namespace);
    let label = "labels:\n  arrived: {type: boolean, window: 6h, lateness: 1h, aggregate: any}\n";
    let yaml = CONTRACT.replace("version: 1", "version: 2").replace("labels:\n", label);
    let contract = Contract::parse(&yaml).unwrap_or_else(|faults| panic!("{faults:?}"));
    let registry = Registry::open(&config.registry()).unwrap();
    register::register(&contract, &registry, namespace).await.unwrap();
    // As a joiner does when it starts.
    let warehouse = Warehouse::open(&config.catalog()).await.unwrap();
    for table in [
        table::predictions(&contract),
        table::outcomes(&contract),
        table::training(&contract),
        table::label_revisions(&contract),
        table::unmatched(&contract),
    ] {
        warehouse.table(&table, &[]).await.unwrap();
    }
    let model = Model::read(&config, MODEL).await.unwrap();
    let options =
        Options { contract: Some(2), from: Some("2013-01-01T00:00:00Z".parse().unwrap()), ..Options::default() };
    let run = |engine: Engine| {
        let of_engine = if engine == Engine::Trino { format!("iceberg.{namespace}") } else { namespace.to_owned() };
        let names = Names { engine, namespace: &of_engine, model: MODEL };
        for statement in sql::backfill(&names, &options, &model).unwrap() {
            let answer = match engine {
                Engine::Trino => trino_sql(set.trino(), &statement),
                _ => spark_sql(set.spark(), &statement),
            };
            answer.unwrap_or_else(|error| panic!("{engine:?}: {error}"));
        }
    };
    let target = format!("{namespace}.{MODEL}_training_v2");
    let rows = || {
        let columns = "prediction_id, kafka_offset, label_landed, label_arrived, label_arrived_status, as_of";
        spark_sql(set.spark(), &format!("SELECT {columns} FROM {target} ORDER BY 1, 2")).unwrap()
    };
    run(Engine::Trino);
    let of_trino = rows();
    run(Engine::Spark);
    assert_eq!(rows(), of_trino, "what is there is not added again");
    spark_sql(set.spark(), &format!("DROP TABLE {target}")).unwrap();
    run(Engine::Spark);
    assert!(rows() == of_trino, "Spark and Trino write different rows");
    run(Engine::Spark);
    assert_eq!(rows().len(), of_trino.len());
    // One for each base row, with the labels that it has already.
    let known = |row: &Vec<serde_json::Value>| (row[0].clone(), row[1].clone(), row[2].clone());
    assert!(of_trino.iter().map(known).eq(current.iter().map(known)), "{} rows", of_trino.len());
    // Nobody has stated the new one.
    assert!(of_trino.iter().all(|row| row[3].is_null() && row[4] == json!("missing")));
}
