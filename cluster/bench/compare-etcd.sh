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
for tool in etcd curl python3; do
    command -v "$tool" >/dev/null || { echo "$tool is not installed" >&2 && exit 1; }
done
[ "$rounds" -ge 1 ] && [ "$rounds" -le 100 ] || { echo "1 to 100 rounds" >&2 && exit 2; }

work="${work:-$(mktemp -d -t quorate-compare.XXXXXX)}"
mkdir -p "$work/etcd" "$work/quorate"
results="$work/results.jsonl"
: >"$results"
export QUORATE="$quorate"
etcd_pids=()

cleanup() {
    trap - EXIT INT TERM
    "$here/members.sh" stop "$work/quorate" || true
    for pid in "${etcd_pids[@]}"; do
        kill -TERM "$pid" 2>/dev/null || true
    done
    for pid in "${etcd_pids[@]}"; do wait "$pid" 2>/dev/null || true; done
    if [ -z "$keep" ]; then
        "$here/members.sh" wipe "$work/quorate" || true
        rm -rf "$work/etcd"
    fi
}
trap cleanup EXIT
trap 'exit 130' INT TERM

etcd_client() { echo "http://127.0.0.1:$((12379 + 10000 * $1))"; }
etcd_peer() { echo "http://127.0.0.1:$((12380 + 10000 * $1))"; }

start_etcd() {
    local cluster="" n
    for n in 0 1 2; do cluster="$cluster${cluster:+,}e$n=$(etcd_peer $n)"; done
    for n in 0 1 2; do
        etcd --name "e$n" --data-dir "$work/etcd/e$n" --log-level error \
            --listen-client-urls "$(etcd_client $n)" --advertise-client-urls "$(etcd_client $n)" \
            --listen-peer-urls "$(etcd_peer $n)" --initial-advertise-peer-urls "$(etcd_peer $n)" \
            --initial-cluster "$cluster" --initial-cluster-state new \
            </dev/null >"$work/etcd/e$n.log" 2>&1 &
        etcd_pids+=($!)
    done
    for n in 0 1 2; do
        for _ in $(seq 300); do
            if curl -fsS -m 1 "$(etcd_client $n)/health" 2>/dev/null | grep -q true; then continue 2; fi
            sleep 0.1
        done
        echo "etcd member $n is not healthy after 30 s, see $work/etcd/e$n.log" >&2
        exit 1
    done
}

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
etcd_urls="$(etcd_client 0),$(etcd_client 1),$(etcd_client 2)"
quorate_urls="$("$here/members.sh" urls "$work/quorate")"
start_etcd
"$here/members.sh" start "$work/quorate"

for round in $(seq "$rounds"); do
    order="quorate etcd"
    if [ $((round % 2)) -eq 0 ]; then order="etcd quorate"; fi
    for count in $clients; do
        for system in $order; do measure "$system" "$count" "$round"; done
    done
done

echo "etcd: $(etcd --version | head -n 1); quorate: $("$quorate" --version)"
echo "$rounds rounds of $secs s, $size bytes, $(nproc) processors, kernel $(uname -r)"
echo
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
