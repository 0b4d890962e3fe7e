#!/bin/bash
# The Prometheus Operator's CRDs only, for tests against a cluster that is there (KUBECONFIG_TEST). build.sh has them too.
set -eu
. "$(dirname "$(readlink -f "$0")")/env.sh"
. "$CLUSTER/steps.sh"
crds() {
  cd "$CLUSTER/go/monitoring"; local o=github.com/prometheus-operator/prometheus-operator; go mod download "$o"
  mkdir -p "$CACHE/upstream/crd"; cp "$(folder $o)"/example/prometheus-operator-crd/*.yaml "$CACHE/upstream/crd/"; chmod -R u+w "$CACHE/upstream/crd"
}
[ -d "$CACHE/upstream/crd" ] || step crds "$(now)"
