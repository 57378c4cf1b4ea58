"""SQL in DuckDB over the tables of the demonstration.

    pip install duckdb
    python duckdb_query.py [--data-dir flywheel-data] "SELECT label_late15, count(*) FROM flight_delay_training GROUP BY 1"

The tables of a REST catalog need no script: ATTACH 'warehouse' AS ice (TYPE iceberg, ENDPOINT 'http://…').
"""

import argparse
import os
import sqlite3

import duckdb


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", default="flywheel-data")
    parser.add_argument("sql")
    args = parser.parse_args()

    connection = duckdb.connect()
    connection.install_extension("iceberg")
    connection.load_extension("iceberg")
    # DuckDB attaches no SQLite catalog, but reads a table by the metadata file that the catalog names.
    with sqlite3.connect(os.path.join(args.data_dir, "catalog.db")) as catalog:
        for name, location in catalog.execute("SELECT table_name, metadata_location FROM iceberg_tables"):
            location = location.removeprefix("file://")
            connection.execute(f"CREATE VIEW {name} AS SELECT * FROM iceberg_scan('{location}')")
    connection.sql(args.sql).show()


if __name__ == "__main__":
    main()
