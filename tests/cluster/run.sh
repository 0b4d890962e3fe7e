#!/bin/bash
# usage: run.sh control-plane|node DIR
# Brings a cluster up in DIR, says "ready", and takes it down when standard input ends: it cannot outlive
# whoever holds the other end, however that one ends.
set -u
. "$(dirname "$(readlink -f "$0")")/env.sh"
level=$1 dir=$2
trap : INT TERM HUP           # like an end of input: read returns
if "$CLUSTER/$level/up.sh" "$dir" >&2; then echo ready; while read -r _; do :; done; fi
"$CLUSTER/$level/down.sh" "$dir"; rc=$?
rm -rf "$CACHE/log/last-$level"; mv "$dir/log" "$CACHE/log/last-$level" 2>/dev/null
rm -rf "$dir"; exit $rc
