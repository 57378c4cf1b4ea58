#!/usr/bin/env bash
# Spark SQL with Iceberg, in one local process; nothing listens.
#   spark.sh fetch
#   spark.sh sql --catalog URI --s3 ENDPOINT [--warehouse NAME] [--conf KEY=VALUE]… [SQL…]
#   spark.sh run SCRIPT [ARGUMENT…]           a script that imports pyspark; SPARK_JARS names the folder of Iceberg's jars
# One JSON line a statement (see spark.py); without SQL, statements are read from standard input, one a line, so that
# one session can be kept and fed. Needs Java 17 to 23 (its Hadoop does not run on newer ones) and Python 3.10 or newer;
# fetch needs Maven and pip.
. "$(dirname "$0")/common.sh"

PYSPARK=4.1.4
ICEBERG=1.12.0
NAME=spark-$PYSPARK-iceberg-$ICEBERG

copy() {
  maven_copy "$1/jars" "org.apache.iceberg:iceberg-spark-runtime-4.1_2.13:$ICEBERG" &&
    maven_copy "$1/jars" "org.apache.iceberg:iceberg-aws-bundle:$ICEBERG" &&
    python3 -m pip install -q --target "$1/python" "pyspark==$PYSPARK"
}

fetch() {
  need python3 "run Spark's sessions" python3
  [ -d "$CACHE/$NAME" ] || {
    need_maven "Iceberg's Spark runtime"
    python3 -m pip --version >/dev/null 2>&1 || die "pip is needed to fetch PySpark, once; install it (Debian: apt-get install python3-pip)"
  }
  fetched "$NAME" copy
}

sql() {
  JAVA_HOME=$(java_home 17 23)
  export JAVA_HOME
  fetch
  S3_ACCESS_KEY=$ACCESS_KEY S3_SECRET_KEY=$SECRET_KEY SPARK_HOME=$CACHE/$NAME/python/pyspark \
    PYTHONPATH=$CACHE/$NAME/python exec python3 "$HERE/spark.py" --jars "$CACHE/$NAME/jars" "$@"
}

run() {
  JAVA_HOME=$(java_home 17 23)
  export JAVA_HOME
  fetch
  SPARK_HOME=$CACHE/$NAME/python/pyspark SPARK_JARS=$CACHE/$NAME/jars PYTHONPATH=$CACHE/$NAME/python exec python3 "$@"
}

case "${1:-}" in fetch | sql | run) "$@" ;; *) usage ;; esac
