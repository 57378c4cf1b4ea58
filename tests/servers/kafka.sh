#!/usr/bin/env bash
# A single-node Apache Kafka broker (KRaft).
#   kafka.sh fetch | start DIR PORT | stop DIR | hold DIR PORT      start prints host:port
# The controller listens on PORT+1. DIR/extra.properties, where present, is appended to the settings and wins.
# Environment: KAFKA_HEAP (512m), KAFKA_FORMAT_ARGS (more arguments of the first format, such as --add-scram …),
# KAFKA_LISTENERS (further ones, such as SCRAM://127.0.0.1:21005; extra.properties says what they ask for).
# Needs Java 17 or newer; fetch needs Maven.
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
  cat <<CONF
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@$LOOPBACK:$(($2 + 1))
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://$LOOPBACK:$2,CONTROLLER://$LOOPBACK:$(($2 + 1))${KAFKA_LISTENERS:+,$KAFKA_LISTENERS}
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

main "$@"
