"""SQL in DuckDB over the tables of one Iceberg namespace, which are there under their plain names.

A REST catalog is attached as DuckDB does it. For a SQLite catalog, which DuckDB cannot attach, a view per table is
made from the catalog's own rows, anew before each statement. Answers are JSON lines, as spark.py gives them.
"""

import argparse
import importlib.util
import os
import sqlite3
import sys

import duckdb
from answers import answer, serve


def extension(name):
    """The file of an extension that a Python package carries, so that nothing is downloaded at run time."""
    root = os.path.dirname(importlib.util.find_spec(f"duckdb_extension_{name}").origin)
    return os.path.join(root, "extensions", f"v{duckdb.__version__}", f"{name}.duckdb_extension")


def quoted(text):
    return "'" + text.replace("'", "''") + "'"


def connect(args):
    connection = duckdb.connect()
    for name in ("httpfs", "avro", "iceberg"):
        connection.execute(f"LOAD {quoted(extension(name))}")
    connection.execute("SET TimeZone = 'UTC'")
    if args.s3:
        connection.execute(
            f"""CREATE SECRET (TYPE s3, KEY_ID {quoted(os.environ.get("S3_ACCESS_KEY", "test"))},
            SECRET {quoted(os.environ.get("S3_SECRET_KEY", "testsecret"))}, REGION 'us-east-1', URL_STYLE 'path',
            ENDPOINT {quoted(args.s3.split("//", 1)[-1])}, USE_SSL {str(args.s3.startswith("https")).lower()})"""
        )
    if not args.catalog.startswith("sqlite:"):
        connection.execute(
            f"""ATTACH {quoted(args.warehouse)} AS ice
            (TYPE iceberg, ENDPOINT {quoted(args.catalog)}, AUTHORIZATION_TYPE 'none')"""
        )
        connection.execute(f'USE ice."{args.namespace}"')
    return connection


def refresh(connection, catalog, namespace):
    """A view per table of the SQLite catalog, over its newest metadata."""
    with sqlite3.connect(f"file:{catalog.removeprefix('sqlite:')}?mode=ro", uri=True) as rows:
        tables = rows.execute(
            "SELECT table_name, metadata_location FROM iceberg_tables WHERE table_namespace = ?", (namespace,)
        ).fetchall()
    for name, location in tables:
        location = location.removeprefix("file://")
        connection.execute(f'CREATE OR REPLACE VIEW "{name}" AS SELECT * FROM iceberg_scan({quoted(location)})')


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--catalog", required=True)
    parser.add_argument("--warehouse", default="warehouse")
    parser.add_argument("--namespace", default="flywheel")
    parser.add_argument("--s3", default="")
    parser.add_argument("sql", nargs="*")
    args = parser.parse_args()
    connection = connect(args)

    def query(sql):
        if args.catalog.startswith("sqlite:"):
            refresh(connection, args.catalog, args.namespace)
        result = connection.execute(sql)
        return [column[0] for column in result.description or []], [list(row) for row in result.fetchall()]

    if args.sql:
        return 0 if all(answer(query, sql) for sql in args.sql) else 1
    serve(query)
    return 0


if __name__ == "__main__":
    sys.exit(main())
