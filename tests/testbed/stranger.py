"""Run inside a container on the nodes' network, without any certificate: prints as JSON how far it gets."""

import json
import socket
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc

from covey.protos import admin_pb2, coordinator_pb2
from covey.protos.admin_pb2_grpc import AdminStub
from covey.protos.coordinator_pb2_grpc import CoordinatorStub, EnrolmentStub
from covey.wire.identities.authority import Authority
from covey.wire.identities.identity import tls_key_in

HOSTS = sys.argv[1].split(",")
UNREACHABLE = sys.argv[2].split(",")
AUTHORITY = sys.stdin.buffer.read()
"""Even whoever knows the federation's authority gets nowhere without a certificate of it."""
OPTIONS = [("grpc.ssl_target_name_override", "coordinator.covey")]


def open_ports(host):
    """Every TCP port up to 10,000 of a host that takes a connection."""

    def is_open(port):
        try:
            socket.create_connection((host, port), 3).close()
        except OSError:
            return False
        return True

    ports = range(1, 10_001)
    with ThreadPoolExecutor(64) as pool:
        return [port for port, found in zip(ports, pool.map(is_open, ports, chunksize=256), strict=True) if found]


def answers(address, port):
    """Whether something answers there at all."""
    try:
        socket.create_connection((address, port), 3).close()
    except OSError:
        return False
    return True


def refused(call):
    """The status with which a call fails; `answered` if it does not."""
    try:
        call()
    except grpc.RpcError as error:
        return error.code().name
    return "answered"


def _foreign():
    """An admin's certificate, of an authority that anybody can make."""
    folder = Path(tempfile.mkdtemp())
    issued = Authority.open(folder).issue("mallory", "admin", tls_key_in(folder / "tls.key").public_key())
    return grpc.ssl_channel_credentials(AUTHORITY, (folder / "tls.key").read_bytes(), issued.pem)


def attempts():
    """What a stranger may try on both listeners."""
    tls = grpc.ssl_channel_credentials(AUTHORITY)
    main = grpc.secure_channel("coordinator:7400", tls, OPTIONS)
    enrol = grpc.secure_channel("coordinator:7401", tls, OPTIONS)
    plain = grpc.insecure_channel("coordinator:7400")
    foreign = grpc.secure_channel("coordinator:7400", _foreign(), OPTIONS)
    empty = coordinator_pb2.EnrolRequest(token_secret=b"guess" * 6)
    return {
        "admin without certificate": refused(lambda: AdminStub(main).Status(admin_pb2.StatusRequest(), timeout=5)),
        "admin of another authority": refused(lambda: AdminStub(foreign).Status(admin_pb2.StatusRequest(), timeout=5)),
        "admin without TLS": refused(lambda: AdminStub(plain).Status(admin_pb2.StatusRequest(), timeout=5)),
        "session without certificate": refused(lambda: list(CoordinatorStub(main).Session(iter(()), timeout=5))),
        "admin on the enrolment port": refused(lambda: AdminStub(enrol).Status(admin_pb2.StatusRequest(), timeout=5)),
        "enrolment with a guess": refused(lambda: EnrolmentStub(enrol).Enrol(empty, timeout=5)),
    }


print(
    json.dumps(
        {
            "open": {host: open_ports(host) for host in HOSTS},
            "reached": [address for address in UNREACHABLE if answers(*address.split(":"))],
            "attempts": attempts(),
        }
    )
)
