"""The join that one would write with Spark Structured Streaming: predictions left outer join their outcomes, to Iceberg.

One query, from the topics' beginning to their end, with the watermarks that the join needs and nothing against duplicates. Prints
one JSON line: CPU seconds of the JVM from the query's start to its end, the greatest resident memory of the JVM, and the seconds.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from pyspark.sql.avro.functions import from_avro

BLOCKS = ("entity", "features", "prediction", "decision", "context")
# An outcome that is later than this behind the newest is not waited for.
DELAY = "5 seconds"


def session(options):
    folders = [os.environ["SPARK_JARS"], options.jars]
    jars = [os.path.join(folder, name) for folder in folders for name in sorted(os.listdir(folder)) if name.endswith(".jar")]
    settings = {
        "spark.jars": ",".join(jars),
        "spark.sql.catalog.ice": "org.apache.iceberg.spark.SparkCatalog",
        "spark.sql.catalog.ice.type": "hadoop",
        "spark.sql.catalog.ice.warehouse": f"{options.dir}/warehouse",
        "spark.sql.extensions": "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.shuffle.partitions": "2",
        "spark.sql.warehouse.dir": f"{options.dir}/spark-warehouse",
        "spark.local.dir": f"{options.dir}/local",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.memory": options.heap,
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
    }
    builder = SparkSession.builder.master("local[2]").appName("join")
    for key, value in settings.items():
        builder = builder.config(key, value)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    return spark


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("brokers", "prefix", "schemas", "dir", "jars"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--heap", default="6g")
    parser.add_argument("--per-trigger", type=int, default=200_000, help="predictions of a micro-batch")
    options = parser.parse_args()
    spark = session(options)
    pid = spark.sparkContext._jvm.java.lang.ProcessHandle.current().pid()

    def source(kind, share):
        rows = (
            spark.readStream.format("kafka")
            .option("kafka.bootstrap.servers", options.brokers)
            .option("subscribe", f"{options.prefix}.bench.{kind}")
            .option("startingOffsets", "earliest")
            .option("maxOffsetsPerTrigger", int(options.per_trigger * share))
            .load()
        )
        schema = Path(options.schemas, f"{kind}.avsc").read_text()
        rows = rows.where("value IS NOT NULL").select(from_avro(F.expr("substring(value, 6)"), schema).alias("it"))
        return rows.select("it.*")

    # A fifth of the predictions have an outcome: both topics come to their ends together.
    predictions = source("predictions", 1.0)
    blocks = [f"{block}.{name}" for block in BLOCKS for name in predictions.schema[block].dataType.names]
    predictions = predictions.select("prediction_id", "event_time", "model_version", "latency_us", *blocks)
    predictions = predictions.withWatermark("event_time", DELAY)
    outcomes = source("outcomes", 0.205).select(
        F.col("prediction_id").alias("outcome_of"), F.col("event_time").alias("label_good_at"), F.col("label.good").alias("label_good")
    )
    outcomes = outcomes.withWatermark("label_good_at", DELAY)
    in_window = "prediction_id = outcome_of AND label_good_at >= event_time AND label_good_at <= event_time + INTERVAL 30 SECONDS"
    joined = predictions.join(outcomes, F.expr(in_window), "leftOuter").drop("outcome_of")
    spark.sql("CREATE NAMESPACE IF NOT EXISTS ice.db")
    columns = ", ".join(f"{field.name} {field.dataType.simpleString()}" for field in joined.schema.fields)
    properties = "'format-version'='2', 'write.parquet.compression-codec'='zstd'"
    spark.sql(f"CREATE TABLE ice.db.joined ({columns}) USING iceberg TBLPROPERTIES ({properties})")

    clock = (~pid << 3) | 2  # the CPU clock of another process, as clock_getcpuclockid(3) names it on Linux
    cpu, start = time.clock_gettime(clock), time.monotonic()
    writer = joined.writeStream.format("iceberg").outputMode("append").option("fanout-enabled", "true")
    query = writer.option("checkpointLocation", f"{options.dir}/checkpoint").trigger(availableNow=True).toTable("ice.db.joined")
    query.awaitTermination()
    cpu, seconds = time.clock_gettime(clock) - cpu, time.monotonic() - start
    with open(f"/proc/{pid}/status") as status:
        rss = next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))
    print(json.dumps({"cpu_s": cpu, "rss_mb": rss, "seconds": seconds}), flush=True)
    spark.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
