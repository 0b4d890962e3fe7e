# Sourced by every script here: where things are.
CLUSTER=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
# What build.sh makes. The one setting: GWMON_CLUSTER_CACHE.
CACHE=$(readlink -m "${GWMON_CLUSTER_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/gwmon-cluster}")
BIN=$CACHE/bin
export PATH=${KUBEBUILDER_ASSETS:+$KUBEBUILDER_ASSETS:}$BIN:$PATH:/usr/sbin:/sbin
[ ! -e "$CACHE/versions" ] || . "$CACHE/versions"     # KUBERNETES, OPERATOR, PROMETHEUS, EXPORTER, ENVOY

now() { date +%s%N; }
took() { local ms=$((($(now) - $1) / 1000000)); printf '%d.%d s' $((ms / 1000)) $((ms % 1000 / 100)); }
fail() { echo "$(basename "$(dirname "$0")")/$(basename "$0"): $*" >&2; exit 1; }
