#!/usr/bin/env python3
"""Makes an address inside the node's network reachable on the host's loopback, while the node lives.

usage: forward.py PID HOST PORT     PID: a process inside; prints the port on 127.0.0.1
"""
import os
import shutil
import socket
import sys
import threading


def copy(source, sink):
    try:
        while data := source.recv(65536):
            sink.sendall(data)
    except OSError:
        pass
    finally:
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


def serve(listener, pid, address):
    listener.settimeout(1)
    while os.path.exists(f"/proc/{pid}"):
        try:
            client, _ = listener.accept()
            client.settimeout(None)
            server = socket.create_connection(address)
        except OSError:
            continue
        for pair in ((client, server), (server, client)):
            threading.Thread(target=copy, args=pair, daemon=True).start()


if sys.argv[1] == "--inside":
    descriptor, pid, host, port = sys.argv[2:]
    serve(socket.socket(fileno=int(descriptor)), pid, (host, int(port)))
else:
    pid, host, port = sys.argv[1:]
    outside = socket.create_server(("127.0.0.1", 0))
    print(outside.getsockname()[1], flush=True)
    # A socket stays in the network it was made in; what this program opens from here on is inside.
    os.set_inheritable(outside.fileno(), True)
    nsenter = shutil.which("nsenter") or "/usr/bin/nsenter"
    os.execv(nsenter, [nsenter, "-t", pid, "-n", sys.executable, __file__, "--inside", str(outside.fileno()), pid, host, port])
