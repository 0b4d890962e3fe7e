#!/usr/bin/env python3
"""Writes container images as a docker-archive, which `ctr images import` and `docker load` read. No docker needed.

usage: images.py OUT cluster CACHE               the images that the test cluster runs
       images.py OUT binary REF BINARY [ARCH]    one image: BINARY as its entrypoint, user 65534
"""
import hashlib
import io
import json
import os
import platform
import subprocess
import sys
import tarfile

ARCH = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
# Emissary's contract: on by `true` in any case, port 8125, a flush interval in whole seconds.
EMISSARY = """
is_on() { case "$1" in [Tt][Rr][Uu][Ee]) ;; *) return 1;; esac; }
kind=StatsdSink; if is_on "$DOGSTATSD"; then kind=DogStatsdSink; fi
sink="{name: emissary, typed_config: {'@type': type.googleapis.com/envoy.config.metrics.v3.$kind, address: {socket_address: {protocol: UDP, address: ${STATSD_HOST:-statsd-sink}, port_value: 8125}}}}"
bootstrap='{}'; if is_on "$STATSD_ENABLED"; then bootstrap="{stats_sinks: [$sink], stats_flush_interval: ${STATSD_FLUSH_INTERVAL:-1}s}"; fi
exec envoy -c /etc/envoy/envoy.yaml --config-yaml "$bootstrap"
"""
PASSWD = {
    "/tmp": (0o1777, 0),
    "/etc/passwd": b"root:x:0:0::/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\nenvoy:x:101:101::/:/bin/sh\n",
    "/etc/group": b"root:x:0:\nnobody:x:65534:\nenvoy:x:101:\n",
}


def libraries(binary):
    """The files that a dynamic binary needs, its loader included: absolute path -> real file."""
    found = subprocess.run(["ldd", binary], capture_output=True, text=True)
    return {word: os.path.realpath(word) for word in found.stdout.split() if word.startswith("/")}


