#!/bin/bash
# What happens to control planes, for tests of those that live with them.
# usage: control-plane/strike.sh DIR restart NAME     kills one of its processes (see DIR/pids) and starts it again
#        control-plane/strike.sh DIR empty            deletes everything from etcd
set -eu
. "$(dirname "$(readlink -f "$0")")/../env.sh"
cd "${1:?usage: control-plane/strike.sh DIR restart NAME|empty}"
pid_of() { awk -v name="$1" '$2 == name {print $1}' pids; }
case $2 in
  restart)
    pid=$(pid_of "$3"); mapfile -d '' -t command <"/proc/$pid/cmdline"
    kill -KILL "$pid"; while kill -0 "$pid" 2>/dev/null; do sleep 0.05; done
    setsid "${command[@]}" >>"log/$3.log" 2>&1 </dev/null &
    sed -i "s/^$pid $3\$/$! $3/" pids;;
  empty)
    url=$(tr '\0' '\n' <"/proc/$(pid_of etcd)/cmdline" | sed -n '/^--listen-client-urls$/{n;p}')
    # From "/" to "0", which is all that the API server has written.
    python3 -c 'import sys, urllib.request as r; r.urlopen(r.Request(sys.argv[1] + "/v3/kv/deleterange", b"{\"key\": \"Lw==\", \"range_end\": \"MA==\"}"))' "$url";;
esac
