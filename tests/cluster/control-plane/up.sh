#!/bin/bash
# The light level: etcd, API server and controller manager as plain processes on loopback. No root.
# usage: [KWOK=1] control-plane/up.sh DIR     DIR/kubeconfig is the administrator's
# API_SERVER_FLAGS: more of them, separated by spaces.
# KWOK=1: also the scheduler, kwok and one fake node, so that pods become Running with nothing behind them.
set -eu
. "$(dirname "$(readlink -f "$0")")/../env.sh"
D=$(readlink -m "${1:?usage: control-plane/up.sh DIR}")
[ ! -e "$D/pids" ] || fail "$D is in use (control-plane/down.sh $D)"
umask 077; mkdir -p "$D"/{certs,kcm,log}; cd "$D"; : >pids
start() { local n=$1; shift; setsid "$@" >"log/$n.log" 2>&1 </dev/null & echo "$! $n" >>pids; }
give_up() { tail -n 5 log/*.log >&2; "$CLUSTER/control-plane/down.sh" "$D"; fail "$*"; }
wait_for() {
  local i p n
  for i in {1..600}; do
    "$@" >/dev/null 2>&1 && return
    while read -r p n; do kill -0 "$p" 2>/dev/null || give_up "$n ended"; done <pids
    sleep 0.1
  done
  give_up "gave up on: $*"
}
# Below 32768, so that no outgoing connection takes one in between.
read -r client peer api <<<"$(python3 -c 'import random, socket
s = []
while len(s) < 3:
    x = socket.socket()
    try: x.bind(("127.0.0.1", random.randrange(20000, 32000))); s.append(x)
    except OSError: pass
print(*[x.getsockname()[1] for x in s])')"
openssl genrsa -out sa.key 2048 2>/dev/null; token=$(openssl rand -hex 16)
echo "$token,admin,admin-uid,system:masters" >tokens.csv
cat >kubeconfig <<K
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://127.0.0.1:$api", certificate-authority: $D/certs/apiserver.crt}}]
users: [{name: u, user: {token: $token}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
K
export KUBECONFIG=$D/kubeconfig KUBECACHEDIR=$D/kubecache
start etcd etcd --data-dir "$D/etcd" --listen-client-urls "http://127.0.0.1:$client" --advertise-client-urls "http://127.0.0.1:$client" --listen-peer-urls "http://127.0.0.1:$peer" \
  --initial-advertise-peer-urls "http://127.0.0.1:$peer" --initial-cluster "default=http://127.0.0.1:$peer" --unsafe-no-fsync
# advertise-address: an EndpointSlice may not carry 127/8, so a documentation address that nobody calls.
start apiserver kube-apiserver --etcd-servers "http://127.0.0.1:$client" --secure-port "$api" --bind-address 127.0.0.1 --advertise-address 192.0.2.1 --cert-dir "$D/certs" \
  --service-account-issuer https://kubernetes.default.svc --service-account-key-file sa.key --service-account-signing-key-file sa.key --token-auth-file tokens.csv \
  --authorization-mode Node,RBAC --enable-admission-plugins NodeRestriction --service-cluster-ip-range 10.96.0.0/16 --allow-privileged --profiling=false --enable-aggregator-routing \
  --audit-policy-file "$CLUSTER/control-plane/audit.yaml" --audit-log-path "$D/log/audit.log" ${API_SERVER_FLAGS:-}
wait_for kubectl get --raw /readyz
start kcm kube-controller-manager --kubeconfig kubeconfig --kube-api-qps=500 --kube-api-burst=1000 --service-account-private-key-file sa.key --root-ca-file certs/apiserver.crt \
  --use-service-account-credentials --leader-elect=false --secure-port 0 --cert-dir "$D/kcm"
if [ "${KWOK:-}" ]; then
  start scheduler kube-scheduler --kubeconfig kubeconfig --kube-api-qps=500 --kube-api-burst=1000 --leader-elect=false --secure-port 0
  start kwok kwok --config "$CACHE/upstream/kwok-stages.yaml" --kubeconfig kubeconfig --manage-all-nodes --cidr 10.244.0.0/16    # exits without stages
  echo '{"apiVersion": "v1", "kind": "Node", "metadata": {"name": "kwok-0"}}' | kubectl apply -f - >/dev/null
  wait_for kubectl wait --for=condition=Ready node/kwok-0 --timeout=1s
fi
wait_for kubectl get sa default
