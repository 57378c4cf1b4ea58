#!/usr/bin/env bash
# An Iceberg REST catalog: Iceberg's own server over its JDBC catalog in DIR/catalog.db (SQLite).
#   rest-catalog.sh fetch | start DIR PORT [options] | stop DIR | hold DIR PORT [options]      start prints its URI
# Options: --s3 ENDPOINT  tables lie there (else in DIR/warehouse)   --warehouse LOCATION  s3://warehouse/ unless named
#          --vend         puts the S3 keys into each load-table answer
# It listens on every interface and asks nobody who they are: for tests alone.
# Needs Java 17 to 25 (to 23 without --s3); fetch needs Maven.
. "$(dirname "$0")/common.sh"

ICEBERG=1.11.0
JETTY=12.1.5
NAME=rest-catalog-$ICEBERG

copy() {
  maven_tree "$1" org.apache.iceberg:iceberg-open-api:$ICEBERG:test-fixtures \
    org.apache.iceberg:iceberg-core:$ICEBERG org.apache.iceberg:iceberg-core:$ICEBERG:tests \
    org.apache.iceberg:iceberg-aws:$ICEBERG org.apache.iceberg:iceberg-aws-bundle:$ICEBERG \
    org.eclipse.jetty:jetty-server:$JETTY org.eclipse.jetty.ee10:jetty-ee10-servlet:$JETTY \
    org.eclipse.jetty.compression:jetty-compression-server:$JETTY \
    org.eclipse.jetty.compression:jetty-compression-gzip:$JETTY \
    org.apache.hadoop:hadoop-client-runtime:3.4.2 org.xerial:sqlite-jdbc:3.50.3.0 org.slf4j:slf4j-simple:2.0.17
}

fetch() {
  [ -d "$CACHE/$NAME" ] || need_maven "the REST catalog"
  fetched "$NAME" copy
}

start() {
  local dir port=${2:-} s3="" warehouse="" vend=false java url
  dir=$(place "$@")
  shift 2
  while [ $# -gt 0 ]; do
    case "$1" in
      --s3) s3=$2; shift 2 ;;
      --warehouse) warehouse=$2; shift 2 ;;
      --vend) vend=true; shift ;;
      *) usage ;;
    esac
  done
  url=http://$LOOPBACK:$port
  if ! running "$dir"; then
    need curl "see whether the server is up" curl
    # Hadoop's local file system does not run on Java 24 and newer.
    java=$(java_home 17 "$([ -n "$s3" ] && echo 25 || echo 23)")/bin/java
    fetch
    free "$port"
    export CATALOG_REST_PORT=$port CATALOG_URI=jdbc:sqlite:$dir/catalog.db
    if [ -n "$s3" ]; then
      export CATALOG_WAREHOUSE=${warehouse:-s3://warehouse/} CATALOG_CLIENT_REGION=us-east-1
      export CATALOG_IO__IMPL=org.apache.iceberg.aws.s3.S3FileIO CATALOG_INCLUDE__CREDENTIALS=$vend
      export CATALOG_S3_ENDPOINT=$s3 CATALOG_S3_PATH__STYLE__ACCESS=true
      export CATALOG_S3_ACCESS__KEY__ID=$ACCESS_KEY CATALOG_S3_SECRET__ACCESS__KEY=$SECRET_KEY
    else
      export CATALOG_WAREHOUSE=${warehouse:-$dir/warehouse} CATALOG_IO__IMPL=org.apache.iceberg.hadoop.HadoopFileIO
    fi
    launch "$dir" "$java" -Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 \
      -cp "$CACHE/$NAME/lib/*" org.apache.iceberg.rest.RESTCatalogServer
    await "$dir" 60 answers "$url/v1/config" endpoints
  fi
  echo "$url"
}

main "$@"
