# What the comparisons share: both clusters under one directory, stopped by process id at the end,
# also after an error or Ctrl-C. Sourced, not run, by scripts that set here, work, keep, QUORATE.

for tool in etcd curl python3; do
    command -v "$tool" >/dev/null || { echo "$tool is not installed" >&2 && exit 1; }
done

cleanup() {
    local verb=wipe
    trap - EXIT INT TERM
    if [ -n "$keep" ]; then verb=stop; fi
    "$here/members.sh" "$verb" "$work/quorate" || true
    "$here/etcd.sh" "$verb" "$work/etcd" || true
}

# Both run until the end, each idle while the other is measured.
start_both() {
    trap cleanup EXIT
    trap 'exit 130' INT TERM
    "$here/etcd.sh" start "$work/etcd"
    "$here/members.sh" start "$work/quorate"
    etcd_urls="$("$here/etcd.sh" urls "$work/etcd")"
    quorate_urls="$("$here/members.sh" urls "$work/quorate")"
}

print_setting() {
    echo "etcd: $(etcd --version | head -n 1) ${ETCD_FLAGS:-}; quorate: $("$QUORATE" --version)"
    echo "$1, $(nproc) processors, kernel $(uname -r)"
    echo
}
