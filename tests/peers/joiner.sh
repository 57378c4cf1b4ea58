#!/usr/bin/env bash
# Flywheel's joiner beside Spark Structured Streaming's left outer join and the Kafka Connect Iceberg sink, on the same
# topics: CPU per million rows, memory; one table.
#   joiner.sh [--rounds N] [--predictions N] [CASE…]      see joiner/measure.py
#   joiner.sh fetch
# Takes about half an hour with all its cases, and two cores. Ends with the bars that the joiner is held to; exit code 1
# where one is missed.
# Fetches Spark's and Connect's libraries into the cache, once, and builds this repository's joiner and what fills the
# topics in release mode, unless FLYWHEEL_BIN names a folder that has flywheel-joiner and fill. Needs Java 17 with its
# compiler, Python 3.10; fetch needs Maven and pip.
. "$(dirname "$0")/../servers/common.sh"

PEERS=$(cd "$(dirname "$0")" && pwd)
ROOT=$(cd "$PEERS/../.." && pwd)
ICEBERG=1.12.0
CONNECT=connect-4.3.1-iceberg-$ICEBERG
SPARK_KAFKA=spark-kafka-4.1.3

# What Spark's own distribution lacks to read a topic of Avro.
spark_kafka() {
  local artifact
  for artifact in org.apache.spark:spark-sql-kafka-0-10_2.13:4.1.3 org.apache.spark:spark-avro_2.13:4.1.1 \
    org.apache.spark:spark-token-provider-kafka-0-10_2.13:4.1.0-preview1 org.apache.kafka:kafka-clients:3.9.1 \
    org.apache.commons:commons-pool2:2.12.1; do
    maven_copy "$1/jars" "$artifact" || return
  done
}

connect() {
  maven_tree "$1" org.apache.kafka:connect-runtime:4.3.1 "org.apache.iceberg:iceberg-kafka-connect:$ICEBERG" \
    "org.apache.iceberg:iceberg-parquet:$ICEBERG" "org.apache.iceberg:iceberg-orc:$ICEBERG" \
    org.apache.hadoop:hadoop-client-api:3.4.2 org.apache.hadoop:hadoop-client-runtime:3.4.2 \
    org.slf4j:jcl-over-slf4j:2.0.17
}

fetch() {
  "$HERE/kafka.sh" fetch
  "$HERE/spark.sh" fetch
  need_maven "the libraries of Spark and Connect"
  fetched "$SPARK_KAFKA" spark_kafka
  fetched "$CONNECT" connect
}

case "${1:-}" in
  -h | --help) usage ;;
  fetch) fetch; exit ;;
esac
fetch
"$HERE/python.sh" fetch
if [ -z "${FLYWHEEL_BIN:-}" ]; then
  (cd "$ROOT" && cargo build --release -p flywheel-joiner -p flywheel-tests --bin flywheel-joiner --bin fill)
  FLYWHEEL_BIN=${CARGO_TARGET_DIR:-$ROOT/target}/release
fi
JAVA_HOME=$(java_home 17 23)
export JAVA_HOME
[ -x "$JAVA_HOME/bin/javac" ] || die "a Java with its compiler is needed; install one (Debian: apt-get install openjdk-21-jdk-headless)"
WORK=$(mktemp -d -t flywheel-peers-XXXXXX)
trap 'rm -rf "$WORK"' EXIT
"$JAVA_HOME/bin/javac" -cp "$CACHE/$CONNECT/lib/*" -d "$WORK/converter" "$PEERS/joiner/FlatAvroConverter.java"
"$HERE/python.sh" run "$PEERS/joiner/measure.py" --bin "$FLYWHEEL_BIN" --servers "$HERE" --dir "$WORK" \
  --java "$JAVA_HOME/bin/java" --connect "$WORK/converter:$CACHE/$CONNECT/lib/*" --spark-jars "$CACHE/$SPARK_KAFKA/jars" "$@"
