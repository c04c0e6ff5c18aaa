"""Who only holds calls open, or shows a certificate that is nobody's any more, keeps nobody else out."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3

import grpc
import grpc.aio
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from covey.errors import IdentityError
from covey.node.membership.enrolment import enrol
from covey.protos import coordinator_pb2 as pb
from covey.protos.coordinator_pb2_grpc import CoordinatorStub
from covey.testing.admin import AdminClient
from covey.wire.channels import channel_credentials, channel_options
from covey.wire.identities.authority import Authority, private_pem
from covey.wire.identities.identity import Identity, signing_request, tls_key_in
from tests.integration.hostile.node import Hostile
from tests.integration.hostile.runs import STATUS, finish, status_of, submit

pytestmark = [pytest.mark.processes, pytest.mark.timeout(180)]
METHODS = ("Session", "Download", "Upload", "Renew")


@contextlib.asynccontextmanager
async def holding(address, credentials, methods, *, connections, calls):
    """So many connections with so many calls each, of which only the headers were sent; the calls."""
    async with contextlib.AsyncExitStack() as stack:
        held = []
        for number in range(connections):
            options = channel_options("coordinator.covey", f"held-{number}")
            channel = await stack.enter_async_context(grpc.aio.secure_channel(address, credentials, options=options))
            await asyncio.wait_for(channel.channel_ready(), 20)
            held += [channel.stream_stream(methods[call % len(methods)])() for call in range(calls)]
        # Sent, as far as they will be: these were answered only because there is no room for so many.
        await asyncio.sleep(0)
        yield held
        for call in held:
            call.cancel()


async def test_calls_without_a_message_do_not_close_enrolment(federation, hostile, tmp_path):
    authority = (federation.coordinator_dir / "admin" / "authority.crt").read_bytes()
    bare, enrolment = grpc.ssl_channel_credentials(authority), ["/covey.v1.Enrolment/Enrol"]
    token = federation.admin.create_token("held-enrolment")
    async with holding(federation.enrol_address, bare, enrolment, connections=8, calls=64):
        joined = await asyncio.to_thread(enrol, token, tmp_path / "identity")
    assert joined.name == "held-enrolment"


async def test_calls_without_a_message_do_not_close_the_main_port(federation, hostile):
    node, run = channel_credentials(hostile.identity), submit(federation, "held")
    first = await asyncio.to_thread(hostile.assignment, run, 1)
    hostile.session.send(decline=pb.Decline(run=run, round=1, attempt=1, code="declined", reason="I hold calls"))
    assert first.round == 1
    methods = [f"/covey.v1.Coordinator/{method}" for method in METHODS]
    async with holding(federation.coordinator_address, node, methods, connections=12, calls=342):
        status = await asyncio.to_thread(
            federation.cli, "coordinator", "status", "--data-dir", federation.coordinator_dir
        )
        assert "running" in status
        await asyncio.to_thread(federation.until, lambda: federation.show(run)["rounds_committed"] >= 1, 60, "no round")
    await asyncio.to_thread(hostile.connect)
    await asyncio.to_thread(finish, federation, hostile, run)


def test_an_eviction_ends_sessions_and_connections(federation, hostile, tmp_path):
    identity = enrol(federation.admin.create_token("to-evict"), tmp_path / "identity")
    with Hostile(tmp_path / "identity", federation.coordinator_address) as evicted:
        other = grpc.secure_channel(
            federation.coordinator_address, channel_credentials(identity), channel_options("coordinator.covey", "idle")
        )
        with other:
            asked = pb.DownloadRequest(digest="0" * 64)
            assert status_of(lambda: list(CoordinatorStub(other).Download(asked, timeout=20))) is STATUS.NOT_FOUND
            gone = []
            other.subscribe(gone.append)
            federation.admin.evict("to-evict")
            assert evicted.session.take("goodbye").code == "evicted"
            evicted.session.ended()
            federation.until(lambda: grpc.ChannelConnectivity.IDLE in gone, 20, "the connection was not ended")
    with (
        pytest.raises((ConnectionError, IdentityError)),
        Hostile(tmp_path / "identity", federation.coordinator_address),
    ):
        pass


def forged(federation, folder, name, role, *, own_key=None):
    """An identity that the federation's own authority certified, behind the record's back."""
    signing_request(folder, name)
    if own_key is not None:
        (folder / "tls.key").write_bytes(own_key)
    issued = Authority.open(federation.coordinator_dir / "keys").issue(
        name, role, tls_key_in(folder / "tls.key").public_key()
    )
    known = Identity.load(federation.coordinator_dir / "admin")
    Identity.write(
        folder,
        name=name,
        role=role,
        federation=known.federation,
        server=known.server,
        coordinator_key=known.coordinator_key,
        certificate=issued.pem,
        authority=known.authority_pem,
    )
    return folder


@pytest.mark.parametrize(("name", "why"), [("nobody", "record"), ("n1", "newest")])
def test_a_node_s_certificate_that_is_not_the_record_s_newest_is_refused(federation, hostile, tmp_path, name, why):
    folder = forged(federation, tmp_path / "forged", name, "node")
    with pytest.raises(ConnectionError, match=why), Hostile(folder, federation.coordinator_address):
        pass


@pytest.mark.parametrize("name", ["nobody", "n0", "local-admin"])
def test_an_admin_s_certificate_that_is_on_no_record_is_refused(federation, hostile, tmp_path, name):
    key = private_pem(ec.generate_private_key(ec.SECP256R1()))
    folder = forged(federation, tmp_path / "forged", name, "admin", own_key=key)
    client = AdminClient(federation.coordinator_address, folder)
    try:
        with pytest.raises(IdentityError, match="record"):
            client.status()
    finally:
        client.close()


def test_after_a_renewal_the_old_certificate_ends_when_the_new_one_is_used(federation, hostile, tmp_path):
    folder = tmp_path / "identity"
    old = enrol(federation.admin.create_token("renewing"), folder)
    with Hostile(folder, federation.coordinator_address) as node:
        csr, key, proof = signing_request(tmp_path / "new", "renewing")
        asked = pb.RenewRequest(csr=csr, signing_key=key, signing_proof=proof)
        lost = node.stub.Renew(asked, timeout=20)  # as if the answer never came
        node.connect()  # with the old one
        reply = node.stub.Renew(asked, timeout=20)
        assert reply.certificate != lost.certificate
    facts = json.loads((folder / "federation.json").read_text())
    Identity.write(
        tmp_path / "new",
        name=old.name,
        role=old.role,
        federation=facts["federation"],
        server=facts["server"],
        coordinator_key=old.coordinator_key,
        certificate=reply.certificate,
        authority=old.authority_pem,
    )
    with Hostile(tmp_path / "new", federation.coordinator_address):
        pass
    # Of the overlap, which lasts a minute, nothing is left after a restart: the record knows that the new one is used.
    with contextlib.closing(sqlite3.connect(federation.coordinator_dir / "covey.db")) as record:
        found = record.execute("SELECT previous_serial FROM nodes WHERE node = 'renewing'").fetchall()
    assert found == [("",)]


def test_nobody_else_on_the_machine_can_read_what_the_coordinator_keeps(federation, hostile):
    folder = federation.coordinator_dir
    open_ones = [path for path in (folder, *folder.rglob("*")) if path.lstat().st_mode & 0o077]
    assert open_ones == []
