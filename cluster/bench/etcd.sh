#!/usr/bin/env bash
# A throw-away etcd of three members on loopback, to measure beside: with default settings, unless
# ETCD_FLAGS holds more of its flags.
#
#   cluster/bench/etcd.sh start|stop|start-one N|urls|pids|wipe DIR
#
# (start-one takes N before DIR.) Needs etcd (Debian: etcd-server) and curl. Member N serves clients
# on ETCD_BASE + 100 (N - 1) and peers one above; data, logs and process ids live in DIR. A member
# is only ever stopped by the process id it was started with, and only when that is still an etcd.
set -euo pipefail
. "$(dirname "$0")/verbs.sh"

process_name=etcd
client_base="${ETCD_BASE:-12379}"
read -ra flags <<<"${ETCD_FLAGS:-}"

url() { echo "http://127.0.0.1:$((client_base + 100 * ($1 - 1)))"; }
peer() { echo "http://127.0.0.1:$((client_base + 1 + 100 * ($1 - 1)))"; }
files() { printf '%s\n' "$dir/m$1" "$dir/m$1.log"; }

# A member that has data goes on with it, whatever the flags say of a new cluster.
start_one() {
    local n=$1 peers=() i
    for i in "${members[@]}"; do peers+=("m$i=$(peer "$i")"); done
    run_as_member "$n" etcd --name "m$n" --data-dir "$dir/m$n" --log-level error \
        --listen-client-urls "$(url "$n")" --advertise-client-urls "$(url "$n")" \
        --listen-peer-urls "$(peer "$n")" --initial-advertise-peer-urls "$(peer "$n")" \
        --initial-cluster "$(join_with_comma "${peers[@]}")" --initial-cluster-state new \
        "${flags[@]}"
}

is_ready() { curl -fsS -m 1 "$(url "$1")/health" 2>/dev/null | grep -q true; }

run_verb "$@"
