# What members.sh and etcd.sh share: three processes on loopback, each with a directory, a log and
# a process id in DIR, and the verbs that start and stop them. Sourced, not run. A process is only
# ever stopped by the id it was started with, and only when that still has the expected name.
#
# Before `run_verb "$@"` the script defines: process_name; url N; start_one N (writes DIR/mN.pid);
# is_ready N; files N (what wipe removes).

members=(1 2 3)

usage() {
    sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0" >&2
    exit 2
}

join_with_comma() {
    local IFS=,
    echo "$*"
}

is_running() {
    local pid
    pid="$(cat "$dir/m$1.pid" 2>/dev/null)" || return 1
    [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = "$process_name" ]
}

# Leaves PROGRAM running in a session of its own: run_as_member N PROGRAM ARGUMENTS. It writes its
# process id itself: under a shell with job control setsid forks, and $! is not the program's.
run_as_member() {
    local n=$1
    shift
    rm -f "$dir/m$n.pid"
    setsid bash -c 'echo $$ >"$1"; shift; exec "$@"' bash "$dir/m$n.pid" "$@" \
        </dev/null >>"$dir/m$n.log" 2>&1 &
    for _ in $(seq 100); do
        [ -s "$dir/m$n.pid" ] && return
        sleep 0.05
    done
    echo "member $n did not start, see $dir/m$n.log" >&2
    exit 1
}

wait_ready() {
    local n
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
    local n
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

run_verb() {
    local action="${1:-}" number="" n list=()
    [ -n "$action" ] || usage
    shift
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
            for n in "${members[@]}"; do list+=("$(url "$n")"); done
            join_with_comma "${list[@]}"
            ;;
        pids)
            for n in "${members[@]}"; do list+=("$dir/m$n.pid"); done
            join_with_comma "${list[@]}"
            ;;
        wipe)
            stop
            for n in "${members[@]}"; do files "$n" | while read -r file; do rm -rf "$file"; done; done
            ;;
        *) usage ;;
    esac
}
