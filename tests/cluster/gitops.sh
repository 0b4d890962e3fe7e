#!/bin/bash
# Builds what says how Argo CD sees an object, once, into the cache, beside what build.sh makes: a program around its engine.
set -eu
. "$(dirname "$(readlink -f "$0")")/env.sh"
"$CLUSTER/build.sh"
. "$CLUSTER/env.sh"; . "$CLUSTER/steps.sh"

gitops() { cd "$CLUSTER/go/gitops"; go build -trimpath -ldflags "-s -w" -o "$BIN/" .; }

step gitops "$(cd "$CLUSTER/go/gitops" && { go env GOVERSION; declare -f gitops; cat go.mod go.sum main.go; } | sha256sum)"
