#!/bin/bash
# usage: node/down.sh DIR     kills one process, pid 1 of the node's pid namespace: the kernel then kills all
# inside it and drops their mounts and interfaces. The cgroups are left to us.
. "$(dirname "$(readlink -f "$0")")/../env.sh"
W=$(readlink -m "$1"); p=$(cat "$W/init.pid" 2>/dev/null) || exit 0
tr '\0' ' ' <"/proc/$p/cmdline" 2>/dev/null | grep -q 'node/up.sh' && kill -9 "$p"
for _ in {1..100}; do [ -e "/proc/$p" ] || break; sleep 0.1; done
rm -f "$W/init.pid"; g=gwmon-$(cksum <<<"$W" | cut -d' ' -f1)
for _ in {1..50}; do # killed processes leave their cgroups one by one
  find /sys/fs/cgroup/"$g" /sys/fs/cgroup/*/"$g" -depth -type d -exec rmdir {} + 2>/dev/null
  ls -d /sys/fs/cgroup/"$g" /sys/fs/cgroup/*/"$g" >/dev/null 2>&1 || exit 0
  sleep 0.1
done
fail "cgroups named $g remain"
