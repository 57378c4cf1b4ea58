#!/usr/bin/env bash
# A schema registry: Apicurio Registry with its Confluent-compatible API.
#   registry.sh fetch | start DIR PORT | stop DIR | hold DIR PORT      start prints the base URL of the API
# DIR/extra.properties, where present, is appended to the settings and wins.
# Environment: REGISTRY_HEAP (384m), REGISTRY_AUTH (user:password; where set, every request must carry it), REGISTRY_TLS
# (where set, HTTPS alone, with the certificate DIR/ca.pem, made at the first start).
# Needs Java 21 or newer; fetch needs Maven.
. "$(dirname "$0")/common.sh"

REGISTRY=3.3.3
NAME=registry-$REGISTRY
API=/apis/ccompat/v7

copy() {
  maven_copy "$1" "io.apicurio:apicurio-registry-app:$REGISTRY:tar.gz:all" &&
    tar -xzf "$1"/*.tar.gz -C "$1" && rm "$1"/*.tar.gz
}

fetch() {
  [ -d "$CACHE/$NAME" ] || need_maven "the schema registry"
  fetched "$NAME" copy
}

# certificate DIR JAVA : a key for this address in DIR/key.p12, its certificate in DIR/ca.pem.
certificate() {
  local tool=${2%java}keytool store=(-keystore "$1/key.p12" -storetype PKCS12 -storepass changeit -alias registry)
  [ ! -f "$1/ca.pem" ] || return 0
  rm -f "$1/key.p12"
  "$tool" -genkeypair -keyalg EC -groupname secp256r1 -validity 3650 -dname CN=registry -ext "san=ip:$LOOPBACK" \
    -ext eku=serverAuth "${store[@]}" >>"$1/log" 2>&1 || die "cannot make a key; see $1/log"
  "$tool" -exportcert -rfc "${store[@]}" >"$1/ca.pem" 2>>"$1/log" || die "cannot write $1/ca.pem; see $1/log"
}

settings() { # DIR PORT
  cat <<CONF
quarkus.http.host=$LOOPBACK
# The health and metrics port, which is 9000 unless told: any free one.
quarkus.management.host=$LOOPBACK
quarkus.management.port=0
quarkus.http.access-log.enabled=false
apicurio.storage.sql.kind=h2
apicurio.datasource.url=jdbc:h2:file:$1/data/registry;WRITE_DELAY=0
apicurio.datasource.jdbc.initial-size=2
apicurio.datasource.jdbc.min-size=2
apicurio.datasource.jdbc.max-size=20
CONF
  [ -z "${REGISTRY_TLS:-}" ] || cat <<CONF
quarkus.http.insecure-requests=disabled
quarkus.http.ssl-port=$2
quarkus.http.ssl.certificate.key-store-file=$1/key.p12
quarkus.http.ssl.certificate.key-store-password=changeit
CONF
  [ -n "${REGISTRY_TLS:-}" ] || echo "quarkus.http.port=$2"
  [ -z "${REGISTRY_AUTH:-}" ] || cat <<CONF
quarkus.http.auth.basic=true
quarkus.security.users.embedded.plain-text=true
quarkus.security.users.embedded.users.${REGISTRY_AUTH%%:*}=${REGISTRY_AUTH#*:}
quarkus.security.users.embedded.roles.${REGISTRY_AUTH%%:*}=sr-admin
CONF
  [ ! -f "$1/extra.properties" ] || cat "$1/extra.properties"
}

call() { # DIR ARGUMENT...
  local dir=$1; shift
  curl -sf -m 5 ${REGISTRY_TLS:+--cacert "$dir/ca.pem"} -u "${REGISTRY_AUTH:-none:}" -o /dev/null "$@" 2>/dev/null
}

start() {
  local dir port=${2:-} java url
  dir=$(place "$@")
  url=http${REGISTRY_TLS:+s}://$LOOPBACK:$port$API
  if ! running "$dir"; then
    need curl "see whether the server is up" curl
    java=$(java_home 21 25)/bin/java
    fetch
    free "$port"
    [ -z "${REGISTRY_TLS:-}" ] || certificate "$dir" "$java"
    settings "$dir" "$port" >"$dir/registry.properties"
    launch "$dir" "$java" "-Xmx${REGISTRY_HEAP:-384m}" -XX:+UseSerialGC -XX:TieredStopAtLevel=1 \
      "-Dquarkus.config.locations=$dir/registry.properties" -jar "$CACHE/$NAME/quarkus-run.jar"
    await "$dir" 60 call "$dir" "$url/subjects"
    # A new one checks nothing; Confluent's checks BACKWARD until told otherwise.
    if [ ! -f "$dir/data/configured" ]; then
      call "$dir" -X PUT -H 'Content-Type: application/json' -d '{"compatibility":"BACKWARD"}' "$url/config" ||
        die "cannot set the compatibility; see $dir/log"
      : >"$dir/data/configured"
    fi
  fi
  echo "$url"
}

main "$@"
