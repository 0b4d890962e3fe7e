#!/bin/bash
# A one-node Kubernetes (etcd, API server, controller manager, scheduler, containerd, kubelet) in net, mount and
# pid namespaces of its own. Nothing leaves the net namespace (it has no uplink); one process, pid 1 inside, owns
# everything. Needs root.
# usage: node/up.sh DIR     DIR/kubeconfig works from outside, DIR/inside.kubeconfig inside
set -eu
. "$(dirname "$(readlink -f "$0")")/../env.sh"
W=$(readlink -m "${1:?usage: node/up.sh DIR}")
export NO_PROXY='*' no_proxy='*' KUBECONFIG=$W/inside.kubeconfig KUBECACHEDIR=$W/kubecache
cgroup=gwmon-$(cksum <<<"$W" | cut -d' ' -f1)      # one cgroup per run folder

kubeconfig() { # FILE SERVER TOKEN
  cat >"$1" <<K
apiVersion: v1
kind: Config
clusters: [{name: gwmon, cluster: {server: "$2", certificate-authority: $W/certs/apiserver.crt, tls-server-name: kubernetes.default.svc}}]
users: [{name: gwmon, user: {token: $3}}]
contexts: [{name: gwmon, context: {cluster: gwmon, user: gwmon}}]
current-context: gwmon
K
}

