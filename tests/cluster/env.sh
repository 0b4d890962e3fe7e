# Sourced by every script here: where things are.
CLUSTER=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
# What build.sh makes. The one setting: GWMON_CLUSTER_CACHE.
CACHE=$(readlink -m "${GWMON_CLUSTER_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/gwmon-cluster}")
BIN=$CACHE/bin
# Other versions than the newest, which stand in front of it (build.sh).
OLDER=${GWMON_TEST_KUBERNETES:+$CACHE/older/kubernetes-$GWMON_TEST_KUBERNETES:}${GWMON_TEST_OPERATOR:+$CACHE/older/operator-$GWMON_TEST_OPERATOR:}
export PATH=$OLDER${KUBEBUILDER_ASSETS:+$KUBEBUILDER_ASSETS:}$BIN:$PATH:/usr/sbin:/sbin
[ ! -e "$CACHE/versions" ] || . "$CACHE/versions"     # KUBERNETES, OPERATOR, PROMETHEUS, EXPORTER, ENVOY

now() { date +%s%N; }
took() { local ms=$((($(now) - $1) / 1000000)); printf '%d.%d s' $((ms / 1000)) $((ms % 1000 / 100)); }
fail() { echo "$(basename "$(dirname "$0")")/$(basename "$0"): $*" >&2; exit 1; }

disk() { # GIB DIR: says now what would be a strange error in the middle of a step
  local free; free=$(df -Pk "$2" | awk 'NR == 2 { print int($4 / 1048576) }')
  [ "$free" -ge "$1" ] || fail "needs $1 GiB of free disk in $2, which has $free; remove build outputs (cargo clean, go clean -cache), or set GWMON_CLUSTER_CACHE to a folder on another disk"
}
