//! What is missing is named, alike by the joiner and by the SQL that it prints.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, new_null_array};
use flywheel_joiner::commands::sql::{self, Engine, Names};
use flywheel_joiner::completeness::{Proof, Span};
use flywheel_joiner::table::{CatalogConfig, Table, Warehouse};
use flywheel_schemas::table::{self as plain, Column, ColumnType};
use flywheel_schemas::types::Type;
use flywheel_schemas::wire::Kind;
use flywheel_tests::readers::{Python, duckdb_sql};
use flywheel_tests::servers::skipped;
use serde_json::json;

const NOW_US: i64 = 1_357_034_400_000_000;

/// Of a raw table what this is about.
fn raw(name: &str) -> plain::Table {
    let column = |name: &str, ty, required| Column {
        name: name.to_owned(),
        ty: ColumnType::Plain(ty),
        required,
        doc: String::new(),
    };
    plain::Table {
        name: name.to_owned(),
        doc: String::new(),
        columns: vec![
            column("event_time", Type::Timestamp, true),
            column("producer_id", Type::String, false),
            column("producer_seq", Type::Long, false),
        ],
        day_of: "event_time",
    }
}

/// Appends rows whose columns are given by name; the others are null.
async fn append(table: &mut Table, rows: usize, columns: Vec<(&str, ArrayRef)>) {
    let schema = table.arrow_schema();
    let given: BTreeMap<&str, ArrayRef> = columns.into_iter().collect();
    let columns = schema.fields().iter().map(|field| match (given.get(field.name().as_str()), field.name().as_str()) {
        (Some(column), _) => column.clone(),
        (None, "event_time" | "at") => {
            Arc::new(TimestampMicrosecondArray::from(vec![NOW_US; rows]).with_timezone("+00:00")) as ArrayRef
        }
        (None, _) => new_null_array(field.data_type(), rows),
    });
    let batch = RecordBatch::try_new(schema.clone(), columns.collect()).unwrap();
    let mut writer = table.writer().unwrap();
    writer.write(&batch).await.unwrap();
    let files = writer.close().await.unwrap();
    table.append(files).await.unwrap();
}

async fn land(table: &mut Table, numbers: &[(Option<&str>, Option<i64>)]) {
    let ids: StringArray = numbers.iter().map(|(id, _)| *id).collect();
    let seqs: Int64Array = numbers.iter().map(|(_, seq)| *seq).collect();
    append(table, numbers.len(), vec![("producer_id", Arc::new(ids)), ("producer_seq", Arc::new(seqs))]).await;
}

/// A record of the ledger: producer, kind, first and last number, what closed it.
type Record<'a> = (&'a str, &'a str, i64, i64, &'a str);

async fn enter(table: &mut Table, records: &[Record<'_>]) {
    let text = |of: &dyn Fn(&Record<'_>) -> String| -> ArrayRef {
        Arc::new(records.iter().map(|record| Some(of(record))).collect::<StringArray>())
    };
    let long = |of: &dyn Fn(&Record<'_>) -> i64| -> ArrayRef {
        Arc::new(records.iter().map(|record| Some(of(record))).collect::<Int64Array>())
    };
    let is_loss = |record: &Record<'_>| record.4 == "loss";
    let length = |record: &Record<'_>| record.3 - record.2 + 1;
    let columns = vec![
        ("producer_id", text(&|record| record.0.to_owned())),
        ("model", text(&|_| "m".to_owned())),
        ("kind", text(&|record| record.1.to_owned())),
        ("first_seq", long(&|record| record.2)),
        ("last_seq", long(&|record| record.3)),
        ("accepted", long(&|record| if is_loss(record) { 0 } else { length(record) })),
        ("refused", long(&|_| 1)),
        ("sampled_out", long(&|_| 0)),
        ("dropped", long(&|record| if is_loss(record) { length(record) } else { 0 })),
        ("closed_by", text(&|record| record.4.to_owned())),
        ("reason", text(&|_| "too_old".to_owned())),
    ];
    append(table, records.len(), columns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_is_named_by_the_joiner_and_by_sql_alike() {
    if skipped("what_is_missing_is_named_by_the_joiner_and_by_sql_alike") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let config = CatalogConfig {
        url: format!("sqlite:{}", dir.path().join("catalog.db").display()),
        name: "flywheel".to_owned(),
        namespace: "flywheel".to_owned(),
        warehouse: dir.path().join("warehouse").display().to_string(),
        properties: BTreeMap::new(),
    };
    let warehouse = Warehouse::open(&config).await.unwrap();
    let mut ledger = warehouse.table(&plain::ledger(), &[]).await.unwrap();
    let mut predictions = warehouse.table(&raw("m_predictions"), &[]).await.unwrap();
    let mut outcomes = warehouse.table(&raw("m_outcomes"), &[]).await.unwrap();

    // `a` was killed: 4 to 6 were given up, of which 5 arrived all the same; 9 and 10 are nowhere. Its second span is there
    // twice, and so are two of its rows.
    let spans = [
        ("a", "predictions", 1, 6, "interval"),
        ("a", "predictions", 7, 10, "recovery"),
        ("a", "predictions", 7, 10, "recovery"),
        ("a", "predictions", 4, 6, "loss"),
        ("a", "outcomes", 1, 2, "recovery"),
    ];
    enter(&mut ledger, &spans).await;
    let landed = [1, 2, 3, 5, 7, 8, 8, 1].map(|seq| (Some("a"), Some(seq)));
    land(&mut predictions, &landed).await;
    land(&mut outcomes, &[(Some("a"), Some(1)), (Some("a"), Some(2))]).await;
    // `b` is at work: the ledger is behind, and one row overtook another. A third numbers nothing.
    enter(&mut ledger, &[("b", "predictions", 1, 1, "interval")]).await;
    land(&mut predictions, &[(Some("b"), Some(1)), (Some("b"), Some(3)), (None, None)]).await;

    let proof = Proof::read(&warehouse, "m", Kind::Predictions).await.unwrap();
    let (a, b) = (&proof.producers["a"], &proof.producers["b"]);
    assert_eq!((a.accepted, a.is_closed, a.landed(), a.lost(), a.refused), (10, true, 6, 2, 2));
    assert_eq!(a.missing(), [Span { first: 9, last: 10 }]);
    assert_eq!((b.accepted, b.is_closed, b.landed(), b.lost()), (1, false, 2, 0));
    assert_eq!(b.missing(), [Span { first: 2, last: 2 }]);
    assert_eq!((proof.unnumbered, proof.is_complete()), (1, false));
    let proof = Proof::read(&warehouse, "m", Kind::Outcomes).await.unwrap();
    assert!(proof.is_complete() && proof.producers["a"].landed() == 2);

    let duckdb = Python::local(dir.path()).duckdb().unwrap();
    let names = Names { engine: Engine::Duckdb, namespace: "main", model: "m" };
    let missing = duckdb_sql(&duckdb, &sql::missing(&names)).unwrap();
    assert_eq!(json!(missing), json!([["a", "predictions", 9, 10], ["b", "predictions", 2, 2]]));
    let counts = duckdb_sql(&duckdb, &sql::completeness(&names)).unwrap();
    let expected =
        json!([["a", "outcomes", 2, 2, 0, 0], ["a", "predictions", 10, 6, 2, 2], ["b", "predictions", 1, 2, 0, 1]]);
    assert_eq!(json!(counts), expected);
}
