#!/bin/bash
# Builds the real Helm, once, into the cache, beside what build.sh makes.
set -eu
. "$(dirname "$(readlink -f "$0")")/env.sh"
"$CLUSTER/build.sh"
. "$CLUSTER/env.sh"; . "$CLUSTER/steps.sh"

helm() { cd "$CLUSTER/go/envoy-gateway"; go build -trimpath -ldflags "-s -w" -o "$BIN/" helm.sh/helm/v3/cmd/helm; }

step helm "$(cd "$CLUSTER/go/envoy-gateway" && { go env GOVERSION; declare -f helm; version helm.sh/helm/v3; } | sha256sum)"
