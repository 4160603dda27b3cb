#!/usr/bin/env bash
# Builds the Go programs of the cluster tests into a cache, each once per pinned version.
#
#   scripts/tools.sh t3            what the tests on an API server need (about 5 minutes, once)
#   scripts/tools.sh e2e           what a whole cluster needs (about 11 minutes, once)
#   scripts/tools.sh --directory   only says where they are
#
# UNDERSTUDY_TOOLS names another place. Without Go or its module proxy, what is missing is named in
# one line: under CI=true that fails, elsewhere the tests concerned are skipped, visibly.
set -euo pipefail
cd "$(dirname "$0")/../tests/cluster/tools"

versions=$(cat go.mod go.sum etcd/go.mod etcd/go.sum | sha256sum | cut -c1-16)
out=${UNDERSTUDY_TOOLS:-${XDG_CACHE_HOME:-$HOME/.cache}/understudy/tools/$versions}

# Name, the folder of its go.mod, its package; in the order in which tests want them.
t3=(
    "etcd etcd go.etcd.io/etcd/server/v3"
    "kube-apiserver . k8s.io/kubernetes/cmd/kube-apiserver"
    "kubectl . k8s.io/kubernetes/cmd/kubectl"
    "csi-sanity . github.com/kubernetes-csi/csi-test/v5/cmd/csi-sanity"
    "helm . helm.sh/helm/v3/cmd/helm"
)
e2e=(
    "${t3[@]}"
    "kube-controller-manager . k8s.io/kubernetes/cmd/kube-controller-manager"
    "kube-scheduler . k8s.io/kubernetes/cmd/kube-scheduler"
    "kubelet . k8s.io/kubernetes/cmd/kubelet"
    "kube-proxy . k8s.io/kubernetes/cmd/kube-proxy"
    "csi-provisioner . github.com/kubernetes-csi/external-provisioner/v6/cmd/csi-provisioner"
    "csi-resizer . github.com/kubernetes-csi/external-resizer/v2/cmd/csi-resizer"
)

case ${1:-} in
    --directory) echo "$out" && exit ;;
    t3) wanted=("${t3[@]}") ;;
    e2e) wanted=("${e2e[@]}") ;;
    *) sed -n '2,9s/^# \{0,1\}//p' "../../../scripts/tools.sh" && exit 2 ;;
esac

missing() {
    if [[ ${CI:-} == true ]]; then
        echo "MISSING $1" >&2 && exit 1
    fi
    echo "SKIPPED $1" && exit 0
}

# Kubernetes programs take their own version from the linker, and refuse each other without one.
release=$(awk '$1 == "k8s.io/kubernetes" && $2 ~ /^v/ { print $2; exit }' go.mod)
minor=${release#v1.}
flags="-s -w"
for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
    flags+=" -X $package.gitVersion=$release -X $package.gitMajor=1 -X $package.gitMinor=${minor%%.*}"
    flags+=" -X $package.gitTreeState=clean"
done

log=$out/build.log
for entry in "${wanted[@]}"; do
    read -r name folder package <<<"$entry"
    [[ -x $out/$name ]] && continue
    command -v go >/dev/null ||
        missing "what needs $name: install Go 1.26 or newer (https://go.dev/dl), then run scripts/tools.sh $1"
    mkdir -p "$out"
    echo "Building $name, once"
    # Under another name until it is whole, so that a build that was cut short is not taken for it.
    if (cd "$folder" && CGO_ENABLED=0 go build -mod=readonly -buildvcs=false -trimpath -ldflags "$flags" \
        -o "$out/.$name.new" "$package") >"$log" 2>&1; then
        mv "$out/.$name.new" "$out/$name"
    else
        tail -n 3 "$log" >&2
        missing "what needs $name: it did not build (see $log); it needs the Go module proxy ($(go env GOPROXY))"
    fi
done
