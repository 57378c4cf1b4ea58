//! The servers and readers themselves: without them nothing else here could fail for the right reason.

use flywheel_tests::readers::{duckdb_sql, pyiceberg, spark_sql, trino_sql};
use flywheel_tests::servers::{S3, shared, skipped};
use serde_json::json;

#[test]
fn every_reader_reads_what_spark_wrote() {
    if skipped("every_reader_reads_what_spark_wrote") {
        return;
    }
    let set = shared();
    spark_sql(set.spark(), "CREATE NAMESPACE IF NOT EXISTS readers").unwrap();
    spark_sql(set.spark(), "CREATE TABLE readers.t AS SELECT 1 AS a, 'x' AS b, double('NaN') AS c").unwrap();
    let want = vec![vec![json!(1), json!("x")]];
    assert_eq!(spark_sql(set.spark(), "SELECT a, b FROM readers.t").unwrap(), want);
    assert_eq!(trino_sql(set.trino(), "SELECT a, b FROM iceberg.readers.t").unwrap(), want);
    let duckdb = set.python("readers").duckdb().unwrap();
    assert_eq!(duckdb_sql(&duckdb, "SELECT a, b FROM t").unwrap(), want);
    let reader = set.python("readers").pyiceberg().unwrap();
    assert_eq!(pyiceberg(&reader, "t", "SELECT a, b FROM scanned").unwrap(), want);
    for error in [
        spark_sql(set.spark(), "SELECT nothing FROM readers.t").unwrap_err(),
        trino_sql(set.trino(), "SELECT nothing FROM iceberg.readers.t").unwrap_err(),
        duckdb_sql(&duckdb, "SELECT nothing FROM t").unwrap_err(),
    ] {
        assert!(error.to_string().contains("nothing"), "{error}");
    }
}

#[test]
fn a_killed_server_comes_back_with_its_data_on_its_port() {
    if skipped("a_killed_server_comes_back_with_its_data_on_its_port") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut s3 = S3::start(dir.path()).unwrap();
    let (address, kept) = (s3.address().to_owned(), s3.dir().join("data/warehouse/kept"));
    std::fs::write(&kept, "x").unwrap();
    let open = |port| std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
    s3.kill().unwrap();
    assert!(!open(s3.port()));
    s3.restart().unwrap();
    assert_eq!(s3.address(), address);
    assert!(open(s3.port()) && kept.exists());
    let port = s3.port();
    drop(s3);
    assert!(!open(port));
}
