"""SQL in a local Spark session whose default catalog, `ice`, is an Iceberg REST catalog over S3.

One JSON object a statement on standard output: {"columns": [...], "rows": [[...]]} or {"error": "..."}. Statements
are arguments (the first error ends it, exit status 1), else lines of standard input (an error is an answer like any
other). `{"ready": true}` comes first in the second case.
"""

import argparse
import os
import sys
import tempfile

from answers import answer, serve
from pyspark.sql import SparkSession


def catalog(uri, endpoint, warehouse):
    """The settings of the catalog `ice`."""
    prefix = "spark.sql.catalog.ice"
    options = {
        "type": "rest",
        "uri": uri,
        "warehouse": warehouse,
        "io-impl": "org.apache.iceberg.aws.s3.S3FileIO",
        "s3.endpoint": endpoint,
        "s3.path-style-access": "true",
        "s3.access-key-id": os.environ.get("S3_ACCESS_KEY", "test"),
        "s3.secret-access-key": os.environ.get("S3_SECRET_KEY", "testsecret"),
        "client.region": "us-east-1",
        # Another process writes the tables: each query shall see the newest snapshot.
        "cache-enabled": "false",
    }
    settings = {f"{prefix}.{key}": value for key, value in options.items()}
    return {prefix: "org.apache.iceberg.spark.SparkCatalog", "spark.sql.defaultCatalog": "ice"} | settings


def session(args):
    jars = (os.path.join(args.jars, name) for name in sorted(os.listdir(args.jars)))
    settings = catalog(args.catalog, args.s3, args.warehouse) | {
        "spark.jars": ",".join(jars),
        "spark.sql.extensions": "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.shuffle.partitions": "2",
        "spark.sql.warehouse.dir": os.path.join(tempfile.gettempdir(), "spark-warehouse"),
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.memory": "1g",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
    }
    settings |= dict(item.split("=", 1) for item in args.conf)
    builder = SparkSession.builder.master("local[2]").appName("sql")
    for key, value in settings.items():
        builder = builder.config(key, value)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    return spark


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--catalog", required=True)
    parser.add_argument("--s3", required=True)
    parser.add_argument("--jars", required=True)
    parser.add_argument("--warehouse", default="warehouse")
    parser.add_argument("--conf", action="append", default=[])
    parser.add_argument("sql", nargs="*")
    args = parser.parse_args()
    spark = session(args)

    def query(sql):
        frame = spark.sql(sql)
        return frame.columns, [list(row) for row in frame.collect()]

    try:
        if args.sql:
            return 0 if all(answer(query, sql) for sql in args.sql) else 1
        serve(query)
        return 0
    finally:
        spark.stop()


if __name__ == "__main__":
    sys.exit(main())
