#!/bin/bash
# usage: node/in.sh DIR COMMAND ...     runs a command inside the namespaces of the node in DIR
. "$(dirname "$(readlink -f "$0")")/../env.sh"
W=$(readlink -m "$1"); shift
export NO_PROXY='*' no_proxy='*' KUBECONFIG=$W/inside.kubeconfig KUBECACHEDIR=$W/kubecache
# nsenter -m resets the working directory.
exec nsenter -t "$(cat "$W/init.pid")" -n -m -p -- bash -c 'cd "$0" && exec "$@"' "$PWD" "$@"
