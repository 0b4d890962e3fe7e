#!/bin/bash
# Builds what tests of certificates need, once, into the cache, beside what build.sh makes: the real cert-manager (its
# controllers and its CA injector as one program, and the CRDs of exactly this version), and libfaketime from Debian.
set -eu
. "$(dirname "$(readlink -f "$0")")/env.sh"
"$CLUSTER/build.sh"
. "$CLUSTER/env.sh"; . "$CLUSTER/steps.sh"
C=$CACHE/cert-manager; F=$CACHE/libfaketime.so

cert-manager() {
  cd "$CLUSTER/go/cert-manager"; go build -trimpath -ldflags "-s -w" -o "$BIN/" .
  rm -rf "$C"; mkdir -p "$C"; cp "$(folder github.com/cert-manager/cert-manager)"/deploy/crds/*.yaml "$C/"; chmod -R u+w "$C"
}
clock() {
  command -v apt-get >/dev/null || missing "libfaketime" "this is no Debian; put it there: $F"
  debian libfaketime; install -m644 deb/x/usr/lib/*/faketime/libfaketimeMT.so.1 "$F"; rm -rf deb
}

[ -d "$C" ] || rm -f "$CACHE/stamp/cert-manager"
step cert-manager "$(cd "$CLUSTER/go/cert-manager" && { go env GOVERSION; declare -f cert-manager; cat go.mod go.sum main.go; } | sha256sum)"
[ -e "$F" ] || step clock "$(now)"
