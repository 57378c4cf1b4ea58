//! What the demonstration says at its end, all of it read back from the tables.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::args::Args;
use crate::quality::Quality;
use crate::training::{Completeness, Coverage, Tables};
use crate::{Error, MODEL};

/// The closing ledger record is the last that the sidecar sends; the joiner commits it within its interval.
const LEDGER: Duration = Duration::from_secs(60);

/// How the run went, where there was one.
pub struct Calls {
    pub elapsed: Duration,
    pub repeats: u64,
    pub put_off: u64,
}

/// Waits until the ledger covers what has landed. A ledger that does not come is told by the report.
pub async fn await_ledger(tables: &Tables) -> Result<(), Error> {
    let end = Instant::now() + LEDGER;
    loop {
        let mut whole = true;
        for kind in ["predictions", "outcomes"] {
            let found = tables.completeness(kind).await?;
            whole &= found.accepted >= found.landed;
        }
        if whole || Instant::now() > end {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

pub async fn print(args: &Args, tables: &Tables, calls: Option<Calls>) -> Result<(), Error> {
    let served = tables.served().await?;
    let distinct = served.chunk_by(|a, b| a.prediction_id == b.prediction_id).count();
    println!("\n{} examples in {MODEL}_training, {distinct} prediction ids", served.len());

    println!("\nquality by model version (of the flights whose lateness was observed)");
    println!(
        "{:<10} {:>8} {:>7} {:>9} {:>10} {:>9} {:>18}",
        "version", "flights", "AUC", "log loss", "predicted", "late", "calibration error"
    );
    let mut versions: BTreeMap<&str, Vec<(f64, bool)>> = BTreeMap::new();
    for row in &served {
        if let Some(late) = row.late {
            versions.entry(&row.model_version).or_default().push((row.late_probability, late));
        }
    }
    for (version, pairs) in versions {
        if let Some(quality) = Quality::of(pairs.into_iter()) {
            let Quality { rows, auc, log_loss, predicted, observed, calibration_error } = quality;
            println!(
                "{version:<10} {rows:>8} {auc:>7.4} {log_loss:>9.4} {predicted:>10.4} {observed:>9.4} {calibration_error:>18.4}"
            );
        }
    }

    println!("\nlabels");
    println!(
        "{:<14} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8}",
        "label", "true", "false", "value", "default", "missing", "sum"
    );
    for (label, is_boolean) in [("landed", true), ("arr_delay_min", false), ("late15", true)] {
        let Coverage { observed_true, observed_false, value, default, missing, other } =
            tables.coverage(label, is_boolean).await?;
        let sum = observed_true + observed_false + value + default + missing + other;
        println!("{label:<14} {observed_true:>8} {observed_false:>8} {value:>8} {default:>8} {missing:>8} {sum:>8}");
    }

    println!("\nledger");
    println!("{:<14} {:>8} {:>8} {:>8} {:>8} {:>8}", "kind", "accepted", "in table", "missing", "refused", "lost");
    for kind in ["predictions", "outcomes"] {
        let Completeness { accepted, refused, lost, landed, missing } = tables.completeness(kind).await?;
        println!("{kind:<14} {accepted:>8} {landed:>8} {missing:>8} {refused:>8} {lost:>8}");
    }
    if let Some(Calls { elapsed, repeats, put_off }) = calls {
        println!(
            "\n{:.1} s; {repeats} calls repeated for want of an answer, {put_off} put off with 503",
            elapsed.as_secs_f64()
        );
    }
    println!("\n{}", commands(args));
    Ok(())
}

/// How to go on looking.
fn commands(args: &Args) -> String {
    let dir = std::path::absolute(&args.data_dir).unwrap_or_else(|_| args.data_dir.clone());
    let dir = dir.display();
    match (&args.catalog, &args.warehouse) {
        (Some(catalog), Some(_)) => {
            let namespace = &args.prefix;
            format!(
                "To query it:
  Spark      spark-sql with the catalog `ice` of type rest, uri {catalog}: SELECT count(*) FROM ice.{namespace}.{MODEL}_training
  Trino      a catalog of the Iceberg connector, rest, uri {catalog}: SELECT count(*) FROM iceberg.{namespace}.{MODEL}_training
  examples/spark and examples/trino hold the settings and the compaction."
            )
        }
        _ => format!(
            "To query it (examples/python holds these as scripts):
  pip install 'pyiceberg[sql-sqlite,pandas]' duckdb
  PyIceberg  from pyiceberg.catalog import load_catalog
             load_catalog('flywheel', type='sql', uri='sqlite:///{dir}/catalog.db').load_table('flywheel.{MODEL}_training').scan().to_pandas()
  DuckDB     python examples/python/duckdb_query.py --data-dir {dir} \"SELECT label_late15, count(*) FROM {MODEL}_training GROUP BY 1\"
  again      cargo run --release -- --fresh"
        ),
    }
}
