#!/usr/bin/env bash
# DuckDB and PyIceberg, each as a reader of Iceberg tables.
#   python.sh fetch
#   python.sh duckdb | pyiceberg | bits --catalog URI --warehouse LOCATION --namespace NAME [--s3 ENDPOINT] [SQL…]
#   python.sh run SCRIPT [ARGUMENT…]          a script that imports one of them
# One JSON line a statement (see duckdb_sql.py, pyiceberg_sql.py, bits.py); without SQL, statements are read from
# standard input.
# URI is http(s)://… (REST) or sqlite:FILE. Needs Python 3.10 or newer; fetch needs pip.
. "$(dirname "$0")/common.sh"

DUCKDB=1.5.5
PYICEBERG=0.12.0
PYARROW=26.0.1
NAME=python-duckdb-$DUCKDB-pyiceberg-$PYICEBERG

copy() {
  python3 -m pip install -q --target "$1" "duckdb==$DUCKDB" "duckdb-extension-httpfs==$DUCKDB" \
    "duckdb-extension-avro==$DUCKDB" "duckdb-extension-iceberg==$DUCKDB" \
    "pyiceberg[sql-sqlite,pyarrow]==$PYICEBERG" "pyarrow==$PYARROW" pytz
}

fetch() {
  need python3 "read tables with DuckDB and PyIceberg" python3
  [ -d "$CACHE/$NAME" ] || python3 -m pip --version >/dev/null 2>&1 ||
    die "pip is needed to fetch DuckDB and PyIceberg, once; install it (Debian: apt-get install python3-pip)"
  fetched "$NAME" copy
}

read_with() {
  local reader=$1; shift
  fetch
  S3_ACCESS_KEY=$ACCESS_KEY S3_SECRET_KEY=$SECRET_KEY PYTHONPATH=$CACHE/$NAME exec python3 "$HERE/$reader.py" "$@"
}

case "${1:-}" in
  fetch) fetch ;;
  duckdb | pyiceberg) read_with "$1_sql" "${@:2}" ;;
  bits) read_with "$@" ;;
  run) shift; fetch; PYTHONPATH=$CACHE/$NAME exec python3 "$@" ;;
  *) usage ;;
esac
