#!/usr/bin/env bash
# Installs what the fault harness leans on, where it is missing (Debian and its children, root):
#   iproute2, util-linux   namespaces, loop devices, fsfreeze
#   e2fsprogs              ext4 on loop devices
#   nftables               the second network tier
#   strace                 failing and slow flushes
#   faketime               wall clocks that jump and drift
set -euo pipefail

declare -A package=(
    [ip]=iproute2 [unshare]=util-linux [nsenter]=util-linux [losetup]=mount
    [mkfs.ext4]=e2fsprogs [nft]=nftables [strace]=strace [faketime]=faketime
)
missing=()
for program in "${!package[@]}"; do
    PATH="$PATH:/usr/sbin:/sbin" command -v "$program" >/dev/null || missing+=("${package[$program]}")
done
if [ ${#missing[@]} -eq 0 ]; then
    echo "everything is there"
    exit 0
fi
echo "installing: ${missing[*]}"
apt-get update -qq
apt-get install -y -qq --no-install-recommends "${missing[@]}"
