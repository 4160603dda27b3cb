#!/bin/sh
# Process 1 of a node of the test cluster. Its namespaces are new: what is mounted here is the node's.
#   node.sh NAME DISK IMAGES PROGRAMS
set -eu
name=$1 disk=$2 images=$3 programs=$4

hostname "$name"
mount --make-rprivate /
mount -t proc proc /proc
# As after a boot: no sockets, no process files, nothing that a program left.
mount -t tmpfs tmpfs /run
for directory in /var/lib/kubelet /var/lib/containerd /var/lib/cni /var/lib/understudy /var/lib/understudy-e2e \
    /var/log/pods /var/log/containers /etc/cni/net.d; do
    mkdir -p "$disk$directory" "$directory"
    mount --bind "$disk$directory" "$directory"
done
# Mount propagation in both directions needs shared mounts.
mount --make-rshared /
cp "$disk/cni.conflist" /etc/cni/net.d/10-pods.conflist

containerd --config "$disk/containerd.toml" >>"$disk/containerd.log" 2>&1 &
until ctr version >/dev/null 2>&1; do sleep 0.1; done
for image in "$images"/*.tar; do
    mark=$disk/have-${image##*/}
    [ "$mark" -nt "$image" ] && continue
    ctr --namespace k8s.io images import "$image" && touch "$mark"
done
"$programs/kube-proxy" --kubeconfig="$disk/kube-proxy.kubeconfig" --hostname-override="$name" \
    --cluster-cidr=POD_RANGE --proxy-mode=iptables --conntrack-max-per-core=0 >>"$disk/kube-proxy.log" 2>&1 &
# A kubelet that finds containerd not ready yet ends; a service manager starts it again.
while :; do
    "$programs/kubelet" --config="$disk/kubelet.yaml" --kubeconfig="$disk/kubelet.kubeconfig" \
        --hostname-override="$name" --node-ip=NODE_ADDRESS --root-dir=/var/lib/kubelet --v=2 \
        >>"$disk/kubelet.log" 2>&1 || true
    sleep 1
done &
# Orphans of the whole pid namespace become this shell's children.
while :; do
    wait || true
    sleep 1
done
