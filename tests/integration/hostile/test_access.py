"""Who may do what: nodes, auditors and strangers get no further than their role."""

from __future__ import annotations

import grpc
import pytest

from covey.errors import IdentityError
from covey.messages import WIRE
from covey.node.membership.enrolment import enrol
from covey.protos import admin_pb2
from covey.protos import coordinator_pb2 as pb
from covey.protos.admin_pb2_grpc import AdminStub
from covey.protos.coordinator_pb2_grpc import CoordinatorStub
from covey.testing.admin import AdminClient
from tests.integration.hostile.node import Hostile
from tests.integration.hostile.runs import STATUS, finish, status_of, submit
from tests.integration.specs import spec

pytestmark = [pytest.mark.processes, pytest.mark.timeout(180)]


def refused_by_admin(client):
    """Every writing method of the admin service refuses this caller."""
    for call in (
        lambda: client.submit(spec()),
        lambda: client.stop_run("x"),
        lambda: client.evict("n0"),
        lambda: client.create_token("n9"),
        lambda: client.pause(True),
        lambda: client.drain(),
    ):
        with pytest.raises(IdentityError, match="may not"):
            call()


def test_a_node_may_not_use_the_admin_service(federation, hostile):
    client = AdminClient(federation.coordinator_address, hostile.folder)
    try:
        refused_by_admin(client)
        for call in (client.status, client.runs, client.nodes):
            with pytest.raises(IdentityError, match="may not"):
                call()
    finally:
        client.close()
    assert federation.admin.status()["nodes_connected"] == 2


def test_an_auditor_may_read_and_nothing_else(federation, tmp_path):
    identity = enrol(federation.admin.create_token("watcher", role="auditor"), tmp_path / "auditor")
    client = AdminClient(federation.coordinator_address, tmp_path / "auditor")
    try:
        assert client.status()["nodes_connected"] == 1
        runs = len(client.runs())
        refused_by_admin(client)
        assert len(client.runs()) == runs
    finally:
        client.close()
    assert identity.role == "auditor"
    posing = Hostile(tmp_path / "auditor", federation.coordinator_address)
    with posing.channel:
        session = posing.open()
        try:
            session.send(hello=pb.Hello(version="0", wire=WIRE))
            assert session.ended().code() is STATUS.PERMISSION_DENIED
        finally:
            session.close()


def test_a_node_of_an_older_version_is_refused_in_words(federation, hostile):
    session = hostile.open()
    try:
        session.send(hello=pb.Hello(version="0.1.0"))
        ended = session.ended()
        assert ended.code() is STATUS.FAILED_PRECONDITION
        assert "upgrade the node" in (ended.details() or "")
    finally:
        session.close()


def test_without_a_certificate_nobody_gets_past_the_handshake(federation, hostile):
    credentials = grpc.ssl_channel_credentials(hostile.identity.authority_pem)
    options = [("grpc.ssl_target_name_override", "coordinator.covey")]
    with grpc.secure_channel(federation.coordinator_address, credentials, options) as channel:
        status = AdminStub(channel).Status
        assert status_of(lambda: status(admin_pb2.StatusRequest(), timeout=10)) is STATUS.UNAVAILABLE
        download = CoordinatorStub(channel).Download
        assert status_of(lambda: list(download(pb.DownloadRequest(), timeout=10))) is STATUS.UNAVAILABLE
    with grpc.insecure_channel(federation.coordinator_address) as channel:
        status = AdminStub(channel).Status
        assert status_of(lambda: status(admin_pb2.StatusRequest(), timeout=10)) is STATUS.UNAVAILABLE
    run = submit(federation, "still-there")
    hostile.honest(hostile.assignment(run, 1))
    finish(federation, hostile, run)
