//! Against a real SQLite catalog and a real folder.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, AsArray, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema, TimestampMicrosecondType};
use async_trait::async_trait;
use flywheel_schemas::table::{self as plain, Column, ColumnType};
use flywheel_schemas::types::Type;
use futures::TryStreamExt as _;
use iceberg::spec::{DataContentType, DataFileBuilder, DataFileFormat, ManifestFile};
use iceberg::transaction::{ApplyTransactionAction, Transaction};
use iceberg::{Error, ErrorKind, Namespace, NamespaceIdent, TableCommit, TableCreation, TableIdent};
use tempfile::TempDir;
use tokio::sync::Notify;

use super::*;

const DAY_MS: i64 = 24 * 60 * 60 * 1000;
/// 2013-01-01T10:00:00Z
const START_MS: i64 = 1_357_034_400_000;
const CLUSTER: &str = "cluster-1";

fn column(name: &str, ty: Type, required: bool) -> Column {
    Column { name: name.to_owned(), ty: ColumnType::Plain(ty), required, doc: format!("the {name}") }
}

fn spec() -> plain::Table {
    plain::Table {
        name: "m_predictions".to_owned(),
        doc: "Rows of a test".to_owned(),
        columns: vec![
            column("prediction_id", Type::String, true),
            column("event_time", Type::Timestamp, true),
            column("ingest_time", Type::Timestamp, true),
            column("delay", Type::Int, false),
            Column {
                name: "feature_provenance".to_owned(),
                ty: ColumnType::Provenance,
                required: false,
                doc: String::new(),
            },
            column("tags", Type::List(Box::new(Type::String)), false),
            column("kafka_partition", Type::Int, true),
            column("kafka_offset", Type::Long, true),
        ],
        day_of: "event_time",
    }
}

fn config(dir: &TempDir) -> CatalogConfig {
    CatalogConfig {
        url: format!("sqlite:{}", dir.path().join("catalog.db").display()),
        name: "flywheel".to_owned(),
        namespace: "flywheel".to_owned(),
        warehouse: dir.path().join("warehouse").display().to_string(),
        properties: BTreeMap::new(),
    }
}

async fn warehouse(dir: &TempDir) -> Warehouse {
    Warehouse::open(&config(dir)).await.unwrap()
}

/// Rows of one partition, one per offset, `step_ms` apart.
fn rows(partition: i32, offsets: std::ops::Range<i64>, step_ms: i64) -> RecordBatch {
    let times = |shift: i64| -> ArrayRef {
        Arc::new(
            TimestampMicrosecondArray::from_iter_values(
                offsets.clone().map(|offset| (START_MS + offset * step_ms + shift) * 1000),
            )
            .with_timezone("UTC"),
        )
    };
    let columns: Vec<(&str, ArrayRef)> = vec![
        // Not in table order, and integers where the table has others: both are the writer's business.
        ("kafka_offset", Arc::new(Int64Array::from_iter_values(offsets.clone()))),
        (
            "prediction_id",
            Arc::new(StringArray::from_iter_values(offsets.clone().map(|offset| format!("{partition}-{offset}")))),
        ),
        ("ingest_time", times(5)),
        ("event_time", times(0)),
        ("delay", Arc::new(Int64Array::from_iter_values(offsets.clone().map(|offset| offset * 2)))),
        ("kafka_partition", Arc::new(Int32Array::from_iter_values(offsets.clone().map(|_| partition)))),
    ];
    let fields: Vec<Field> =
        columns.iter().map(|(name, array)| Field::new(*name, array.data_type().clone(), true)).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns.into_iter().map(|(_, array)| array).collect()).unwrap()
}

async fn write(table: &Table, batch: &RecordBatch) -> Vec<DataFile> {
    let mut writer = table.writer().unwrap();
    writer.write(batch).await.unwrap();
    writer.close().await.unwrap()
}

fn mark(next: i64) -> Mark {
    Mark { next, time_ms: START_MS + next }
}

fn at(partition: i32, next: i64) -> BTreeMap<i32, Mark> {
    BTreeMap::from([(partition, if next < 0 { Mark::NONE } else { mark(next) })])
}

async fn read(table: &Table, columns: &[&str], predicate: Predicate) -> Vec<RecordBatch> {
    table.scan(columns, predicate).await.unwrap().try_collect().await.unwrap()
}

/// The offsets of a partition as they are in the table, copies included.
async fn offsets(table: &mut Table, partition: i32) -> Vec<i64> {
    table.refresh().await.unwrap();
    let batches = read(table, &["kafka_offset"], Predicate::Partition(partition)).await;
    let mut offsets: Vec<i64> =
        batches.iter().flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec()).collect();
    offsets.sort_unstable();
    offsets
}

