#!/usr/bin/env bash
# Makes the kind cluster that E2E_PROVIDER=kind tests. Needs Docker and kind.
#
# A node of kind has a /dev of its own that does not follow the machine's: the loop devices that
# volumes take are made here. All nodes share the kernel's loop devices.
set -euo pipefail
cd "$(dirname "$0")"

kind create cluster --config cluster.yaml --wait 120s
for node in $(kind get nodes --name understudy); do
    docker exec "$node" sh -c '
        [ -e /dev/fuse ] || mknod /dev/fuse c 10 229
        [ -e /dev/loop-control ] || mknod /dev/loop-control c 10 237
        for n in $(seq 0 63); do [ -e /dev/loop$n ] || mknod /dev/loop$n b 7 $n; done'
done
