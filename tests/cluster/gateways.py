#!/usr/bin/env python3
"""Writes the images of the real gateways that tests/gateways/ runs; see images.py.

usage: gateways.py OUT CACHE     versions are in the environment
"""
import os
import sys

sys.dont_write_bytecode = True
import images  # noqa: E402


def unpacked(root, *paths):
    """Programs of Debian's, unpacked in `root`, with their libraries, each at its own place."""
    folders = {folder for folder, _, names in os.walk(root) if any(".so." in name for name in names)}
    os.environ["LD_LIBRARY_PATH"] = ":".join(sorted(folders))
    files = {}
    for path in paths:
        files[path] = root + path
        files |= {at.removeprefix(root): real for at, real in images.libraries(root + path).items()}
    del os.environ["LD_LIBRARY_PATH"]
    return files


def gateway_images(cache):
    """Reference -> ([files of one layer, ...], config), as in images.py."""
    def binary(name):
        return os.path.join(cache, "bin", name)

    version, debian = os.environ, os.path.join(cache, "gateways/debian")
    shell = {"/bin/busybox": binary("busybox"), **{f"/bin/{name}": "->busybox" for name in ("sh", "pgrep", "wc", "diff")}}
    # Contour's version of Envoy is one of 1.38's; this is one too.
    contours_envoy = {"/usr/local/bin/envoy": binary("envoy-middle"), **images.libraries(binary("envoy-middle"))}
    www_data = {
        **images.PASSWD,
        "/etc/passwd": b"root:x:0:0::/:/bin/sh\nwww-data:x:101:101::/:/bin/sh\n",
        "/etc/group": b"root:x:0:\nwww-data:x:101:\n",
    }
    writable = ("/etc/nginx", "/etc/ingress-controller/ssl", "/etc/ingress-controller/auth", "/etc/ingress-controller/geoip",
                "/etc/ingress-controller/telemetry", "/var/log/nginx", "/var/lib/nginx", "/tmp/nginx")
    nginx = {f.replace("/usr/sbin/nginx", "/usr/bin/nginx"): real for f, real in unpacked(debian, "/usr/sbin/nginx").items()}
    # What nginx starts with; its controller writes it anew.
    first_configuration = os.path.join(cache, "gateways/nginx.conf")
    return {
        f"ghcr.io/projectcontour/contour:{version['CONTOUR']}": (
            [images.PASSWD, {"/bin/contour": binary("contour")}], {"Entrypoint": ["/bin/contour"], "User": "65534"}),
        f"docker.io/envoyproxy/envoy:{version['CONTOUR_ENVOY']}": (
            [images.PASSWD, contours_envoy], {"Entrypoint": ["/usr/local/bin/envoy"], "User": "65532"}),
        f"docker.io/envoyproxy/gateway:{version['ENVOY_GATEWAY']}": (
            [images.PASSWD, {"/var/lib/eg": (0o1777, 65532), "/usr/local/bin/envoy-gateway": binary("envoy-gateway")}],
            {"Entrypoint": ["/usr/local/bin/envoy-gateway"], "User": "65532"}),
        f"registry.k8s.io/ingress-nginx/controller:{version['INGRESS_NGINX']}": (
            [shell, www_data, {**{path: (0o755, 101) for path in writable}, "/etc/nginx/nginx.conf": first_configuration}, nginx,
             {"/nginx-ingress-controller": binary("nginx-ingress-controller")}],
            {"Entrypoint": ["/nginx-ingress-controller"], "User": "101", "WorkingDir": "/etc/nginx"}),
        # The proxy without its controller, which cannot be had: Debian's HAProxy in the controller's name.
        "docker.io/haproxytech/kubernetes-ingress:3.1": (
            [images.PASSWD, unpacked(debian, "/usr/sbin/haproxy")], {"Entrypoint": ["/usr/sbin/haproxy"], "User": "1000"}),
    }


match sys.argv[1:]:
    case [out, cache]:
        images.write(out, gateway_images(cache))
    case _:
        sys.exit(__doc__)