#[tokio::test]
async fn rows_come_back_as_they_were_written() {
    let dir = tempfile::tempdir().unwrap();
    let warehouse = warehouse(&dir).await;
    assert!(warehouse.load("m_predictions").await.unwrap().is_none());
    assert!(warehouse.tables().await.unwrap().is_empty());
    let mut table = warehouse.table(&spec(), &[("flywheel.grid", "300000".to_owned())]).await.unwrap();
    assert_eq!(table.property("flywheel.grid").as_deref(), Some("300000"));
    assert_eq!(table.property("write.delete.mode").as_deref(), Some("copy-on-write"));
    assert_eq!(table.progress().await.unwrap(), None);
    assert_eq!(warehouse.tables().await.unwrap(), ["m_predictions"]);

    let files = write(&table, &rows(0, 0..3, 1000)).await;
    let least = |marks: &BTreeMap<i32, Mark>| vec![("least".to_owned(), marks[&0].next.to_string())];
    let outcome = table.commit_with(files, &at(0, -1), &at(0, 3), CLUSTER, &least).await.unwrap();
    assert_eq!(outcome, Outcome::Committed);
    assert_eq!(table.property("least").as_deref(), Some("3"));
    assert_eq!(table.progress().await.unwrap().unwrap().marks, at(0, 3));

    let batches = read(&table, &["kafka_offset", "delay", "event_time", "prediction_id"], Predicate::All).await;
    let batch = arrow::compute::concat_batches(&batches[0].schema(), &batches).unwrap();
    assert_eq!(batch.column(0).as_primitive::<Int64Type>().values(), &[0, 1, 2]);
    assert_eq!(batch.column(1).as_primitive::<Int32Type>().values(), &[0, 2, 4]);
    assert_eq!(batch.column(2).as_primitive::<TimestampMicrosecondType>().value(1), (START_MS + 1000) * 1000);
    assert_eq!(batch.column(3).as_string::<i32>().value(2), "0-2");
    assert_eq!(batch.schema().field(2), table.arrow_schema().field_with_name("event_time").unwrap());
}

#[tokio::test]
async fn columns_of_one_type_keep_their_values_in_whatever_order_they_are_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let mut table = warehouse(&dir).await.table(&spec(), &[]).await.unwrap();
    let files = write(&table, &rows(0, 0..3, 1000)).await;
    table.commit(files, &at(0, -1), &at(0, 3), CLUSTER, &[]).await.unwrap();
    for names in [["event_time", "ingest_time"], ["ingest_time", "event_time"]] {
        let batches = read(&table, &names, Predicate::All).await;
        let time = |name: &str| {
            batches[0].column_by_name(name).unwrap().as_primitive::<TimestampMicrosecondType>().value(0) / 1000
        };
        assert_eq!((time("event_time"), time("ingest_time")), (START_MS, START_MS + 5), "{names:?}");
        assert_eq!(batches[0].schema().field(0).name(), names[0]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_create_one_table() {
    let dir = tempfile::tempdir().unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..6 {
        let config = config(&dir);
        tasks.spawn(async move {
            let warehouse = Warehouse::open(&config).await?;
            warehouse.table(&spec(), &[]).await.map(|table| table.uuid())
        });
    }
    let uuids: BTreeSet<String> = tasks.join_all().await.into_iter().map(Result::unwrap).collect();
    assert_eq!(uuids.len(), 1);
}

#[tokio::test]
async fn a_table_gains_columns_and_loses_none() {
    let dir = tempfile::tempdir().unwrap();
    let warehouse = warehouse(&dir).await;
    let mut table = warehouse.table(&spec(), &[]).await.unwrap();
    let files = write(&table, &rows(0, 0..2, 1)).await;
    table.commit(files, &at(0, -1), &at(0, 2), CLUSTER, &[]).await.unwrap();

    let mut later = spec();
    later.columns.retain(|column| column.name != "delay");
    later.columns.insert(3, column("wind", Type::Double, true));
    later.columns.push(column("price", Type::Decimal { precision: 12, scale: 2 }, false));
    let mut old = table;
    let mut table = warehouse.table(&later, &[("flywheel.drain", "1".to_owned())]).await.unwrap();
    assert_eq!(table.property("flywheel.drain").as_deref(), Some("1"));
    let schema = table.arrow_schema();
    assert_eq!(schema.field_with_name("wind").unwrap().data_type(), &DataType::Float64);
    assert!(schema.field_with_name("wind").unwrap().is_nullable(), "old rows have no value for it");
    assert!(schema.field_with_name("delay").is_ok());

    // The snapshot does not know the columns yet, and one that wrote before them still may.
    let batches = read(&table, &["wind", "delay"], Predicate::All).await;
    assert_eq!(batches[0].column(0).null_count(), 2);
    assert_eq!(read(&table, &["price"], Predicate::All).await[0].num_rows(), 2);
    let files = write(&old, &rows(0, 2..3, 1)).await;
    assert_eq!(old.commit(files, &at(0, 2), &at(0, 3), CLUSTER, &[]).await.unwrap(), Outcome::Committed);
    assert_eq!(offsets(&mut table, 0).await, [0, 1, 2]);

    // Asked for again, it is left alone.
    let again = warehouse.table(&later, &[]).await.unwrap();
    assert_eq!(again.state.metadata().schemas_iter().len(), 2);
}

#[tokio::test]
async fn a_column_of_another_type_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let warehouse = warehouse(&dir).await;
    warehouse.table(&spec(), &[]).await.unwrap();
    let mut other = spec();
    other.columns[3] = column("delay", Type::Double, false);
    let error = warehouse.table(&other, &[]).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Parked);
    assert!(error.to_string().contains("column `delay` is int and should be double"), "{error}");
}

