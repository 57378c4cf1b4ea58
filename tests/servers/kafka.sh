#!/usr/bin/env bash
# An Apache Kafka broker (KRaft).
#   kafka.sh fetch | start DIR PORT | stop DIR | hold DIR PORT      start prints host:port
#   kafka.sh admin HOST:PORT ARGUMENT...                            what KafkaAdmin.java does
# The controller listens on PORT+1. DIR/extra.properties, where present, is appended to the settings and wins.
# Environment: KAFKA_HEAP (512m), KAFKA_FORMAT_ARGS (more arguments of the first format, such as --add-scram …),
# KAFKA_LISTENERS (further ones, such as SCRAM://127.0.0.1:21005; extra.properties says what they ask for), KAFKA_NODE (1)
# and KAFKA_CONTROLLER (host:port of node 1's controller): a further broker of that cluster, without a controller.
# Needs Java 17 or newer, for admin with its compiler; fetch needs Maven.
. "$(dirname "$0")/common.sh"

KAFKA=4.4.0
NAME=kafka-$KAFKA
CLUSTER=Zmx5d2hlZWwtdGVzdC1rYQ # one id for every node, so that several can form a cluster

copy() {
  # kafka-tools-api is of no use to a broker, and 4.4.0 was published without it.
  maven_tree "$1" "org.apache.kafka:kafka_2.13:$KAFKA!org.apache.kafka:kafka-tools-api" \
    org.apache.logging.log4j:log4j-slf4j-impl:2.25.5
}

fetch() {
  [ -d "$CACHE/$NAME" ] || need_maven Kafka
  fetched "$NAME" copy
}

settings() { # DIR PORT
  local own=$LOOPBACK:$(($2 + 1)) listeners=PLAINTEXT://$LOOPBACK:$2${KAFKA_LISTENERS:+,$KAFKA_LISTENERS}
  if [ -n "${KAFKA_CONTROLLER:-}" ]; then
    echo process.roles=broker
  else
    echo process.roles=broker,controller
    listeners=$listeners,CONTROLLER://$own
  fi
  cat <<CONF
node.id=${KAFKA_NODE:-1}
controller.quorum.voters=1@${KAFKA_CONTROLLER:-$own}
controller.listener.names=CONTROLLER
listeners=$listeners
log.dirs=$1/data
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1
group.initial.rebalance.delay.ms=0
# After a kill -9 a restarted broker waits until its former session has run out.
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=500
# A small machine: few threads, and no 128 MiB buffer for the log cleaner.
num.network.threads=2
num.io.threads=4
log.cleaner.dedupe.buffer.size=4194304
CONF
  [ ! -f "$1/extra.properties" ] || cat "$1/extra.properties"
}

logging() {
  cat <<CONF
rootLogger.level=WARN
rootLogger.appenderRef.out.ref=OUT
appender.out.type=Console
appender.out.name=OUT
appender.out.layout.type=PatternLayout
appender.out.layout.pattern=%d{ISO8601} %p %c{1} %m%n
CONF
}

start() {
  local dir port=${2:-} java format
  dir=$(place "$@")
  if ! running "$dir"; then
    java=$(java_home 17 25)/bin/java
    fetch
    free "$port" $((port + 1))
    settings "$dir" "$port" >"$dir/server.properties"
    logging >"$dir/log4j2.properties"
    java=("$java" "-Xmx${KAFKA_HEAP:-512m}" -Xms64m -XX:+UseSerialGC -XX:TieredStopAtLevel=1
      "-Dlog4j2.configurationFile=$dir/log4j2.properties" -cp "$CACHE/$NAME/lib/*")
    if [ ! -f "$dir/data/meta.properties" ]; then
      read -ra format <<<"${KAFKA_FORMAT_ARGS:-}"
      "${java[@]}" kafka.tools.StorageTool format -t "$CLUSTER" -c "$dir/server.properties" \
        ${format[@]+"${format[@]}"} >"$dir/log" 2>&1 || { cat "$dir/log" >&2; die "cannot format $dir/data"; }
    fi
    launch "$dir" "${java[@]}" kafka.Kafka "$dir/server.properties"
    await "$dir" 60 listening "$port" # the port opens only when the broker is ready
  fi
  echo "$LOOPBACK:$port"
}

admin() {
  local java
  java=$(java_home 17 25)/bin/java
  "$java" --list-modules | grep -q '^jdk.compiler' ||
    die "admin needs a Java with its compiler; install one (Debian: apt-get install openjdk-21-jdk-headless)"
  fetch
  "$java" -XX:TieredStopAtLevel=1 -cp "$CACHE/$NAME/lib/*" "$HERE/KafkaAdmin.java" "$@" 2>&1
}

if [ "${1:-}" = admin ]; then shift; admin "$@"; else main "$@"; fi
