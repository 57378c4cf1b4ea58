#!/usr/bin/env bash
# Flywheel's sidecar beside the KServe agent with its logger: CPU per logged prediction, memory, losses; one table.
#   kserve.sh [--rounds N] [--seconds N] [--minute N] [CASE…]      see kserve/measure.py
# Takes a quarter of an hour with all its cases, and two cores. Load goes to 127.0.0.1 alone. Ends with the bars that the
# sidecar is held to; exit code 1 where one is missed.
# Builds the agent from its Go module into the cache, once, and this repository's sidecar in release mode, unless
# FLYWHEEL_BIN names a folder that has flywheel-sidecar and flywheel-schemas. Needs Go 1.25, Java 17, Python 3.10,
# util-linux (taskset).
. "$(dirname "$0")/../servers/common.sh"

AGENT=v0.20.0
MODULE=github.com/kserve/kserve
NAME=kserve-agent-$AGENT
PEERS=$(cd "$(dirname "$0")" && pwd)
ROOT=$(cd "$PEERS/../.." && pwd)

# Built as the main module, since its go.mod replaces some of what it requires.
agent() {
  local source
  cd "$1"
  go mod init agent
  source=$(GOFLAGS=-mod=mod go mod download -json "$MODULE@$AGENT" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
  cp "$source/go.mod" agent.mod
  cp "$source/go.sum" agent.sum
  chmod u+w agent.mod agent.sum
  cd "$source"
  go build -mod=mod -modfile="$1/agent.mod" -trimpath -o "$1/agent" ./cmd/agent
}

case "${1:-}" in -h | --help) usage ;; esac
need go "build the KServe agent" golang
need taskset "give each side a core" util-linux
fetched "$NAME" agent
if [ -z "${FLYWHEEL_BIN:-}" ]; then
  (cd "$ROOT" && cargo build --release -p flywheel-sidecar -p flywheel-schemas --bins)
  FLYWHEEL_BIN=${CARGO_TARGET_DIR:-$ROOT/target}/release
fi
WORK=$(mktemp -d -t flywheel-peers-XXXXXX)
trap 'rm -rf "$WORK"' EXIT
(cd "$PEERS/kserve" && go build -o "$WORK/around" .)
python3 "$PEERS/kserve/measure.py" --agent "$CACHE/$NAME/agent" --around "$WORK/around" --bin "$FLYWHEEL_BIN" \
  --servers "$HERE" --dir "$WORK" "$@"
