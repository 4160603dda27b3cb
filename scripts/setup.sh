#!/usr/bin/env bash
# Installs what the tests need and the machine lacks. Says nothing when everything is there.
#
#   scripts/setup.sh        what `make test` needs
#   scripts/setup.sh e2e    what `make e2e` needs
#
# Without root, or without the network, what is missing is named in one line with its remedy:
# under CI=true that fails, elsewhere the tests concerned are skipped, visibly.
set -euo pipefail
cd "$(dirname "$0")/.."

CARGO_DENY_VERSION=0.20.2
# Building cargo-deny takes minutes; a machine that needs longer goes on without it.
CARGO_DENY_BUDGET=${CARGO_DENY_BUDGET:-20m}

lacks=0
missing() {
    if [[ ${CI:-} == true ]]; then
        echo "MISSING $1" >&2
        lacks=1
    else
        echo "SKIPPED $1"
    fi
}

# A tool, and the Debian package that brings it.
tools=(
    qemu-img:qemu-utils
    qemu-nbd:qemu-utils
    qemu-system-x86_64:qemu-system-x86
    nbdkit:nbdkit
    nbdinfo:libnbd-bin
    nbdcopy:libnbd-bin
    fio:fio
    mkfs.ext4:e2fsprogs
    setpriv:util-linux
)
# What a whole cluster on this machine needs beside that.
if [[ ${1:-} == e2e ]]; then
    tools+=(
        containerd:containerd
        runc:runc
        busybox:busybox-static
        iptables:iptables
        conntrack:conntrack
        ip:iproute2
        musl-gcc:musl-tools
    )
fi
PATH=$PATH:/usr/sbin:/sbin

packages() {
    local entry
    {
        for entry in "${tools[@]}"; do
            command -v "${entry%%:*}" >/dev/null || echo "${entry##*:}"
        done
        # Plugins are no commands.
        [[ ${1:-} != e2e || -x /usr/lib/cni/bridge ]] || echo containernetworking-plugins
    } | sort -u
}

mapfile -t wanted < <(packages "${1:-}")
if ((${#wanted[@]})) && [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null; then
    echo "Installing ${wanted[*]}"
    log=$(mktemp)
    export DEBIAN_FRONTEND=noninteractive
    { apt-get update -qq && apt-get install -qq -y --no-install-recommends "${wanted[@]}"; } >"$log" 2>&1 ||
        tail -n 3 "$log" >&2
    rm -f "$log"
    mapfile -t wanted < <(packages "${1:-}")
fi
if ((${#wanted[@]})); then
    missing "what needs ${wanted[*]}: run as root: apt-get install ${wanted[*]}"
fi

# Any version that is there will do; the pinned one is what gets built.
if ! cargo deny --version >/dev/null 2>&1; then
    echo "Building cargo-deny $CARGO_DENY_VERSION, once (at most $CARGO_DENY_BUDGET)"
    log=$(mktemp)
    # A checker need not be fast: little optimisation more than halves the wait.
    CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
        timeout "$CARGO_DENY_BUDGET" cargo install --quiet --locked cargo-deny --version "$CARGO_DENY_VERSION" \
        >"$log" 2>&1 || tail -n 3 "$log" >&2
    rm -f "$log"
    if ! cargo deny --version >/dev/null 2>&1; then
        missing "the check of licences and bans: cargo install --locked cargo-deny --version $CARGO_DENY_VERSION"
    fi
fi

# An API server, its store and its clients: Go programs, built once. It says itself what is missing.
if [[ ${1:-} == e2e ]]; then
    # Images hold static programs. Without this target they are made with the C library of this machine.
    rustup target add x86_64-unknown-linux-musl >/dev/null 2>&1 || true
    scripts/tools.sh e2e || lacks=1
else
    scripts/tools.sh t3 || lacks=1
fi
exit $lacks