if [ "${2:-}" != inside ]; then
  [ "$(id -u)" = 0 ] || fail "needs root (namespaces, mounts, cgroups)"
  case "$W/ $CLUSTER/ $CACHE/" in /var/lib/*|/var/log/*|/run/*|*\ /var/lib/*|*\ /var/log/*|*\ /run/*) fail "$W, $CLUSTER, $CACHE: none may lie under /var/lib, /var/log or /run, which are covered inside";; esac
  [ -e "$CACHE/images.tar" ] || fail "run build.sh first"
  [ ! -e "$W/init.pid" ] || fail "already up, or not taken down: $W/init.pid"
  mkdir -p "$W"; disk 2 "$W"
  s=$(now); rm -rf "$W"; umask 077; mkdir -p "$W"/{log,lib,fake,certs,kcm,cni,log/pods}
  if [ -e /sys/fs/cgroup/cgroup.controllers ]; then mkdir -p "/sys/fs/cgroup/$cgroup"; else for c in /sys/fs/cgroup/*/; do [ -L "${c%/}" ] || mkdir -p "$c$cgroup"; done; fi
  umask 022
  setsid unshare --net --mount --propagation private --pid --fork --mount-proc --kill-child "$0" "$W" inside >"$W/log/up.log" 2>&1 </dev/null & u=$!
  until pgrep -P $u >"$W/init.pid"; do kill -0 $u || fail "see $W/log/up.log"; sleep 0.05; done
  until "$CLUSTER/node/in.sh" "$W" sh -c 'kubectl wait --for=condition=Ready node/gw --timeout=1s && kubectl get sa default' >/dev/null 2>&1; do
    if [ -e "$W/failed" ] || ! kill -0 $u || [ $((($(now) - s) / 1000000000)) -gt 120 ]; then tail -n 15 "$W"/log/*.log; "$CLUSTER/node/down.sh" "$W"; fail "not up"; fi
    sleep 0.2
  done
  setsid python3 "$CLUSTER/forward.py" "$(cat "$W/init.pid")" 10.96.0.1 443 >"$W/api.port" 2>"$W/log/forward.log" </dev/null &
  until [ -s "$W/api.port" ]; do sleep 0.05; done
  kubeconfig "$W/kubeconfig" "https://127.0.0.1:$(cat "$W/api.port")" "$(cat "$W/admin.token")"
  exit 0
fi

trap 'touch "$W/failed"' ERR
# ---- from here on: pid 1 of the node ----
ip link set lo up
ip addr add 10.89.0.1/32 dev lo     # node IP (a kernel may lack dummy devices; an extra address on lo does)
ip addr add 10.96.0.10/32 dev lo    # cluster DNS: nobody listens, so look-ups fail at once instead of timing out
ip addr add 10.96.0.1/32 dev lo     # ClusterIP of default/kubernetes: the API server listens there on 443, so no kube-proxy is needed
mount --bind "$W/lib" /var/lib; mount --bind "$W/log" /var/log; mount -t tmpfs run /run   # default paths, private to this mount namespace
# kubelet insists on these sysctls and would write them to the (global) kernel: show it files that already say so.
i=0; for kv in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
  i=$((i+1)); echo ${kv#*=} >"$W/fake/$i"; mount --bind "$W/fake/$i" /proc/sys/${kv%=*}; done

cd "$W"
start() { local n=$1; shift; "$@" >"$W/log/$n.log" 2>&1 & }

# ---- containerd first: the import of images overlaps with the control plane ----
snapshotter=$([ "$(stat -f -c %T "$W")" = overlayfs ] && echo native || echo overlayfs)   # overlay cannot lie on overlay
cat >containerd.toml <<T
version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  restrict_oom_score_adj = true        # without CAP_SYS_RESOURCE runc cannot write the -998 that the CRI asks for
[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "$snapshotter"
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "$BIN"
  conf_dir = "$W/cni"
T
cat >cni/10-gw.conflist <<T
{"cniVersion":"1.0.0","name":"gw","plugins":[{"type":"bridge","bridge":"cni0","isGateway":true,"ipam":{"type":"host-local","ranges":[[{"subnet":"10.88.0.0/24"}]],"routes":[{"dst":"0.0.0.0/0"}]}}]}
T
echo "$snapshotter" >snapshotter
start containerd containerd -c containerd.toml
( until ctr version >/dev/null 2>&1; do sleep 0.1; done; ctr -n k8s.io images import --snapshotter "$snapshotter" "$CACHE/images.tar" && touch images.done || touch failed ) >"$W/log/import.log" 2>&1 &

# ---- control plane ----
openssl genrsa -out sa.key 2048 2>/dev/null
admin=$(openssl rand -hex 16) node=$(openssl rand -hex 16)
printf '%s\n' "$admin,admin,admin-uid,system:masters" "$node,system:node:gw,node-uid,system:nodes" >tokens.csv
echo "$admin" >admin.token
kubeconfig inside.kubeconfig https://10.96.0.1:443 "$admin"; kubeconfig kubelet.kubeconfig https://10.96.0.1:443 "$node"
start etcd etcd --data-dir "$W/etcd" --listen-client-urls http://127.0.0.1:22379 --advertise-client-urls http://127.0.0.1:22379 --listen-peer-urls http://127.0.0.1:22380 --unsafe-no-fsync
start apiserver kube-apiserver --etcd-servers http://127.0.0.1:22379 --bind-address 0.0.0.0 --secure-port 443 --advertise-address 10.89.0.1 --cert-dir certs \
  --service-account-issuer https://kubernetes.default.svc --service-account-key-file sa.key --service-account-signing-key-file sa.key --token-auth-file tokens.csv \
  --authorization-mode Node,RBAC --enable-admission-plugins NodeRestriction --service-cluster-ip-range 10.96.0.0/16 --allow-privileged --profiling=false \
  --enable-aggregator-routing --kubelet-preferred-address-types InternalIP
until kubectl get --raw /readyz >/dev/null 2>&1; do sleep 0.1; done
start kcm kube-controller-manager --kubeconfig inside.kubeconfig --service-account-private-key-file sa.key --root-ca-file certs/apiserver.crt --use-service-account-credentials --leader-elect=false --secure-port 0
start scheduler kube-scheduler --kubeconfig inside.kubeconfig --leader-elect=false --secure-port 0

# ---- kubelet ----
cat >kubelet.yaml <<K
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
cgroupDriver: cgroupfs
cgroupRoot: /$cgroup
failCgroupV1: false
failSwapOn: false
makeIPTablesUtilChains: false
protectKernelDefaults: true
syncFrequency: 2s                     # default 1m: a changed Secret (Prometheus' configuration) reaches a pod's files only at a sync
resolvConf: ""
clusterDNS: [10.96.0.10]
clusterDomain: cluster.local
evictionHard: {imagefs.available: "0%", nodefs.available: "0%", nodefs.inodesFree: "0%", memory.available: "1Mi"}
imageGCHighThresholdPercent: 100
K
until [ -e images.done ]; do [ ! -e failed ]; sleep 0.1; done
start kubelet kubelet --config kubelet.yaml --kubeconfig kubelet.kubeconfig --hostname-override gw --node-ip 10.89.0.1
wait
