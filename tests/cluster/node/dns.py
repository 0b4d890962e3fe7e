#!/usr/bin/env python3
"""Cluster DNS for the node, for those who look each other up: NAME.NAMESPACE.svc.cluster.local.

usage: node/in.sh DIR node/dns.py     it ends with the node, whose process it is

The addresses are those of the Service's ready endpoints, also where it has a ClusterIP: no kube-proxy makes that work.
"""
import json
import socket
import struct
import subprocess

ADDRESS = 1             # a question for an IPv4 address: the only one with an answer here
TIME_TO_LIVE = 5        # seconds; pods come and go
FOUND, NO_SUCH_NAME = 0x8580, 0x8583     # an authoritative response with recursion; the last digit is the code


def addresses(name):
    """Those of a Service; None where there is no such name."""
    service, namespace, *zone = name.lower().split(".") if name.count(".") > 1 else (None, None)
    if zone != ["svc", "cluster", "local"]:
        return None
    command = ["kubectl", "-n", namespace, "get", "endpointslices", "-l", f"kubernetes.io/service-name={service}", "-o", "json"]
    answer = subprocess.run(command, capture_output=True)
    slices = json.loads(answer.stdout or b"{}").get("items", [])
    ready = [e for s in slices for e in s.get("endpoints") or [] if e["conditions"].get("ready")]
    return [address for endpoint in ready for address in endpoint["addresses"]] if slices else None


def reply(query):
    """The answer to one question. What is no question that a resolver sends ends in an exception."""
    end, labels = 12, []
    while length := query[end]:
        labels.append(query[end + 1:end + 1 + length].decode())
        end += 1 + length
    kind, = struct.unpack(">H", query[end + 1:end + 3])
    found = addresses(".".join(labels))
    listed = found if found and kind == ADDRESS else []
    code = NO_SUCH_NAME if found is None else FOUND
    # 0xC00C points at the name in the question.
    records = [struct.pack(">HHHIH", 0xC00C, ADDRESS, 1, TIME_TO_LIVE, 4) + socket.inet_aton(a) for a in listed]
    return query[:2] + struct.pack(">HHHHH", code, 1, len(records), 0, 0) + query[12:end + 5] + b"".join(records)


server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("10.96.0.10", 53))
while True:
    question, sender = server.recvfrom(512)
    try:
        server.sendto(reply(question), sender)
    except (IndexError, UnicodeDecodeError, ValueError, struct.error) as error:
        print(error, flush=True)
