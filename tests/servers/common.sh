# What the server scripts beside this file share; sourced by them, never run. Each script defines
#   fetch                      downloads its server into the cache, once
#   start DIR PORT [options]   starts it on 127.0.0.1:PORT with its data in DIR, prints its address once it answers
# and ends with `main "$@"`, which adds
#   stop DIR                   stops it; the data stays in DIR and the next start goes on from there
#   hold DIR PORT [options]    start, then wait for the end of standard input, then stop: a server that cannot outlive
#                              the process at the other end of the pipe, however that one ends
# DIR/log holds what the server prints, DIR/pid its process id. Errors are one line on standard error, after the last
# lines of the log where a server did not come up.
#
# Environment: FLYWHEEL_CACHE (~/.cache/flywheel), JAVA_HOME (else the newest fitting Java under /usr/lib/jvm),
# S3_ACCESS_KEY (test), S3_SECRET_KEY (testsecret).
set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
CACHE=${FLYWHEEL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/flywheel}
mkdir -p "$CACHE"
CACHE=$(cd "$CACHE" && pwd)
ACCESS_KEY=${S3_ACCESS_KEY:-test}
SECRET_KEY=${S3_SECRET_KEY:-testsecret}
LOOPBACK=127.0.0.1

die() { echo "${0##*/}: $*" >&2; exit 1; }

# need COMMAND PURPOSE PACKAGE
need() { command -v "$1" >/dev/null 2>&1 || die "$1 is needed to $2; install it (Debian: apt-get install $3)"; }

# java_major HOME : the major version of the Java in HOME, from its release file where it has one.
java_major() {
  local version=""
  [ -x "$1/bin/java" ] || return 1
  [ -f "$1/release" ] && version=$(sed -n 's/^JAVA_VERSION="\([0-9]*\).*/\1/p' "$1/release")
  [ -n "$version" ] ||
    version=$("$1/bin/java" -XshowSettings:properties -version 2>&1 | sed -n 's/.*java\.specification\.version = \([0-9]*\).*/\1/p')
  [ -n "$version" ] && echo "$version"
}

