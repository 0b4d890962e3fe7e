#!/bin/bash
# usage: control-plane/down.sh DIR     kills what up.sh DIR started (by pid, and only if it still runs in DIR)
D=$(readlink -m "${1:?usage: control-plane/down.sh DIR}"); [ -e "$D/pids" ] || exit 0
mine() { [ "$(readlink "/proc/$1/cwd")" = "$D" ]; }
# On TERM the API server would linger for seconds; nothing here is to be kept.
while read -r p _; do mine "$p" && kill -KILL "$p"; done <"$D/pids"
while read -r p _; do for _ in {1..100}; do mine "$p" || break; sleep 0.05; done; done <"$D/pids"
rm -f "$D/pids"
