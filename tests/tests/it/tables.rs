//! The joiner's tables on a REST catalog over S3: what the unit tests show on SQLite and a folder holds there too.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray as _, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{Int64Type, Schema};
use flywheel_joiner::table::{CatalogConfig, DataFile, Mark, Outcome, Predicate, Table, Warehouse};
use flywheel_schemas::table::{Column, ColumnType, Table as Plain};
use flywheel_schemas::types::Type;
use flywheel_tests::readers::pyiceberg;
use flywheel_tests::servers::{S3_ACCESS_KEY, S3_REGION, S3_SECRET_KEY, shared, skipped};
use futures::TryStreamExt as _;
use serde_json::json;

const START_US: i64 = 1_357_034_400_000_000;

fn spec(columns: &[(&str, Type)]) -> Plain {
    Plain {
        name: "rows".to_owned(),
        doc: "Rows of a test".to_owned(),
        columns: columns
            .iter()
            .map(|(name, ty)| Column {
                name: (*name).to_owned(),
                ty: ColumnType::Plain(ty.clone()),
                required: false,
                doc: String::new(),
            })
            .collect(),
        day_of: "event_time",
    }
}

fn rows(offsets: std::ops::Range<i64>) -> RecordBatch {
    let columns: [(&str, ArrayRef); 3] = [
        ("prediction_id", Arc::new(StringArray::from_iter_values(offsets.clone().map(|n| n.to_string())))),
        (
            "event_time",
            Arc::new(
                TimestampMicrosecondArray::from_iter_values(offsets.clone().map(|n| START_US + n)).with_timezone("UTC"),
            ),
        ),
        ("kafka_offset", Arc::new(Int64Array::from_iter_values(offsets))),
    ];
    let fields =
        columns.iter().map(|(name, array)| arrow::datatypes::Field::new(*name, array.data_type().clone(), true));
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    RecordBatch::try_new(schema, columns.into_iter().map(|(_, array)| array).collect()).unwrap()
}

async fn write(table: &Table, offsets: std::ops::Range<i64>) -> Vec<DataFile> {
    let mut writer = table.writer().unwrap();
    writer.write(&rows(offsets)).await.unwrap();
    writer.close().await.unwrap()
}

fn at(next: i64) -> BTreeMap<i32, Mark> {
    BTreeMap::from([(0, if next < 0 { Mark::NONE } else { Mark { next, time_ms: next } })])
}

async fn offsets(table: &Table, predicate: Predicate) -> Vec<i64> {
    let batches: Vec<RecordBatch> =
        table.scan(&["kafka_offset"], predicate).await.unwrap().try_collect().await.unwrap();
    let mut all: Vec<i64> =
        batches.iter().flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec()).collect();
    all.sort_unstable();
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rest_catalog_over_s3_arbitrates() {
    if skipped("a_rest_catalog_over_s3_arbitrates") {
        return;
    }
    let set = shared();
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    std::fs::write(&secret, format!("{S3_SECRET_KEY}\n")).unwrap();
    let config = CatalogConfig {
        url: set.catalog.address().to_owned(),
        name: "flywheel".to_owned(),
        namespace: format!("tables_{}", uuid::Uuid::new_v4().simple()),
        warehouse: "s3://warehouse/".to_owned(),
        properties: [
            ("s3.endpoint", set.s3.address()),
            ("s3.access-key-id", S3_ACCESS_KEY),
            ("s3.secret-access-key-file", secret.to_str().unwrap()),
            ("s3.region", S3_REGION),
            ("s3.path-style-access", "true"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into(),
    };
    let narrow = [("prediction_id", Type::String), ("event_time", Type::Timestamp), ("kafka_offset", Type::Long)];
    let mut tables = Vec::new();
    // Some of the commits merge manifests and remove snapshots.
    let short = [("commit.manifest.min-count-to-merge", "3"), ("history.expire.min-snapshots-to-keep", "4")]
        .map(|(key, value)| (key, value.to_owned()));
    for _ in 0..2 {
        let warehouse = Warehouse::open(&config).await.unwrap();
        tables.push(warehouse.table(&spec(&narrow), &short).await.unwrap());
    }
    assert_eq!(tables[0].uuid(), tables[1].uuid());

    // Two joiners carry the same batch, ten times.
    for round in 0..10 {
        let mut tasks = tokio::task::JoinSet::new();
        for mut table in tables.drain(..) {
            tasks.spawn(async move {
                let files = write(&table, round * 3..round * 3 + 3).await;
                let from = at(if round == 0 { -1 } else { round * 3 });
                let outcome = table.commit(files, &from, &at(round * 3 + 3), "c", &[]).await;
                (table, outcome)
            });
        }
        for (table, outcome) in tasks.join_all().await {
            assert_eq!(outcome.unwrap(), Outcome::Committed);
            tables.push(table);
        }
    }
    let mut table = tables.remove(0);
    assert_eq!(table.progress().await.unwrap().unwrap().marks, at(30));
    assert_eq!(offsets(&table, Predicate::All).await, (0..30).collect::<Vec<_>>());

    // A batch that was overtaken, a wider table, and rows read by another library.
    let files = write(&table, 27..30).await;
    assert_eq!(table.commit(files, &at(27), &at(31), "c", &[]).await.unwrap(), Outcome::Fenced(at(30)));
    let wide = [narrow.as_slice(), &[("wind", Type::Double)]].concat();
    let warehouse = Warehouse::open(&config).await.unwrap();
    let mut table = warehouse.table(&spec(&wide), &[("flywheel.grid", "300000".to_owned())]).await.unwrap();
    assert_eq!(table.property("flywheel.grid").as_deref(), Some("300000"));
    let files = write(&table, 30..31).await;
    assert_eq!(table.commit(files, &at(30), &at(31), "c", &[]).await.unwrap(), Outcome::Committed);
    assert_eq!(offsets(&table, Predicate::OffsetFrom(29)).await, [29, 30]);
    let reader = set.python(&config.namespace).pyiceberg().unwrap();
    let counted = pyiceberg(&reader, "rows", "SELECT count(*), count(wind), max(kafka_offset) FROM scanned").unwrap();
    assert_eq!(counted, [vec![json!(31), json!(0), json!(30)]]);

    // A wrong secret is no outage.
    let mut wrong = config.clone();
    wrong.properties.insert("s3.secret-access-key".to_owned(), "wrong".to_owned());
    wrong.properties.remove("s3.secret-access-key-file");
    let table = Warehouse::open(&wrong).await.unwrap().load("rows").await.unwrap().unwrap();
    let mut writer = table.writer().unwrap();
    let written = writer.write(&rows(0..1)).await;
    let error = match written {
        Ok(()) => writer.close().await.unwrap_err(),
        Err(error) => error,
    };
    assert!(!error.is_passing(), "{error}");
}