# java_home MIN MAX : JAVA_HOME where it fits, else the newest Java of this machine that does.
java_home() {
  local home major best="" best_major=0 seen=""
  if [ -n "${JAVA_HOME:-}" ] && major=$(java_major "$JAVA_HOME") && [ "$major" -ge "$1" ] && [ "$major" -le "$2" ]; then
    echo "$JAVA_HOME"
    return
  fi
  home=$(command -v java 2>/dev/null) && home=$(readlink -f "$home") && home=${home%/bin/java}
  for home in "$home" /usr/lib/jvm/* /opt/java/* /opt/jdk* "$HOME"/.sdkman/candidates/java/*; do
    [ -n "$home" ] && major=$(java_major "$home") || continue
    seen="$seen $major"
    if [ "$major" -ge "$1" ] && [ "$major" -le "$2" ] && [ "$major" -gt "$best_major" ]; then
      best=$home best_major=$major
    fi
  done
  [ -n "$best" ] ||
    die "Java $1 to $2 is needed, found:${seen:- none}; install one under /usr/lib/jvm (Debian: apt-get install openjdk-21-jre-headless, or a Temurin JDK from adoptium.net) or set JAVA_HOME"
  echo "$best"
}

# fetched NAME FUNCTION : runs FUNCTION with a staging directory unless $CACHE/NAME is there, and keeps it as that: whole
# or not at all. One fetch at a time on a machine, since two Mavens can spoil each other's repository.
fetched() {
  [ -d "$CACHE/$1" ] && return
  need flock "fetch one server at a time" util-linux
  (
    flock 9
    [ -d "$CACHE/$1" ] && exit
    stage="$CACHE/.$1.part"
    rm -rf "$stage"
    mkdir -p "$stage"
    "$2" "$stage" >"$stage.log" 2>&1 9>&- || {
      tail -n 20 "$stage.log" >&2
      die "could not fetch $1; see $stage.log"
    }
    rm -f "$stage.log"
    mv "$stage" "$CACHE/$1"
  ) 9>"$CACHE/fetch.lock"
}

# maven FETCHER ARGUMENT... : Maven's dependency plugin, quiet.
MAVEN_PLUGIN=org.apache.maven.plugins:maven-dependency-plugin:3.6.1
maven() {
  local goal=$1; shift
  mvn -q -B --no-transfer-progress -Dstyle.color=never "$MAVEN_PLUGIN:$goal" "$@"
}
need_maven() { need mvn "fetch $1 from Maven Central, once" maven; }

# maven_copy DIR GROUP:ARTIFACT:VERSION[:PACKAGING[:CLASSIFIER]] : one artifact alone.
maven_copy() { maven copy -Dartifact="$2" -DoutputDirectory="$1"; }

# maven_tree DIR DEPENDENCY... : artifacts with all they need at run time. A DEPENDENCY is GROUP:ARTIFACT:VERSION with
# an optional :CLASSIFIER and an optional !GROUP:ARTIFACT to leave out.
maven_tree() {
  local dir=$1 dependency part; shift
  {
    echo '<project><modelVersion>4.0.0</modelVersion><groupId>local</groupId><artifactId>servers</artifactId>'
    echo '<version>1</version><packaging>pom</packaging><dependencies>'
    for dependency in "$@"; do
      IFS=: read -ra part <<<"${dependency%%!*}"
      echo "<dependency><groupId>${part[0]}</groupId><artifactId>${part[1]}</artifactId><version>${part[2]}</version>"
      [ -z "${part[3]:-}" ] || echo "<classifier>${part[3]}</classifier>"
      if [ "$dependency" != "${dependency#*!}" ]; then
        IFS=: read -ra part <<<"${dependency#*!}"
        echo "<exclusions><exclusion><groupId>${part[0]}</groupId><artifactId>${part[1]}</artifactId></exclusion></exclusions>"
      fi
      echo '</dependency>'
    done
    echo '</dependencies></project>'
  } >"$dir/pom.xml"
  maven copy-dependencies -f "$dir/pom.xml" -DincludeScope=runtime -DoutputDirectory="$dir/lib"
}

# place DIR PORT : makes DIR, prints its absolute path.
place() {
  [ -n "${1:-}" ] || usage
  case "${2:-}" in "" | *[!0-9]*) usage ;; esac
  mkdir -p "$1" && (cd "$1" && pwd)
}

# running DIR : whether the server of DIR lives. An unreaped one does not, and neither does a stranger with its old id:
# a server works in its DIR or below.
running() {
  local pid stat cwd dir
  pid=$(cat "$1/pid" 2>/dev/null) && [ -n "$pid" ] || return 1
  if [ -d /proc/self ]; then
    { read -r stat <"/proc/$pid/stat"; } 2>/dev/null || return 1
    stat=${stat##*) } # behind the name in brackets
  else
    stat=$(ps -o stat= -p "$pid" 2>/dev/null) || return 1
  fi
  case "$stat" in "" | Z* | X*) return 1 ;; esac
  cwd=$(readlink "/proc/$pid/cwd" 2>/dev/null) || return 0
  dir=$(cd "$1" && pwd -P)
  [ "$cwd" = "$dir" ] || [ "${cwd#"$dir"/}" != "$cwd" ]
}

# ended DIR : whether the server of DIR is gone for good: asked again, since a start that is given up leaves a server
# that nobody holds.
ended() {
  local tries
  for ((tries = 0; tries < 5; tries++)); do
    if running "$1"; then return 1; fi
    sleep 0.2
  done
}

listening() { (exec 3<>"/dev/tcp/$LOOPBACK/$1") 2>/dev/null; }

# free PORT... : a server that was just killed may hold its port for a moment.
free() {
  local port tries
  for port in "$@"; do
    for ((tries = 0; tries < 25; tries++)); do
      listening "$port" || continue 2
      sleep 0.2
    done
    die "port $port is taken"
  done
}

# launch DIR COMMAND... : in the background, working in DIR from its first moment, by which `running` knows it.
launch() {
  local dir=$1; shift
  (
    cd "$dir" || exit
    nohup "$@" >>log 2>&1 </dev/null &
    echo $! >pid
  )
}

# await DIR SECONDS COMMAND... : until COMMAND succeeds.
await() {
  local dir=$1 seconds=$2 end; shift 2
  end=$((SECONDS + seconds))
  until "$@"; do
    if ended "$dir"; then
      tail -n 20 "$dir/log" >&2
      die "the server (process $(cat "$dir/pid")) ended while starting; see $dir/log"
    fi
    [ $SECONDS -lt $end ] || { tail -n 20 "$dir/log" >&2; stop "$dir"; die "not ready after $seconds s; see $dir/log"; }
    sleep 0.1
  done
}

# answers URL TEXT : whether URL answers 2xx with a body that holds TEXT.
answers() {
  local body
  body=$(curl -sf -m 5 "$1" 2>/dev/null) && case "$body" in *"$2"*) ;; *) return 1 ;; esac
}

stop() {
  local dir pid tries
  [ -n "${1:-}" ] || usage
  dir=$(cd "$1" 2>/dev/null && pwd) || return 0
  if running "$dir"; then
    pid=$(cat "$dir/pid")
    kill "$pid" 2>/dev/null || true
    for ((tries = 0; tries < 100; tries++)); do running "$dir" || break; sleep 0.1; done
    if running "$dir"; then kill -9 "$pid" 2>/dev/null || true; fi
  fi
  rm -f "$dir/pid"
}

hold() {
  # An interrupt from the terminal reaches this script too; the end of standard input then follows.
  # Not '', which the server would inherit: it could be stopped by force alone.
  trap : INT TERM HUP
  stop "${1:-}" # one that nobody holds any more, perhaps on another port
  start "$@"
  local pid
  pid=$(cat "$1/pid")
  cat >/dev/null || true
  stop "$1"
  # Somebody may have removed the folder, and with it what `stop` goes by.
  if [ ! -d "$1" ]; then kill -9 "$pid" 2>/dev/null || true; fi
}

# The first comment of the script is its manual.
usage() { sed -n '2,/^[^#]/{s/^# \{0,1\}//p}' "$0" >&2; exit 2; }

main() {
  local command=${1:-}
  [ $# -gt 0 ] && shift
  case "$command" in fetch | start | stop | hold) "$command" "$@" ;; *) usage ;; esac
}