#[tokio::test]
async fn a_batch_with_a_column_that_the_table_lacks_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut narrow = spec();
    narrow.columns.retain(|column| column.name != "delay");
    let table = warehouse(&dir).await.table(&narrow, &[]).await.unwrap();
    let error = table.writer().unwrap().write(&rows(0, 0..1, 1)).await.unwrap_err();
    assert!(error.to_string().contains("`delay`"), "{error}");
    assert_eq!(error.kind(), Kind::Parked);
}

#[tokio::test]
async fn days_are_files_of_their_own_and_few_are_open() {
    let dir = tempfile::tempdir().unwrap();
    let mut table = warehouse(&dir).await.table(&spec(), &[]).await.unwrap();
    // Forty days, twice over: more than may be open, so that some days get two files.
    let mut writer = table.writer().unwrap();
    for _ in 0..2 {
        writer.write(&rows(0, 0..40, DAY_MS)).await.unwrap();
        writer.flush_for_tests().await.unwrap();
        assert!(writer.open_for_tests() <= 16);
    }
    assert_eq!(writer.rows(), 80);
    let files = writer.close().await.unwrap();
    assert_eq!(files.iter().map(DataFile::record_count).sum::<u64>(), 80);
    assert!(files.len() > 40, "{}", files.len());
    let paths: BTreeSet<&str> = files.iter().map(DataFile::file_path).collect();
    assert_eq!(paths.len(), files.len());
    assert!(paths.iter().any(|path| path.contains("/data/event_time_day=2013-01-02/")), "{paths:?}");
    table.commit(files, &at(0, -1), &at(0, 40), CLUSTER, &[]).await.unwrap();
    assert_eq!(offsets(&mut table, 0).await.len(), 80);
}

