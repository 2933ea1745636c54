#!/usr/bin/env bash
# Three members on this machine, started and stopped by hand, with the files beside this script.
#
#   cluster/local-cluster.sh start | stop | restart | status | kill N | wipe
#
# Data, logs and process ids live in data/local. QUORATE names the program, otherwise it is the
# newest one that was built.
set -euo pipefail
cd "$(dirname "$0")/.."

dir=data/local
members=(1 2 3)

program() {
    if [ -n "${QUORATE:-}" ]; then
        echo "$QUORATE"
        return
    fi
    local newest
    newest="$(ls -t target/release/quorate target/debug/quorate 2>/dev/null | head -n 1)"
    if [ -z "$newest" ]; then
        echo "build it first: cargo build --release" >&2
        exit 1
    fi
    echo "$newest"
}

pid_of() {
    cat "$dir/m$1/pid" 2>/dev/null || true
}

# A process id alone may have been given to something else since.
is_running() {
    local pid
    pid="$(pid_of "$1")"
    [ -n "$pid" ] && grep -qs "quorate" "/proc/$pid/cmdline"
}

start() {
    local quorate
    quorate="$(program)"
    for n in "${members[@]}"; do
        if is_running "$n"; then
            echo "member $n runs already"
            continue
        fi
        mkdir -p "$dir/m$n"
        "$quorate" server --config "cluster/member$n.yaml" >>"$dir/m$n/log" 2>&1 &
        echo $! >"$dir/m$n/pid"
        echo "member $n: http://127.0.0.1:$((9000 + 100 * (n - 1))), log $dir/m$n/log"
    done
}

stop() {
    for n in "${members[@]}"; do
        if is_running "$n"; then kill -TERM "$(pid_of "$n")"; fi
    done
    for n in "${members[@]}"; do
        for _ in $(seq 150); do
            is_running "$n" || break
            sleep 0.1
        done
        if is_running "$n"; then
            echo "member $n did not stop within 15 s" >&2
            exit 1
        fi
        rm -f "$dir/m$n/pid"
    done
}

case "${1:-}" in
    start) start ;;
    stop) stop ;;
    restart) stop && start ;;
    status) "$(program)" cluster status --url http://127.0.0.1:9000,http://127.0.0.1:9100,http://127.0.0.1:9200 ;;
    kill)
        is_running "${2:?which member?}" || { echo "member $2 does not run" >&2; exit 1; }
        kill -KILL "$(pid_of "$2")"
        ;;
    wipe) stop && rm -rf "$dir" ;;
    *)
        sed -n '2,7s/^# \{0,1\}//p' "$0" >&2
        exit 2
        ;;
esac
