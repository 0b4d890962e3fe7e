#!/bin/bash
# Builds the real gateways that tests/gateways/ runs, once, into the cache, beside what build.sh makes: Contour,
# Envoy Gateway and ingress-nginx from their Go modules, with the manifests of exactly these versions, and HAProxy
# and nginx from Debian. Writes their images as one archive, which a node imports when it is asked to.
set -eu
. "$(dirname "$(readlink -f "$0")")/env.sh"
"$CLUSTER/build.sh"
. "$CLUSTER/env.sh"; . "$CLUSTER/steps.sh"
G=$CACHE/gateways; mkdir -p "$G"
command -v apt-get >/dev/null || missing "HAProxy and nginx" "this is no Debian"

contour() {
  cd "$CLUSTER/go/contour"; go build -trimpath -ldflags "-s -w" -o "$BIN/" tool
  local m=github.com/projectcontour/contour e; e=$(folder $m)/examples
  printf '%s\n' "CONTOUR=$(version $m)" "CONTOUR_ENVOY=$(sed -n 's/^ *image: .*envoyproxy\/envoy://p' "$e/contour/03-envoy.yaml")" >"$G/contour.version"
  manifests contour "$e"/contour/*.yaml
  manifests gateway-api "$e"/gateway/00-crds.yaml          # the kinds of the version that this Contour was built with
  manifests contour-provisioner "$e"/contour/01-crds.yaml "$e"/gateway-provisioner/*.yaml
}
envoy-gateway() {
  cd "$CLUSTER/go/envoy-gateway"; go build -trimpath -ldflags "-s -w" -o "$BIN/" tool
  local m=github.com/envoyproxy/gateway v; v=$(version $m); echo "ENVOY_GATEWAY=$v" >"$G/envoy-gateway.version"
  # In the repository the chart's values are a template of two variables, which a release fills in.
  chart "$(folder $m)/charts/gateway-helm"
  sed "s|\${GatewayImage}|docker.io/envoyproxy/gateway:$v|; s|\${GatewayImagePullPolicy}|IfNotPresent|" chart/values.tmpl.yaml >chart/values.yaml
  rendered envoy-gateway eg envoy-gateway-system
}
ingress-nginx() {
  cd "$CLUSTER/go/ingress-nginx"; local m=k8s.io/ingress-nginx f
  go build -trimpath -ldflags "-s -w" -o "$BIN/nginx-ingress-controller" $m/cmd/nginx; f=$(folder $m)
  install -m644 "$f/rootfs/etc/nginx/nginx.conf" "$G/nginx.conf"       # with which nginx starts, before there is a configuration
  chart "$f/charts/ingress-nginx"
  echo "INGRESS_NGINX=v$(sed -n 's/^appVersion: *//p' chart/Chart.yaml)" >"$G/ingress-nginx.version"
  # Without the admission webhook, whose certificate another image makes; its template has no Lua, see nginx.tmpl.
  rendered ingress-nginx ingress-nginx ingress-nginx --set controller.image.digest=,controller.metrics.enabled=true \
    --set controller.admissionWebhooks.enabled=false,controller.service.type=ClusterIP \
    --set controller.customTemplate.configMapName=nginx-template,controller.customTemplate.configMapKey=nginx.tmpl
}
manifests() { local out=$1; shift; for f in "$@"; do echo ---; cat "$f"; echo; done >"$G/$out.yaml"; }
chart() { cd "$CACHE/work"; rm -rf chart; cp -r "$1" chart; chmod -R u+w chart; }
rendered() { # OUT RELEASE NAMESPACE FLAGS: the chart in ./chart as `helm install` would send it
  local out=$1; helm template "$2" chart --namespace "$3" --include-crds --kube-version "$KUBERNETES" "${@:4}" >"$G/$out.yaml"; rm -rf chart
}
debian-gateways() {
  apt-cache show haproxy >/dev/null 2>&1 || apt-get -q update
  # With every library that they need, whatever it is called in this release, but for the C library itself.
  local p; p=$(apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces --no-enhances haproxy nginx |
    grep -E '^lib(crypt1|lua|opentracing|pcre2|ssl|systemd|stdc|z)') || :
  debian haproxy nginx $p; rm -rf "$G/debian"; mv deb/x "$G/debian"; rm -rf deb
}
gateway-images() { python3 "$CLUSTER/gateways.py" "$G/images.tar" "$CACHE"; }

module contour
module envoy-gateway
module ingress-nginx       # with the helm that came with Envoy Gateway
[ -x "$G/debian/usr/sbin/haproxy" ] && [ -x "$G/debian/usr/sbin/nginx" ] || step debian-gateways "$(now)"
. <(cat "$G"/*.version); export CONTOUR CONTOUR_ENVOY ENVOY_GATEWAY INGRESS_NGINX
step gateway-images "$(stat -Lc '%n %s %Y' "$BIN"/{busybox,envoy,envoy-middle,contour,envoy-gateway,nginx-ingress-controller} "$G/nginx.conf" "$G"/debian/usr/sbin/{haproxy,nginx} "$CLUSTER"/{images,gateways}.py | sha256sum)"
