#!/bin/bash
# Into the cluster of $KUBECONFIG: the real prometheus-operator (upstream's CRDs, ClusterRole and Deployment) and
# the Prometheus monitoring/k8s.
set -eu
. "$(dirname "$(readlink -f "$0")")/../env.sh"
U=$CACHE/upstream; s=$(now)
kubectl apply --server-side -f "$U/crd" >/dev/null          # server-side: they are too large for the last-applied annotation
kubectl create namespace monitoring --dry-run=client -o yaml | kubectl apply -f - >/dev/null
for f in "$U"/operator/*.yaml; do echo ---; sed 's/namespace: default/namespace: monitoring/' "$f"; done | kubectl apply -f - >/dev/null
until kubectl wait --for=condition=Established crd --all --timeout=60s >/dev/null 2>&1; do sleep 0.2; done    # it fails where it comes before the first condition
sed "s/PROMETHEUS_VERSION/$PROMETHEUS/" "$CLUSTER/monitoring/prometheus.yaml" | kubectl apply -f - >/dev/null
kubectl -n monitoring rollout status deploy/prometheus-operator --timeout=90s >/dev/null
wait_for() { until "$@" >/dev/null 2>&1; do [ $((($(now) - s) / 1000000000)) -lt 120 ] || fail "gave up on: $*"; sleep 0.2; done; }
wait_for kubectl -n monitoring wait prometheus/k8s --for=condition=Available --timeout=5s
# A configuration that changes between the reloader's first read and its watch is noticed only after 3 minutes: wait for the watch.
watching() { kubectl -n monitoring logs prometheus-k8s-0 -c config-reloader | grep -q 'started watching'; }; wait_for watching
