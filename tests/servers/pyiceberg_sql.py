"""What PyIceberg reads from a table, questioned with SQL.

A statement is `TABLE: SQL`: PyIceberg scans the whole of TABLE into Arrow, and DuckDB, which sees nothing but that,
answers the SQL, in which the table is called `scanned`. Answers are JSON lines, as spark.py gives them.
"""

import argparse
import os
import sys

import duckdb
from answers import answer, serve
from pyiceberg.catalog import load_catalog


def catalog(args):
    if args.catalog.startswith("sqlite:"):
        path = os.path.abspath(args.catalog.removeprefix("sqlite:"))
        # The name is the one under which the catalog keeps its rows.
        return load_catalog("flywheel", type="sql", uri=f"sqlite:///{path}", warehouse=args.warehouse)
    properties = {"type": "rest", "uri": args.catalog, "warehouse": args.warehouse}
    if args.s3:
        properties |= {
            "s3.endpoint": args.s3,
            "s3.access-key-id": os.environ.get("S3_ACCESS_KEY", "test"),
            "s3.secret-access-key": os.environ.get("S3_SECRET_KEY", "testsecret"),
            "s3.region": "us-east-1",
            "s3.path-style-access": "true",
        }
    return load_catalog("rest", **properties)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--catalog", required=True)
    parser.add_argument("--warehouse", default="warehouse")
    parser.add_argument("--namespace", default="flywheel")
    parser.add_argument("--s3", default="")
    parser.add_argument("sql", nargs="*")
    args = parser.parse_args()
    tables = catalog(args)
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")

    def query(statement):
        name, sql = statement.split(":", 1)
        scanned = tables.load_table(f"{args.namespace}.{name.strip()}").scan().to_arrow()
        connection.register("scanned", scanned)
        result = connection.execute(sql)
        return [column[0] for column in result.description or []], [list(row) for row in result.fetchall()]

    if args.sql:
        return 0 if all(answer(query, sql) for sql in args.sql) else 1
    serve(query)
    return 0


if __name__ == "__main__":
    sys.exit(main())
