#!/usr/bin/env bash
# Durable single writes: three members of Quorate beside three members of etcd, on this machine, in
# one run, by one load generator. Prints the medians as a Markdown table.
#
#   cluster/bench/compare-etcd.sh --peerbench PROGRAM --quorate PROGRAM
#       [--rounds 5] [--secs 5] [--clients "1 64 256 1000"] [--size 256] [--dir DIR] [--keep]
#
# Needs etcd (Debian: etcd-server), curl and python3. The generator takes
#   --clients N --secs S --size B etcd --endpoints A,B,C
#   --clients N --secs S --size B http --urls A,B,C --path P --body TEMPLATE
# and prints one line of JSON with per_sec, p50_ms, p99_ms and errors.
#
# Each round measures one system after the other for every number of clients, and the next round
# begins with the other system: whatever else the machine does hits both. Both clusters run all the
# time, idle while the other is measured. Everything is stopped by process id at the end, also after
# an error or Ctrl-C.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"

rounds=5 secs=5 size=256 clients="1 64 256 1000" keep="" peerbench="" quorate="" work=""
while [ $# -gt 0 ]; do
    case "$1" in
        --keep) keep=1 && shift && continue ;;
        --peerbench) peerbench="$2" ;;
        --quorate) quorate="$2" ;;
        --rounds) rounds="$2" ;;
        --secs) secs="$2" ;;
        --clients) clients="$2" ;;
        --size) size="$2" ;;
        --dir) work="$2" ;;
        *) sed -n '2,16s/^# \{0,1\}//p' "$0" >&2 && exit 2 ;;
    esac
    shift 2
done
: "${peerbench:?--peerbench names the load generator}" "${quorate:?--quorate names the program}"
[ "$rounds" -ge 1 ] && [ "$rounds" -le 100 ] || { echo "1 to 100 rounds" >&2 && exit 2; }

work="${work:-$(mktemp -d -t quorate-compare.XXXXXX)}"
mkdir -p "$work"
results="$work/results.jsonl"
: >"$results"
export QUORATE="$quorate"
. "$here/pair.sh"

# Writes one line: {"system", "clients", "round", and what the generator says}.
measure() {
    local system=$1 count=$2 round=$3 line
    local common=(--clients "$count" --secs "$secs" --size "$size")
    # A generator that hangs must not hang the comparison.
    if [ "$system" = etcd ]; then
        line="$(timeout $((secs + 60)) "$peerbench" "${common[@]}" etcd --endpoints "$etcd_urls")"
    else
        line="$(timeout $((secs + 60)) "$peerbench" "${common[@]}" http --urls "$quorate_urls" \
            --path /api/v1/tasks --body "$body")"
    fi
    python3 -c '
import json, sys
system, clients, number, line = sys.argv[1:]
print(json.dumps({"system": system, "round": int(number), **json.loads(line), "clients": int(clients)}))
' "$system" "$count" "$round" "$line" >>"$results"
    echo "round $round, $system, $count clients: $line" >&2
}

body='{"task_type":"bench","input_data":"{pad}","requirements":{"capabilities":["no-node-has-this"]}}'
start_both

for round in $(seq "$rounds"); do
    order="quorate etcd"
    if [ $((round % 2)) -eq 0 ]; then order="etcd quorate"; fi
    for count in $clients; do
        for system in $order; do measure "$system" "$count" "$round"; done
    done
done

print_setting "$rounds rounds of $secs s, $size bytes"
python3 - "$results" <<'PYTHON'
import json, statistics, sys

rows = [json.loads(line) for line in open(sys.argv[1])]
print("| clients | etcd writes/s | quorate writes/s | ratio | etcd p50 / p99 ms | quorate p50 / p99 ms | errors |")
print("|---|---|---|---|---|---|---|")
for clients in sorted({row["clients"] for row in rows}):
    def median(system, key):
        return statistics.median(
            row[key] for row in rows if (row["system"], row["clients"]) == (system, clients))
    errors = sum(row["errors"] for row in rows if row["clients"] == clients)
    rates = {system: median(system, "per_sec") for system in ("etcd", "quorate")}
    ratio = rates["quorate"] / rates["etcd"] if rates["etcd"] else float("nan")
    latency = {system: f'{median(system, "p50_ms"):.2f} / {median(system, "p99_ms"):.2f}'
               for system in ("etcd", "quorate")}
    print(f'| {clients} | {rates["etcd"]:,.0f} | {rates["quorate"]:,.0f} | {ratio:.2f} '
          f'| {latency["etcd"]} | {latency["quorate"]} | {errors} |')
PYTHON
