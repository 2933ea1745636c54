#!/usr/bin/env bash
# A throw-away cluster of three members on loopback, for measurements and for failover trials.
#
#   QUORATE=path/to/quorate cluster/bench/members.sh start|stop|start-one N|urls|pids|wipe DIR
#
# (start-one takes N before DIR.) Member N serves clients on HTTP_BASE + 100 (N - 1) and peers on
# PEER_BASE + 100 (N - 1); data, logs and process ids live in DIR. A member is only ever stopped by
# the process id it was started with, and only when that is still a quorate process.
set -euo pipefail

http_base="${HTTP_BASE:-19000}"
peer_base="${PEER_BASE:-17000}"
members=(1 2 3)

usage() {
    sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
    exit 2
}

http_port() { echo $((http_base + 100 * ($1 - 1))); }
peer_port() { echo $((peer_base + 100 * ($1 - 1))); }

join_with_comma() {
    local IFS=,
    echo "$*"
}

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

is_running() {
    local pid
    pid="$(cat "$dir/m$1.pid" 2>/dev/null)" || return 1
    [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = quorate ]
}

start_one() {
    local n=$1
    mkdir -p "$dir/m$n"
    config "$n" >"$dir/m$n.yaml"
    setsid "${QUORATE:?names the program}" server --config "$dir/m$n.yaml" \
        </dev/null >>"$dir/m$n.log" 2>&1 &
    echo $! >"$dir/m$n.pid"
}

is_ready() {
    curl -fsS -m 1 -o /dev/null "http://127.0.0.1:$(http_port "$1")/readyz" 2>/dev/null
}

wait_ready() {
    for n in "${members[@]}"; do
        for _ in $(seq 300); do
            is_ready "$n" && continue 2
            sleep 0.1
        done
        echo "member $n is not ready after 30 s, see $dir/m$n.log" >&2
        exit 1
    done
}

stop() {
    for n in "${members[@]}"; do
        if is_running "$n"; then kill -TERM "$(cat "$dir/m$n.pid")"; fi
    done
    for n in "${members[@]}"; do
        for _ in $(seq 150); do
            is_running "$n" || break
            sleep 0.1
        done
        if is_running "$n"; then kill -KILL "$(cat "$dir/m$n.pid")"; fi
        rm -f "$dir/m$n.pid"
    done
}

action="${1:-}"
[ -n "$action" ] || usage
shift
number=""
if [ "$action" = start-one ]; then
    number="${1:?which member?}"
    shift
fi
dir="${1:?which directory?}"
mkdir -p "$dir"
dir="$(cd "$dir" && pwd)"

case "$action" in
    start)
        for n in "${members[@]}"; do is_running "$n" || start_one "$n"; done
        wait_ready
        ;;
    start-one) start_one "$number" ;;
    stop) stop ;;
    urls)
        list=()
        for n in "${members[@]}"; do list+=("http://127.0.0.1:$(http_port "$n")"); done
        join_with_comma "${list[@]}"
        ;;
    pids)
        list=()
        for n in "${members[@]}"; do list+=("$dir/m$n.pid"); done
        join_with_comma "${list[@]}"
        ;;
    wipe)
        stop
        for n in "${members[@]}"; do rm -rf "$dir/m$n" "$dir/m$n.yaml" "$dir/m$n.log"; done
        ;;
    *) usage ;;
esac
