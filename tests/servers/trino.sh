#!/usr/bin/env bash
# A one-node Trino with the Iceberg connector alone; its catalog is named iceberg.
#   trino.sh fetch | start DIR PORT --catalog URI --s3 ENDPOINT [options] | stop DIR | hold DIR PORT …
#   start prints the address
# Options: --warehouse NAME     what the REST catalog is asked for (warehouse)
#          --property KEY=VALUE  one more line of the catalog's properties
# Environment: TRINO_HEAP (1280m, of which a query has 768).
# Needs Java 24 or 25; fetch needs Maven and unzip.
. "$(dirname "$0")/common.sh"

TRINO=476
NAME=trino-$TRINO

copy() {
  maven_copy "$1/down" "io.trino:trino-server-core:$TRINO:tar.gz" &&
    maven_copy "$1/down" "io.trino:trino-iceberg:$TRINO:zip" && mkdir -p "$1/plugin" &&
    tar -xzf "$1/down/trino-server-core-$TRINO.tar.gz" -C "$1" "trino-server-core-$TRINO/lib" &&
    mv "$1/trino-server-core-$TRINO/lib" "$1/lib" &&
    unzip -q "$1/down/trino-iceberg-$TRINO.zip" -d "$1/plugin" &&
    rm -r "$1/down" "$1/trino-server-core-$TRINO"
}

fetch() {
  [ -d "$CACHE/$NAME" ] || { need_maven Trino; need unzip "unpack Trino's Iceberg connector" unzip; }
  fetched "$NAME" copy
}

# queries URL : whether a query runs to its end; a server that has started may still wait for its own node.
queries() {
  local page next
  page=$(curl -sf -m 10 -H 'X-Trino-User: test' -d 'SELECT count(*) FROM unnest(sequence(1, 3))' "$1/v1/statement" 2>/dev/null) || return 1
  while next=$(sed -n 's/.*"nextUri":"\([^"]*\)".*/\1/p' <<<"$page") && [ -n "$next" ]; do
    page=$(curl -sf -m 10 -H 'X-Trino-User: test' "$next" 2>/dev/null) || return 1
  done
  case "$page" in *'"error"'*) return 1 ;; *'"FINISHED"'*) ;; *) return 1 ;; esac
}

settings() { # DIR URL PORT CATALOG S3 WAREHOUSE MORE
  mkdir -p "$1/etc/catalog"
  cat >"$1/etc/config.properties" <<CONF
node.environment=test
coordinator=true
node-scheduler.include-coordinator=true
node.internal-address=$LOOPBACK
node.bind-ip=$LOOPBACK
http-server.http.port=$3
discovery.uri=$2
plugin.dir=$CACHE/$NAME/plugin
catalog.config-dir=$1/etc/catalog
query.max-memory=768MB
query.max-memory-per-node=768MB
memory.heap-headroom-per-node=128MB
CONF
  cat >"$1/etc/log.properties" <<CONF
io.trino=WARN
io.airlift=WARN
CONF
  cat >"$1/etc/catalog/iceberg.properties" <<CONF
connector.name=iceberg
iceberg.catalog.type=rest
iceberg.rest-catalog.uri=$4
iceberg.rest-catalog.warehouse=$6
iceberg.expire-snapshots.min-retention=0s
iceberg.remove-orphan-files.min-retention=0s
fs.native-s3.enabled=true
s3.endpoint=$5
s3.region=us-east-1
s3.path-style-access=true
s3.aws-access-key=$ACCESS_KEY
s3.aws-secret-key=$SECRET_KEY
$7
CONF
}

start() {
  local dir port=${2:-} catalog="" s3="" warehouse=warehouse more="" url java
  dir=$(place "$@")
  shift 2
  while [ $# -gt 0 ]; do
    case "$1" in
      --catalog) catalog=$2 ;;
      --s3) s3=$2 ;;
      --warehouse) warehouse=$2 ;;
      --property) more="$more$2"$'\n' ;;
      *) usage ;;
    esac
    shift 2
  done
  url=http://$LOOPBACK:$port
  if ! running "$dir"; then
    [ -n "$catalog" ] && [ -n "$s3" ] || usage
    need curl "see whether the server is up" curl
    java=$(java_home 24 25)/bin/java
    fetch
    free "$port"
    settings "$dir" "$url" "$port" "$catalog" "$s3" "$warehouse" "$more"
    launch "$dir" "$java" "-Xmx${TRINO_HEAP:-1280m}" -XX:+UseSerialGC -XX:TieredStopAtLevel=1 \
      -XX:+ExitOnOutOfMemoryError -Djdk.attach.allowAttachSelf=true --enable-native-access=ALL-UNNAMED \
      --sun-misc-unsafe-memory-access=allow --add-modules=jdk.incubator.vector \
      -Dconfig="$dir/etc/config.properties" -Dlog.levels-file="$dir/etc/log.properties" \
      -cp "$CACHE/$NAME/lib/*" io.trino.server.TrinoServer
    await "$dir" 180 answers "$url/v1/info" '"starting":false'
    await "$dir" 60 queries "$url"
  fi
  echo "$url"
}

main "$@"
