#!/usr/bin/env bash
# The Python client (examples/python/flywheel-client) in a Python that has what its tests and its bench need.
#   python-client.sh fetch
#   python-client.sh run ARGUMENT…     python3 ARGUMENT…, in the folder of the package
# Needs Python 3.10 or newer; fetch needs pip.
. "$(dirname "$0")/common.sh"

ORJSON=3.13.0
REQUESTS=2.34.2
GUNICORN=27.0.1
PYTEST=9.2.0
MYPY=2.4.1
PACKAGE=$(cd "$HERE/../../examples/python/flywheel-client" && pwd)

# Wheels are for one minor version of Python.
name() { echo "python-client-$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')-orjson-$ORJSON-pytest-$PYTEST"; }

copy() {
  python3 -m pip install -q --target "$1" "orjson==$ORJSON" "requests==$REQUESTS" "gunicorn==$GUNICORN" \
    "pytest==$PYTEST" "mypy==$MYPY" numpy
}

fetch() {
  need python3 "run the Python client" python3
  [ -d "$CACHE/$(name)" ] || python3 -m pip --version >/dev/null 2>&1 ||
    die "pip is needed to fetch pytest and others, once; install it (Debian: apt-get install python3-pip)"
  fetched "$(name)" copy
}

run() {
  fetch
  cd "$PACKAGE"
  # No caches of byte code among the sources.
  PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=$PACKAGE/src:$CACHE/$(name) exec python3 "$@"
}

case "${1:-}" in
  fetch) fetch ;;
  run) shift; run "$@" ;;
  *) usage ;;
esac
