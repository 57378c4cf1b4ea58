"""Reads a table of the demonstration with PyIceberg.

    pip install 'pyiceberg[sql-sqlite,pandas]'
    python pyiceberg_query.py [--data-dir flywheel-data] [--table flight_delay_training]

A training set as of an instant is reproducible: rows are never changed, and `flywheel.complete-through` says up to
which instant the table is complete.
"""

import argparse
import os

from pyiceberg.catalog import load_catalog


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", default="flywheel-data")
    parser.add_argument("--table", default="flight_delay_training")
    parser.add_argument("--as-of", help="only rows known by then, such as 2013-02-01T00:00:00+00:00")
    args = parser.parse_args()

    path = os.path.abspath(os.path.join(args.data_dir, "catalog.db"))
    catalog = load_catalog("flywheel", type="sql", uri=f"sqlite:///{path}")
    table = catalog.load_table(f"flywheel.{args.table}")
    print("complete through", table.properties.get("flywheel.complete-through", "nothing yet"))

    rows = table.scan(row_filter=f"as_of <= '{args.as_of}'") if args.as_of else table.scan()
    print(rows.to_pandas())


if __name__ == "__main__":
    main()
