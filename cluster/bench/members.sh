#!/usr/bin/env bash
# A throw-away cluster of three members on loopback, for measurements and for failover trials.
#
#   QUORATE=path/to/quorate cluster/bench/members.sh start|stop|start-one N|urls|pids|wipe DIR
#
# (start-one takes N before DIR.) Member N serves clients on HTTP_BASE + 100 (N - 1) and peers on
# PEER_BASE + 100 (N - 1); data, logs and process ids live in DIR. A member is only ever stopped by
# the process id it was started with, and only when that is still a quorate process.
set -euo pipefail
. "$(dirname "$0")/verbs.sh"

process_name=quorate
http_base="${HTTP_BASE:-19000}"
peer_base="${PEER_BASE:-17000}"

http_port() { echo $((http_base + 100 * ($1 - 1))); }
peer_port() { echo $((peer_base + 100 * ($1 - 1))); }
url() { echo "http://127.0.0.1:$(http_port "$1")"; }
files() { printf '%s\n' "$dir/m$1" "$dir/m$1.yaml" "$dir/m$1.log"; }

config() {
    local n=$1 peers=() i
    for i in "${members[@]}"; do peers+=("\"127.0.0.1:$(peer_port "$i")\""); done
    cat <<CONFIG
cluster:
  name: bench-$n
  data_dir: "$dir/m$n"
  peers: [$(join_with_comma "${peers[@]}")]
  bootstrap_expect: 3
listeners:
  - { profile: web4ai, addr: "127.0.0.1:$(http_port "$n")" }
  - { profile: peer, addr: "127.0.0.1:$(peer_port "$n")" }
logging:
  level: warn
CONFIG
}

start_one() {
    local n=$1
    mkdir -p "$dir/m$n"
    config "$n" >"$dir/m$n.yaml"
    run_as_member "$n" "${QUORATE:?names the program}" server --config "$dir/m$n.yaml"
}

is_ready() { curl -fsS -m 1 -o /dev/null "$(url "$1")/readyz" 2>/dev/null; }

run_verb "$@"