#[tokio::test]
async fn a_scan_opens_only_the_files_that_may_hold_a_row() {
    let dir = tempfile::tempdir().unwrap();
    let mut table = warehouse(&dir).await.table(&spec(), &[]).await.unwrap();
    for batch in 0..6 {
        // Three hours of rows, one per hour; batches 0 to 4 begin on the first day.
        let files = write(&table, &rows(0, batch * 3..batch * 3 + 3, DAY_MS / 24)).await;
        let from = if batch == 0 { -1 } else { batch * 3 };
        table.commit(files, &at(0, from), &at(0, batch * 3 + 3), CLUSTER, &[]).await.unwrap();
    }
    assert_eq!(table.count_files(&Predicate::All).await.unwrap(), 7, "one batch lies on two days");
    let hour = DAY_MS / 24;
    let third = Predicate::EventTimeBetween(START_MS + 6 * hour, START_MS + 8 * hour);
    assert_eq!(table.count_files(&third).await.unwrap(), 1, "by the bounds of the column");
    let batches = read(&table, &["kafka_offset"], third).await;
    let found: Vec<i64> =
        batches.iter().flat_map(|b| b.column(0).as_primitive::<Int64Type>().values().to_vec()).collect();
    assert_eq!(found, [6, 7], "from the first, before the second");
    let next_day = Predicate::EventTimeBetween(START_MS + 14 * hour, i64::MAX);
    assert_eq!(table.count_files(&next_day).await.unwrap(), 2);
    let offset = Predicate::And(vec![
        Predicate::Partition(0),
        Predicate::OffsetFrom(4),
        Predicate::OffsetBefore(5),
        Predicate::Or(vec![Predicate::IngestTimeFrom(0), Predicate::PredictionIds(Vec::new())]),
    ]);
    assert_eq!(table.count_files(&offset).await.unwrap(), 1);
    assert_eq!(read(&table, &["kafka_offset"], offset).await.iter().map(RecordBatch::num_rows).sum::<usize>(), 1);
    let id = Predicate::PredictionIds(vec!["0-11".to_owned(), "none".to_owned()]);
    assert_eq!(read(&table, &["delay"], id).await.iter().map(RecordBatch::num_rows).sum::<usize>(), 1);
    assert!(table.scan(&["nothing"], Predicate::All).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_that_carry_the_same_batch_one_lands_it() {
    const ROUNDS: i64 = 40;
    let dir = tempfile::tempdir().unwrap();
    let mut tables = Vec::new();
    for _ in 0..2 {
        tables.push(warehouse(&dir).await.table(&spec(), &[]).await.unwrap());
    }
    for round in 0..ROUNDS {
        let from = at(0, if round == 0 { -1 } else { round * 5 });
        let mut tasks = tokio::task::JoinSet::new();
        for mut table in tables.drain(..) {
            let from = from.clone();
            tasks.spawn(async move {
                let files = write(&table, &rows(0, round * 5..round * 5 + 5, 1000)).await;
                let outcome = table.commit(files, &from, &at(0, round * 5 + 5), CLUSTER, &[]).await;
                (table, outcome)
            });
        }
        for (table, outcome) in tasks.join_all().await {
            assert_eq!(outcome.unwrap(), Outcome::Committed, "the same range, whoever landed it");
            tables.push(table);
        }
    }
    assert_eq!(offsets(&mut tables[0], 0).await, (0..ROUNDS * 5).collect::<Vec<_>>());
    let commits = tables[0].state.metadata().last_sequence_number();
    assert_eq!(commits, ROUNDS, "one commit a round");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn committers_of_different_partitions_all_land() {
    let dir = tempfile::tempdir().unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for partition in 0..4 {
        let warehouse = warehouse(&dir).await;
        tasks.spawn(async move {
            let mut table = warehouse.table(&spec(), &[]).await.unwrap();
            for batch in 0..6 {
                let files = write(&table, &rows(partition, batch..batch + 1, 1000)).await;
                let from = at(partition, if batch == 0 { -1 } else { batch });
                let outcome = table.commit(files, &from, &at(partition, batch + 1), CLUSTER, &[]).await.unwrap();
                assert_eq!(outcome, Outcome::Committed);
            }
        });
    }
    tasks.join_all().await;
    let mut table = warehouse(&dir).await.load("m_predictions").await.unwrap().unwrap();
    for partition in 0..4 {
        assert_eq!(offsets(&mut table, partition).await, (0..6).collect::<Vec<_>>());
        assert_eq!(table.progress().await.unwrap().unwrap().mark(partition), mark(6));
    }
}

#[tokio::test]
async fn one_that_was_overtaken_is_fenced() {
    let dir = tempfile::tempdir().unwrap();
    let mut table = warehouse(&dir).await.table(&spec(), &[]).await.unwrap();
    let mut stale = table.clone();
    for (from, to) in [(-1, 4), (4, 9)] {
        let files = write(&table, &rows(0, from.max(0)..to, 1)).await;
        table.commit(files, &at(0, from), &at(0, to), CLUSTER, &[]).await.unwrap();
    }
    // Another cut of the same range, and with a partition that nobody has touched.
    let from = BTreeMap::from([(0, mark(4)), (1, Mark::NONE)]);
    let to = BTreeMap::from([(0, mark(6)), (1, mark(1))]);
    let files = write(&stale, &rows(0, 4..6, 1)).await;
    let outcome = stale.commit(files, &from, &to, CLUSTER, &[]).await.unwrap();
    assert_eq!(outcome, Outcome::Fenced(BTreeMap::from([(0, mark(9)), (1, Mark::NONE)])));
    assert_eq!(offsets(&mut stale, 0).await, (0..9).collect::<Vec<_>>());
}

#[tokio::test]
async fn marks_move_without_rows() {
    let dir = tempfile::tempdir().unwrap();
    let mut table = warehouse(&dir).await.table(&spec(), &[]).await.unwrap();
    assert_eq!(table.commit(Vec::new(), &at(2, -1), &at(2, 8), CLUSTER, &[]).await.unwrap(), Outcome::Committed);
    let snapshot = table.state.metadata().current_snapshot().unwrap();
    assert!(snapshot.summary().additional_properties.contains_key(PROGRESS_KEY));
    assert_eq!(table.progress().await.unwrap().unwrap().marks, at(2, 8));
}

#[tokio::test]
async fn another_cluster_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut table = warehouse(&dir).await.table(&spec(), &[]).await.unwrap();
    table.commit(Vec::new(), &at(0, -1), &at(0, 8), CLUSTER, &[]).await.unwrap();
    let error = table.commit(Vec::new(), &at(0, 8), &at(0, 9), "cluster-2", &[]).await.unwrap_err();
    assert!(matches!(error, TableError::Cluster { .. }), "{error}");
    assert_eq!(error.kind(), Kind::Parked);
    assert!(matches!(
        table.commit(Vec::new(), &at(0, 8), &at(1, 9), CLUSTER, &[]).await,
        Err(TableError::Bounds { .. })
    ));
}

#[tokio::test]
async fn progress_outlives_snapshots_of_other_writers_and_expiry() {
    let dir = tempfile::tempdir().unwrap();
    let mut table = warehouse(&dir).await.table(&spec(), &[]).await.unwrap();
    let files = write(&table, &rows(0, 0..4, 1)).await;
    table.commit(files, &at(0, -1), &at(0, 4), CLUSTER, &[]).await.unwrap();
    // The property alone would be believed wrongly after a rollback: spoil it, the snapshots must win.
    foreign(&mut table, Some(r#"{"cluster":"cluster-1","marks":{"0":[99,99]}}"#)).await;
    foreign(&mut table, None).await;
    assert_eq!(table.progress().await.unwrap().unwrap().marks, at(0, 4));
    let files = write(&table, &rows(0, 4..6, 1)).await;
    assert_eq!(table.commit(files, &at(0, 4), &at(0, 6), CLUSTER, &[]).await.unwrap(), Outcome::Committed);

    // Now so many foreign snapshots that expiry leaves none of ours.
    for _ in 0..22 {
        foreign(&mut table, None).await;
    }
    let transaction = Transaction::new(&table.state);
    let transaction = transaction.expire_snapshots().expire_older_than_ms(i64::MAX).retain_last(2).apply(transaction);
    table.state = transaction.unwrap().commit(table.catalog.as_ref()).await.unwrap();
    let metadata = table.state.metadata();
    assert!(metadata.snapshots().all(|s| !s.summary().additional_properties.contains_key(PROGRESS_KEY)));
    assert_eq!(table.progress().await.unwrap().unwrap().marks, at(0, 6));
    let files = write(&table, &rows(0, 6..7, 1)).await;
    assert_eq!(table.commit(files, &at(0, 6), &at(0, 7), CLUSTER, &[]).await.unwrap(), Outcome::Committed);
    assert_eq!(offsets(&mut table, 0).await, (0..7).collect::<Vec<_>>());
}

/// A snapshot as a writer makes it that knows nothing of progress.
async fn foreign(table: &mut Table, property: Option<&str>) {
    let transaction = Transaction::new(&table.state);
    let summary = HashMap::from([("engine".to_owned(), "another".to_owned())]);
    let mut transaction = transaction.fast_append().set_snapshot_properties(summary).apply(transaction).unwrap();
    if let Some(text) = property {
        let update = transaction.update_table_properties().set(PROGRESS_KEY.to_owned(), text.to_owned());
        transaction = update.apply(transaction).unwrap();
    }
    table.state = transaction.commit(table.catalog.as_ref()).await.unwrap();
}

#[tokio::test]
async fn commits_keep_the_newest_snapshots_and_delete_what_nothing_names() {
    let dir = tempfile::tempdir().unwrap();
    let properties = [("history.expire.min-snapshots-to-keep", "10".to_owned())];
    let mut table = warehouse(&dir).await.table(&spec(), &properties).await.unwrap();
    let lists = |table: &Table| -> Vec<String> {
        table.state.metadata().snapshots().map(|snapshot| snapshot.manifest_list().to_owned()).collect()
    };
    let (mut all, mut most) = (Vec::new(), 0);
    for next in 0..40 {
        table.commit(Vec::new(), &at(0, next - 1), &at(0, next), CLUSTER, &[]).await.unwrap();
        let present = lists(&table);
        most = most.max(present.len());
        all.extend(present.clone());
        assert!(present.len() >= 10.min(next as usize + 1), "{next}");
    }
    assert_eq!(most, 15, "half more than are kept");
    assert_eq!(table.progress().await.unwrap().unwrap().marks, at(0, 39));
    // Who has loaded the table may come back to its snapshot for a day.
    let (before, now, day) = (table.state.metadata_ref(), Instant::now(), Duration::from_secs(24 * 60 * 60));
    for (later, all_there) in [(day - Duration::from_secs(60), true), (day, false)] {
        table.sweep(&before, now + later).await;
        for list in &all {
            assert_eq!(Path::new(list).exists(), all_there || lists(&table).contains(list), "{list}");
        }
    }

    // A person has said that nothing is to go.
    let properties = [("gc.enabled", "false".to_owned())];
    let mut table = warehouse(&dir).await.table(&spec(), &properties).await.unwrap();
    let before = lists(&table).len();
    for next in 40..60 {
        table.commit(Vec::new(), &at(0, next - 1), &at(0, next), CLUSTER, &[]).await.unwrap();
    }
    assert_eq!(lists(&table).len(), before + 20);
}

#[tokio::test]
async fn commits_merge_small_manifests_and_files_keep_who_added_them() {
    let dir = tempfile::tempdir().unwrap();
    let properties = [("commit.manifest.min-count-to-merge", "5".to_owned())];
    let mut table = warehouse(&dir).await.table(&spec(), &properties).await.unwrap();
    let mut added = BTreeMap::new();
    for next in 0..23 {
        let files = write(&table, &rows(0, next..next + 1, 1)).await;
        for file in &files {
            added.insert(file.file_path().to_owned(), next + 1);
        }
        table.commit(files, &at(0, if next == 0 { -1 } else { next }), &at(0, next + 1), CLUSTER, &[]).await.unwrap();
        let manifests = manifests(&table).await;
        assert!(manifests.len() <= 6, "{}: {}", next, manifests.len());
        let mut sequences = BTreeMap::new();
        for manifest in &manifests {
            for entry in manifest.load_manifest(table.state.file_io()).await.unwrap().entries() {
                let sequence = entry.sequence_number().unwrap();
                assert_eq!(entry.file_sequence_number, Some(sequence));
                let snapshot = table.state.metadata().snapshot_by_id(entry.snapshot_id().unwrap());
                assert!(snapshot.is_none_or(|snapshot| snapshot.sequence_number() == sequence));
                assert!(sequences.insert(entry.file_path().to_owned(), sequence).is_none());
            }
        }
        assert_eq!(sequences, added);
    }
    assert_eq!(offsets(&mut table, 0).await, (0..23).collect::<Vec<_>>());
    // Of the lists that were made on the way none is left.
    for file in std::fs::read_dir(format!("{}/metadata", table.location())).unwrap() {
        let path = file.unwrap().path().display().to_string();
        assert!(!path.contains("-list.avro"), "{path}");
    }
}

#[tokio::test]
async fn a_manifest_that_is_full_is_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let properties = [("commit.manifest.min-count-to-merge", "2".to_owned())];
    let mut table = warehouse(&dir).await.table(&spec(), &properties).await.unwrap();
    let file = write(&table, &rows(0, 0..1, 1)).await.remove(0);
    let mut counts = Vec::new();
    for next in 0..8 {
        // The same file by other names: nobody reads it here.
        let files: Vec<DataFile> = (0..400).map(|n| renamed(&file, &format!("{next}-{n}"))).collect();
        table.commit(files, &at(0, if next == 0 { -1 } else { next }), &at(0, next + 1), CLUSTER, &[]).await.unwrap();
        let manifests = manifests(&table).await;
        let files = |m: &ManifestFile| m.added_files_count.unwrap() + m.existing_files_count.unwrap();
        counts = manifests.iter().map(files).collect();
        assert_eq!(counts.iter().sum::<u32>(), 400 * (next as u32 + 1));
    }
    counts.sort_unstable();
    assert_eq!(counts, [400, 400, 1200, 1200]);
}

async fn manifests(table: &Table) -> Vec<ManifestFile> {
    let snapshot = table.state.metadata().current_snapshot().unwrap();
    let list = table.state.manifest_list_reader(snapshot).load().await.unwrap();
    list.consume_entries().into_iter().collect()
}

fn renamed(file: &DataFile, name: &str) -> DataFile {
    DataFileBuilder::default()
        .content(DataContentType::Data)
        .file_path(format!("{}-{name}", file.file_path()))
        .file_format(DataFileFormat::Parquet)
        .partition(file.partition().clone())
        .partition_spec_id(0)
        .record_count(file.record_count())
        .file_size_in_bytes(file.file_size_in_bytes())
        .build()
        .unwrap()
}

#[tokio::test]
async fn old_metadata_files_go() {
    let dir = tempfile::tempdir().unwrap();
    let properties = [("write.metadata.previous-versions-max", "3".to_owned())];
    let mut table = warehouse(&dir).await.table(&spec(), &properties).await.unwrap();
    for next in 0..10 {
        table.commit(Vec::new(), &at(0, next - 1), &at(0, next), CLUSTER, &[]).await.unwrap();
    }
    let files = std::fs::read_dir(format!("{}/metadata", table.location())).unwrap();
    let metadata = files.filter(|file| file.as_ref().unwrap().path().extension().is_some_and(|e| e == "json")).count();
    assert_eq!(metadata, 4, "the present one and three before it");
    table.refresh().await.unwrap();
}

#[tokio::test]
async fn an_append_lands_once_though_the_answer_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let plain = warehouse(&dir).await;
    plain.table(&spec(), &[]).await.unwrap();
    let broken = plain.through(|catalog| Faulty::new(catalog, Fault::Lost, 1));
    let mut table = broken.load("m_predictions").await.unwrap().unwrap();
    let files = write(&table, &rows(0, 0..3, 1)).await;
    table.append(files).await.unwrap();
    table.append(Vec::new()).await.unwrap();
    assert_eq!(offsets(&mut table, 0).await, [0, 1, 2]);
    assert_eq!(table.progress().await.unwrap(), None);
}

#[tokio::test]
async fn a_lost_answer_is_not_a_second_commit() {
    let dir = tempfile::tempdir().unwrap();
    let plain = warehouse(&dir).await;
    plain.table(&spec(), &[]).await.unwrap();
    for (fault, first) in [(Fault::Lost, 0), (Fault::Refused, 3)] {
        let broken = plain.through(|catalog| Faulty::new(catalog, fault, 2));
        let mut table = broken.load("m_predictions").await.unwrap().unwrap();
        let files = write(&table, &rows(0, first..first + 3, 1)).await;
        let from = at(0, if first == 0 { -1 } else { first });
        let outcome = table.commit(files, &from, &at(0, first + 3), CLUSTER, &[]).await.unwrap();
        assert_eq!(outcome, Outcome::Committed);
        assert_eq!(offsets(&mut table, 0).await, (0..first + 3).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn a_request_that_was_delayed_is_refused_when_it_arrives() {
    let dir = tempfile::tempdir().unwrap();
    let plain = warehouse(&dir).await;
    let mut table = plain.table(&spec(), &[]).await.unwrap();
    let delaying = Faulty::new(table.catalog.clone(), Fault::Delayed, 1);
    let slow = plain.through(|_| delaying.clone());
    let mut stale = slow.load("m_predictions").await.unwrap().unwrap();
    let task = tokio::spawn(async move {
        let files = write(&stale, &rows(0, 0..5, 1)).await;
        stale.commit(files, &at(0, -1), &at(0, 5), CLUSTER, &[]).await
    });
    delaying.arrived.notified().await;
    // It was judged and is on its way. Meanwhile another cut of the range lands.
    let files = write(&table, &rows(0, 0..2, 1)).await;
    assert_eq!(table.commit(files, &at(0, -1), &at(0, 2), CLUSTER, &[]).await.unwrap(), Outcome::Committed);
    delaying.go_on.notify_one();
    assert_eq!(task.await.unwrap().unwrap(), Outcome::Fenced(at(0, 2)));
    assert_eq!(offsets(&mut table, 0).await, [0, 1]);
}

#[tokio::test]
async fn refusal_and_outage_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let plain = warehouse(&dir).await;
    plain.table(&spec(), &[]).await.unwrap();
    let denied = plain.through(|catalog| Faulty::new(catalog, Fault::Denied, 1));
    let mut table = denied.load("m_predictions").await.unwrap().unwrap();
    let error = table.commit(Vec::new(), &at(0, -1), &at(0, 1), CLUSTER, &[]).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Parked, "{error}");
    let invalid = plain.through(|catalog| Faulty::new(catalog, Fault::Invalid, u32::MAX));
    let mut table = invalid.load("m_predictions").await.unwrap().unwrap();
    let error = table.commit(Vec::new(), &at(0, -1), &at(0, 1), CLUSTER, &[]).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Parked, "{error}");
    let away = plain.through(|catalog| Faulty::new(catalog, Fault::Refused, u32::MAX));
    let mut table = away.load("m_predictions").await.unwrap().unwrap();
    let error = table.commit(Vec::new(), &at(0, -1), &at(0, 1), CLUSTER, &[]).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Passing, "{error}");
    assert!(matches!(error, TableError::GivenUp { .. }));
    assert_eq!(table.commit(Vec::new(), &at(0, -1), &at(0, 1), CLUSTER, &[]).await.unwrap_err().kind(), Kind::Passing);
}

#[tokio::test]
async fn settings_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let base = config(&dir);
    for (config, name) in [
        (CatalogConfig { url: "sqlite:".to_owned(), ..base.clone() }, "url"),
        (CatalogConfig { url: "jdbc:x".to_owned(), ..base.clone() }, "url"),
        (CatalogConfig { namespace: String::new(), ..base.clone() }, "namespace"),
        (CatalogConfig { warehouse: "nowhere".to_owned(), ..base.clone() }, "warehouse"),
        (
            CatalogConfig {
                properties: BTreeMap::from([("token-file".to_owned(), "/nonexistent".to_owned())]),
                ..base.clone()
            },
            "properties.token-file",
        ),
    ] {
        match Warehouse::open(&config).await {
            Err(TableError::Setting { setting, .. }) => assert_eq!(setting, name),
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    /// It is applied, and answered with an error.
    Lost,
    /// It is not applied.
    Refused,
    /// It is applied when told to go on.
    Delayed,
    /// As a REST catalog says 403.
    Denied,
    /// As the crate calls a commit that it cannot apply.
    Invalid,
}

/// A catalog whose first updates go wrong.
#[derive(Debug)]
struct Faulty {
    catalog: Arc<dyn Catalog>,
    fault: Fault,
    left: AtomicU32,
    arrived: Notify,
    go_on: Notify,
}

impl Faulty {
    fn new(catalog: Arc<dyn Catalog>, fault: Fault, times: u32) -> Arc<Faulty> {
        Arc::new(Faulty { catalog, fault, left: AtomicU32::new(times), arrived: Notify::new(), go_on: Notify::new() })
    }
}

#[async_trait]
impl Catalog for Faulty {
    async fn update_table(&self, commit: TableCommit) -> iceberg::Result<iceberg::table::Table> {
        let left = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if left.is_err() {
            return self.catalog.update_table(commit).await;
        }
        let error = |text: &str| Err(Error::new(ErrorKind::Unexpected, text));
        match self.fault {
            Fault::Lost => {
                self.catalog.update_table(commit).await?;
                error("the commit state is unknown")
            }
            Fault::Refused => error("connection refused"),
            Fault::Delayed => {
                self.arrived.notify_one();
                self.go_on.notified().await;
                self.catalog.update_table(commit).await
            }
            Fault::Denied => Err(Error::new(ErrorKind::Unexpected, "Received response with unexpected status code")
                .with_context("status", "403 Forbidden")),
            Fault::Invalid => Err(Error::new(ErrorKind::DataInvalid, "partition spec id does not match")),
        }
    }

    async fn load_table(&self, table: &TableIdent) -> iceberg::Result<iceberg::table::Table> {
        self.catalog.load_table(table).await
    }

    async fn create_table(&self, ns: &NamespaceIdent, table: TableCreation) -> iceberg::Result<iceberg::table::Table> {
        self.catalog.create_table(ns, table).await
    }

    async fn list_namespaces(&self, parent: Option<&NamespaceIdent>) -> iceberg::Result<Vec<NamespaceIdent>> {
        self.catalog.list_namespaces(parent).await
    }

    async fn create_namespace(
        &self,
        ns: &NamespaceIdent,
        properties: HashMap<String, String>,
    ) -> iceberg::Result<Namespace> {
        self.catalog.create_namespace(ns, properties).await
    }

    async fn get_namespace(&self, ns: &NamespaceIdent) -> iceberg::Result<Namespace> {
        self.catalog.get_namespace(ns).await
    }

    async fn namespace_exists(&self, ns: &NamespaceIdent) -> iceberg::Result<bool> {
        self.catalog.namespace_exists(ns).await
    }

    async fn update_namespace(&self, ns: &NamespaceIdent, properties: HashMap<String, String>) -> iceberg::Result<()> {
        self.catalog.update_namespace(ns, properties).await
    }

    async fn drop_namespace(&self, ns: &NamespaceIdent) -> iceberg::Result<()> {
        self.catalog.drop_namespace(ns).await
    }

    async fn list_tables(&self, ns: &NamespaceIdent) -> iceberg::Result<Vec<TableIdent>> {
        self.catalog.list_tables(ns).await
    }

    async fn drop_table(&self, table: &TableIdent) -> iceberg::Result<()> {
        self.catalog.drop_table(table).await
    }

    async fn purge_table(&self, table: &TableIdent) -> iceberg::Result<()> {
        self.catalog.purge_table(table).await
    }

    async fn table_exists(&self, table: &TableIdent) -> iceberg::Result<bool> {
        self.catalog.table_exists(table).await
    }

    async fn rename_table(&self, from: &TableIdent, to: &TableIdent) -> iceberg::Result<()> {
        self.catalog.rename_table(from, to).await
    }

    async fn register_table(&self, table: &TableIdent, location: String) -> iceberg::Result<iceberg::table::Table> {
        self.catalog.register_table(table, location).await
    }
}
