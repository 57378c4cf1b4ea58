#!/usr/bin/env bash
# An S3 object store with conditional writes (If-None-Match, If-Match).
#   s3.sh fetch | start DIR PORT [BUCKET…] | stop DIR | hold DIR PORT [BUCKET…]      start prints the endpoint
# The bucket "warehouse" is made unless others are named. Keys S3_ACCESS_KEY and S3_SECRET_KEY, region us-east-1,
# path-style addresses. Objects are plain files under DIR/data.
# Environment: S3_KIND, versitygw (default) or minio. fetch builds it with Go.
. "$(dirname "$0")/common.sh"

KIND=${S3_KIND:-versitygw}
case "$KIND" in
  versitygw) PACKAGE=github.com/versity/versitygw/cmd/versitygw@v1.8.0 ;;
  minio) PACKAGE=github.com/minio/minio@v0.0.0-20260212201848-7aac2a2c5b7c ;;
  *) die "S3_KIND is versitygw or minio, not $KIND" ;;
esac
NAME=$KIND-${PACKAGE##*@}

build() { CGO_ENABLED=0 GOBIN=$1 go install "$PACKAGE"; }

fetch() {
  [ -d "$CACHE/$NAME" ] || need go "build the S3 server, once" golang
  fetched "$NAME" build
}

start() {
  local dir port=${2:-} bucket url health
  dir=$(place "$@")
  shift 2
  url=http://$LOOPBACK:$port
  if ! running "$dir"; then
    need curl "see whether the server is up" curl
    fetch
    free "$port"
    for bucket in "${@:-warehouse}"; do mkdir -p "$dir/data/$bucket"; done
    case "$KIND" in
      versitygw)
        health=/health
        export ROOT_ACCESS_KEY=$ACCESS_KEY ROOT_SECRET_KEY=$SECRET_KEY
        launch "$dir" "$CACHE/$NAME/versitygw" --quiet --port "$LOOPBACK:$port" --health "$health" posix "$dir/data"
        ;;
      minio)
        health=/minio/health/ready
        export MINIO_ROOT_USER=$ACCESS_KEY MINIO_ROOT_PASSWORD=$SECRET_KEY MINIO_BROWSER=off
        launch "$dir" "$CACHE/$NAME/minio" server --quiet --address "$LOOPBACK:$port" "$dir/data"
        ;;
    esac
    await "$dir" 30 answers "$url$health" ""
  fi
  echo "$url"
}

main "$@"
