#!/bin/sh
# usage: node/in.sh DIR load.sh NAMESPACE SELECTOR [PORT HOST]
# Sends requests to the selected pods' port 8080, from the node: most to /a, which answers 200, some to /b, which
# answers 503, in waves; or to that port and that virtual host. There is no DNS and no kube-proxy here, so it asks for the pods' addresses. It ends with
# the node, whose process it is.
while :; do
  for pause in 20000 35000 50000 80000 50000 35000; do
    for ip in $(kubectl -n "$1" get pods -l "$2" -o go-template='{{range .items}}{{if not .metadata.deletionTimestamp}}{{.status.podIP}} {{end}}{{end}}'); do
      for path in a a a a a a a a a b a a a a a a a a a b; do
        timeout 1 busybox wget -qO /dev/null ${4:+--header "Host: $4"} "http://$ip:${3:-8080}/$path"
        busybox usleep $pause
      done
    done
  done
done >/dev/null 2>&1
