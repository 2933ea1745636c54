#!/usr/bin/env bash
# What losing the leader costs a client: three members of Quorate beside three members of etcd, both
# with default settings, on this machine, in one run, by one generator. Prints a Markdown table.
#
#   cluster/bench/compare-failover.sh --quorate PROGRAM [--generator PROGRAM]
#       [--kills 30] [--block 5] [--action kill|stop] [--rate 200] [--clients 400]
#       [--timeout-ms 1000] [--settle-ms 1000] [--results FILE] [--dir DIR] [--keep]
#
# Needs etcd (Debian: etcd-server), curl and python3. The generator is `quorate bench failover`, of
# the measured program itself unless --generator names another one.
#
# Leaders fall in blocks of --block kills, one system after the other, and the next pair of blocks
# begins with the other system: whatever else the machine does hits both. Both clusters run all the
# time, idle while the other is measured. Behind each block every acknowledged write is read back.
# With --results the blocks are added to that file, and the table is of all blocks in it: so a long
# measurement can be made in several runs of the same settings. Everything is stopped by process id
# at the end, also after an error or Ctrl-C.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"

kills=30 block=5 action=kill rate=200 clients=400 timeout_ms=1000 settle_ms=1000
quorate="" generator="" results="" work="" keep=""
while [ $# -gt 0 ]; do
    case "$1" in
        --keep) keep=1 && shift && continue ;;
        --quorate) quorate="$2" ;;
        --generator) generator="$2" ;;
        --kills) kills="$2" ;;
        --block) block="$2" ;;
        --action) action="$2" ;;
        --rate) rate="$2" ;;
        --clients) clients="$2" ;;
        --timeout-ms) timeout_ms="$2" ;;
        --settle-ms) settle_ms="$2" ;;
        --results) results="$2" ;;
        --dir) work="$2" ;;
        *) sed -n '2,18s/^# \{0,1\}//p' "$0" >&2 && exit 2 ;;
    esac
    shift 2
done
export QUORATE="${quorate:?--quorate names the program}"
generator="${generator:-$quorate}"
{ [ "$block" -ge 1 ] && [ "$kills" -ge 1 ] && [ "$kills" -le 1000 ]; } ||
    { echo "1 to 1000 kills, in blocks of at least one" >&2 && exit 2; }
# A bounded number of clients must not bound how many requests wait, or the one of the two systems
# that lets them wait longer would be sent fewer writes.
[ $((clients * 1000)) -gt $((rate * timeout_ms)) ] ||
    { echo "--clients must be above --rate times --timeout-ms" >&2 && exit 2; }

work="${work:-$(mktemp -d -t quorate-failover.XXXXXX)}"
mkdir -p "$work"
results="${results:-$work/results.jsonl}"
. "$here/pair.sh"

# Writes one line: what the generator says of so many kills of one system.
measure() {
    local system=$1 count=$2 script=etcd.sh urls="$etcd_urls" line
    if [ "$system" = quorate ]; then script=members.sh urls="$quorate_urls"; fi
    # A generator that hangs must not hang the comparison.
    line="$(timeout $((count * 60 + 120)) "$generator" bench failover --target "$system" \
        --url "$urls" --pid-file "$("$here/$script" pids "$work/$system")" \
        --process-name "$system" --restart "'$here/$script' start-one {n} '$work/$system'" \
        --kills "$count" --action "$action" --rate "$rate" --clients "$clients" \
        --timeout-ms "$timeout_ms" --settle-ms "$settle_ms" -o json)"
    echo "$line" >>"$results"
    python3 -c '
import json, sys
details = json.loads(sys.argv[1])["details"]
times = " ".join(str(round(row["next_ack_ms"])) for row in details["rounds"])
print(details["target"] + ", ms to the next acknowledgement:", times)
' "$line" >&2
}

start_both
order="quorate etcd"
left=$kills
while [ "$left" -gt 0 ]; do
    count=$((left < block ? left : block))
    for system in $order; do measure "$system" "$count"; done
    if [ "$order" = "quorate etcd" ]; then order="etcd quorate"; else order="quorate etcd"; fi
    left=$((left - count))
done

print_setting "action $action, $rate writes/s at all members, request timeout $timeout_ms ms"
python3 - "$results" <<'PYTHON'
import json, math, statistics, sys

blocks = [json.loads(line) for line in open(sys.argv[1])]


def p99(values):
    """By nearest rank: of fewer than 100 values it is the greatest."""
    return sorted(values)[math.ceil(0.99 * len(values)) - 1]


worst = {}
print("| system | leaders lost | next ack p50 / p99 / max ms | silence p50 / max ms "
      "| timed out per loss | acknowledged writes | of them lost |")
print("|---|---|---|---|---|---|---|")
for system in ("etcd", "quorate"):
    own = [block for block in blocks if block["details"]["target"] == system]
    rows = [row for block in own for row in block["details"]["rounds"]]
    acks = [row["next_ack_ms"] for row in rows]
    silences = [row["silence_ms"] for row in rows]
    timeouts = sum(block["errors_by_code"].get("timeout", 0) for block in own) / len(rows)
    read = {key: sum(block["details"]["read_back"][key] for block in own)
            for key in ("acknowledged", "lost", "unread")}
    lost = str(read["lost"]) + (f', {read["unread"]} unread' if read["unread"] else "")
    worst[system] = p99(acks)
    print(f'| {system} | {len(rows)} | {statistics.median(acks):,.0f} / {p99(acks):,.0f} / '
          f'{max(acks):,.0f} | {statistics.median(silences):,.0f} / {max(silences):,.0f} '
          f'| {timeouts:,.1f} | {read["acknowledged"]:,} | {lost} |')
print()
print(f'p99 of quorate is {worst["quorate"] / worst["etcd"]:.2f} of etcd\'s.')
PYTHON