def layer(files):
    """A tar of path -> real file | bytes | "->link target" | (mode, uid) for a directory and for what lies in it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        owner = {}

        def directory(path, mode=0o755, uid=0):
            if path and path not in owner:
                directory(os.path.dirname(path))
                owner[path] = uid
                info = tarfile.TarInfo(path)
                info.type, info.mode, info.uid, info.gid = tarfile.DIRTYPE, mode, uid, uid
                tar.addfile(info)

        for path, source in files.items():
            path = path.lstrip("/")
            if isinstance(source, tuple):
                directory(path, *source)
                continue
            directory(os.path.dirname(path))
            info = tarfile.TarInfo(path)
            if isinstance(source, bytes):
                data, info.mode = source, 0o644
            elif source.startswith("->"):
                info.type, info.linkname, data = tarfile.SYMTYPE, source[2:], b""
            else:
                with open(source, "rb") as file:
                    data, info.mode = file.read(), 0o755
            info.size = len(data)
            info.uid = info.gid = owner.get(os.path.dirname(path), 0)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def cluster_images(cache):
    """Reference -> ([files of one layer, ...], config); paths, entrypoints and users are those of the published images."""
    def binary(name):
        return os.path.join(cache, "bin", name)

    version = os.environ
    applets = subprocess.run([binary("busybox"), "--list"], capture_output=True, text=True, check=True).stdout.split()
    base = {"/bin/busybox": binary("busybox"), **{f"/bin/{a}": "->busybox" for a in applets if a != "busybox"}, **PASSWD}

    def simple(name, user, **config):
        return [base, {f"/bin/{name}": binary(name)}], {"Entrypoint": [f"/bin/{name}"], "User": user, **config}

    with open(os.path.join(cache, "upstream/prometheus.yml"), "rb") as file:
        prometheus_yml = file.read()
    prometheus = {
        "/prometheus": (0o775, 65534),
        "/etc/prometheus": (0o755, 65534),
        "/bin/prometheus": binary("prometheus"),
        "/bin/promtool": binary("promtool"),
        "/etc/prometheus/prometheus.yml": prometheus_yml,
    }
    envoy = [base, {"/usr/local/bin/envoy": binary("envoy"), **libraries(binary("envoy"))}]
    # Like the published image, arguments that start with - go to envoy. Unlike it, it stays the user it is given.
    entrypoint = 'case "$1" in -*) set -- envoy "$@";; esac; exec "$@"'
    return {
        "localhost/pause:1": ([{"/bin/busybox": binary("busybox")}], {"Entrypoint": ["/bin/busybox", "sleep", "inf"]}),
        "docker.io/library/busybox:1.35": ([base], {"Cmd": ["sh"]}),
        f"quay.io/prometheus/statsd-exporter:{version['EXPORTER']}": simple(
            "statsd_exporter", "65534", ExposedPorts={"9102/tcp": {}, "9125/tcp": {}, "9125/udp": {}}),
        f"quay.io/prometheus-operator/prometheus-operator:{version['OPERATOR']}": simple("operator", "65534"),
        f"quay.io/prometheus-operator/prometheus-config-reloader:{version['OPERATOR']}": simple("prometheus-config-reloader", "nobody"),
        f"quay.io/prometheus/prometheus:{version['PROMETHEUS']}": ([base, prometheus], {
            "Entrypoint": ["/bin/prometheus"],
            "Cmd": ["--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus"],
            "User": "nobody", "WorkingDir": "/prometheus", "Volumes": {"/prometheus": {}}, "ExposedPorts": {"9090/tcp": {}}}),
        f"docker.io/envoyproxy/envoy:{version['ENVOY']}": (
            envoy, {"Entrypoint": ["/bin/sh", "-c", entrypoint, "--"], "Cmd": ["envoy", "-c", "/etc/envoy/envoy.yaml"]}),
        # Not the real ones, which cannot be had: what they make of their environment and arguments, and the real Envoy.
        "docker.io/emissaryingress/emissary:3.9.1": (envoy, {"Entrypoint": ["/bin/sh", "-c", EMISSARY]}),
        "cr.kgateway.dev/kgateway-dev/envoy-wrapper:v2.1.0": (envoy, {
            "Entrypoint": ["/bin/sh", "-c", 'exec envoy --config-yaml "$(cat /etc/envoy/envoy.yaml)" "$@"', "--"]}),
        "ghcr.io/projectcontour/contour:v1.33.0": ([base], {"Cmd": ["sh"]}),
    }


def binary_image(reference, path, arch):
    # A binary of another architecture is static.
    files = {f"/{os.path.basename(path)}": path, **(libraries(path) if arch == ARCH else {})}
    labels = {
        "org.opencontainers.image.title": "gwmon",
        "org.opencontainers.image.licenses": "Apache-2.0",
        "org.opencontainers.image.version": reference.rsplit(":", 1)[1],
    }
    return {reference: ([PASSWD, files], {"Entrypoint": [f"/{os.path.basename(path)}"], "User": "65534", "Labels": labels})}


def write(out, images, arch=ARCH):
    with tarfile.open(out + ".tmp", "w") as tar:
        manifest, done, cached = [], set(), {}

        def add(name, data):
            if name not in done:
                done.add(name)
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))

        for reference, (layers, config) in images.items():
            digests = []
            for files in layers:
                data = cached.get(id(files)) or layer(files)
                if files is not layers[-1]:
                    cached[id(files)] = data
                digests.append(hashlib.sha256(data).hexdigest())
                add(f"{digests[-1]}/layer.tar", data)
            config = {"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], **config}
            root = {"type": "layers", "diff_ids": ["sha256:" + digest for digest in digests]}
            data = json.dumps({"architecture": arch, "os": "linux", "config": config, "rootfs": root}).encode()
            name = hashlib.sha256(data).hexdigest() + ".json"
            add(name, data)
            manifest.append({"Config": name, "RepoTags": [reference], "Layers": [f"{digest}/layer.tar" for digest in digests]})
        add("manifest.json", json.dumps(manifest).encode())
    os.replace(out + ".tmp", out)


if __name__ == "__main__":
    match sys.argv[1:]:
        case [out, "cluster", cache]:
            write(out, cluster_images(cache))
        case [out, "binary", reference, path, *arch]:
            arch = arch[0] if arch else ARCH
            write(out, binary_image(reference, path, arch), arch)
        case _:
            sys.exit(__doc__)
