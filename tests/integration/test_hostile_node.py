"""A node that lies costs its own update in that round: not the round, the run, the other nodes or the coordinator."""

from __future__ import annotations

import hashlib

import grpc
import numpy as np
import pytest

from covey.errors import IdentityError
from covey.messages import WIRE
from covey.node.membership.enrolment import enrol
from covey.protos import admin_pb2
from covey.protos import coordinator_pb2 as pb
from covey.protos.admin_pb2_grpc import AdminStub
from covey.protos.coordinator_pb2_grpc import CoordinatorStub
from covey.testing.admin import AdminClient
from covey.testing.federation import Federation
from covey.wire.signing import ReceiptStatement, SigningKey, verify
from tests.integration.conftest import BIG, spec
from tests.integration.hostile import Hostile, flipped, messages, name_of, part_of, statement_of

pytestmark = [pytest.mark.processes, pytest.mark.timeout(180)]
POLICY = "quorum = 0.5\nrejoin_s = 1"
SHORT = POLICY + "\ndeadline_s = 5\nhard_deadline_s = 6"
CENTRAL = '[evaluation]\nwhere = "central"'
"""Else a run's end waits for every node's evaluation, which a hostile one does not send."""
LARGE = BIG | {"rounds": 1, "extra": "[evaluation]\nevery = 0"}
STATUS = grpc.StatusCode


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    """An honest node n0, and n1, whose identity the tests use themselves."""
    with Federation(tmp_path_factory.mktemp("federation"), nodes=2) as made:
        made.start_coordinator()
        made.join()
        made.start_node(0)
        made.wait_connected(1)
        yield made


@pytest.fixture
def hostile(federation):
    """n1, connected. Whatever it did, the coordinator is up afterwards and had no error of its own."""
    log, pid = federation.coordinator.log, federation.coordinator.pid
    before = len(log.read_text(errors="replace"))
    with Hostile(federation.node_dir(1) / "identity", federation.coordinator_address) as made:
        federation.wait_connected(2)
        yield made
    for left in federation.admin.runs():  # of a test that failed; else the next ones would wait for it
        if left["state"] in ("queued", "running"):
            federation.admin.stop_run(left["run"])
    federation.wait_connected(1)
    assert federation.coordinator.pid == pid
    assert federation.coordinator.alive
    assert "Traceback" not in log.read_text(errors="replace")[before:]


def submit(federation, name, *, rounds=2, policy=POLICY, extra=CENTRAL, **options):
    return federation.submit(spec(name, rounds=rounds, min_nodes=1, policy=policy, extra=extra, **options))


def outcomes(federation, run, number):
    """Node to (verdict, reason) of a round."""
    return {u["node"]: (u["verdict"], u["reason"]) for u in federation.admin.round(run, number)["updates"]}


def finish(federation, hostile, run):
    """Take part in round 2 as one should: both nodes are accepted, and the run completes."""
    hostile.honest(hostile.assignment(run, 2))
    assert federation.wait(run)["rounds_committed"] == 2
    assert {node: verdict for node, (verdict, _) in outcomes(federation, run, 2).items()} == {
        "n0": "accepted",
        "n1": "accepted",
    }


# -- offers that are wrong in themselves


def changed(**fields):
    """An offer whose statement differs in some fields, truly signed."""

    def attack(hostile, assignment):
        claim, data = hostile.update(assignment)
        return hostile.offer(claim | fields, data)

    return attack


def changed_part(**fields):
    """An offer whose statement differs in some fields of its part, truly signed."""

    def attack(hostile, assignment):
        claim, data = hostile.update(assignment)
        return hostile.offer(claim | {"parts": [claim["parts"][0] | fields]}, data)

    return attack


def announced(**fields):
    """An offer whose announced file differs from what the statement says."""

    def attack(hostile, assignment):
        claim, data = hostile.update(assignment)
        return hostile.offer(claim, data, parts=[part_of(data, inline=False, **fields)])

    return attack


def wrong_signature(hostile, assignment):
    return hostile.offer(*hostile.update(assignment), signature=bytes(64))


def short_signature(hostile, assignment):
    return hostile.offer(*hostile.update(assignment), signature=b"x")


def signed_with_another_key(hostile, assignment):
    claim, data = hostile.update(assignment)
    signature = SigningKey.generate().sign(statement_of(claim))
    return hostile.offer(claim, data, signature=signature)


def naming_another_key(hostile, assignment):
    claim, data = hostile.update(assignment)
    other = SigningKey.generate()
    claim["key"] = other.key_id
    return hostile.offer(claim, data, signature=other.sign(statement_of(claim)))


def extra_part(hostile, assignment):
    claim, data = hostile.update(assignment)
    claim["parts"].append(claim["parts"][0] | {"name": "buffers"})
    return hostile.offer(claim, data, parts=[part_of(data, inline=False), part_of(data, name="buffers", inline=False)])


def missing_part(hostile, assignment):
    claim, data = hostile.update(assignment)
    return hostile.offer(claim | {"parts": []}, data, parts=[])


def part_not_announced(hostile, assignment):
    return hostile.offer(*hostile.update(assignment), parts=[])


def wrong_size(hostile, assignment):
    _, data = hostile.update(assignment)
    return hostile.offer(*hostile.update(assignment, data[:-4]))


def a_terabyte(hostile, assignment):
    claim, data = hostile.update(assignment)
    claim["parts"][0]["bytes"] = 1 << 40
    return hostile.offer(claim, data, parts=[part_of(data, inline=False, size_bytes=1 << 40)])


def corrupt_inline(hostile, assignment):
    claim, data = hostile.update(assignment)
    part = part_of(data)
    part.data = flipped(data)
    return hostile.offer(claim, data, parts=[part])


def half_inline(hostile, assignment):
    claim, data = hostile.update(assignment)
    part = part_of(data)
    part.data = data[: len(data) // 2]
    return hostile.offer(claim, data, parts=[part])


def garbage(hostile, assignment):
    return hostile.offer(bytes(range(256)) * 4, b"", parts=[])


def deeply_nested(hostile, assignment):
    return hostile.offer(b"[" * 500_000, b"", parts=[])


def two_megabytes(hostile, assignment):
    claim, data = hostile.update(assignment)
    return hostile.offer(claim | {"padding": "x" * (2 << 20)}, data)


ATTACKS = [
    (wrong_signature, "signature"),
    (short_signature, "signature"),
    (signed_with_another_key, "signature"),
    (naming_another_key, "key"),
    (changed(node="n0"), "another node"),
    (changed(federation="0" * 32), "federation"),
    (changed(weight=0.0), "weight"),
    (changed(weight=-1.0), "weight"),
    (changed(weight=1e300), "weight"),
    (changed(weight=float("nan")), "statement"),
    (changed(weight=10**400), "weight"),
    (changed(metrics={"loss": [1.0]}), "metric"),
    (missing_part, "part"),
    (part_not_announced, "part"),
    (extra_part, "part"),
    (wrong_size, "bytes|size"),
    (changed_part(bytes=1), "size"),
    (changed_part(layout="0" * 64), "layout"),
    (changed_part(codec="zip"), "codec"),
    (changed_part(digest="0" * 64), "layout|digest"),
    (announced(chunk_sha256=bytes(64)), "chunk"),
    (announced(chunk_sha256=bytes(32)), "chunk"),
    (a_terabyte, "1099511627776"),
    (corrupt_inline, "chunk"),
    (half_inline, "whole"),
    (garbage, "statement"),
    (deeply_nested, "statement"),
    (two_megabytes, "statement"),
]
NAMES = [
    "wrong-signature",
    "short-signature",
    "signed-with-another-key",
    "naming-another-key",
    "another-node",
    "another-federation",
    "weight-0",
    "weight-negative",
    "weight-1e300",
    "weight-nan",
    "weight-10e400",
    "odd-metric",
    "missing-part",
    "part-not-announced",
    "extra-part",
    "wrong-size",
    "size-not-as-announced",
    "wrong-layout",
    "wrong-codec",
    "digest-not-as-announced",
    "chunk-table-too-long",
    "chunk-table-of-another-digest",
    "a-terabyte",
    "corrupt-inline",
    "half-inline",
    "garbage",
    "deeply-nested",
    "two-megabytes",
]


@pytest.mark.parametrize(("attack", "why"), ATTACKS, ids=NAMES)
def test_a_wrong_offer_costs_its_sender_this_round(federation, hostile, attack, why):
    run = submit(federation, "wrong-offer")
    refusal = hostile.refused(attack(hostile, hostile.assignment(run, 1)))
    assert any(word in refusal.reason for word in why.split("|")), refusal.reason
    finish(federation, hostile, run)
    first = outcomes(federation, run, 1)
    assert first["n0"][0] == "accepted"
    verdict, reason = first["n1"]
    assert verdict == "rejected"
    assert any(word in reason for word in why.split("|")), reason


def test_an_update_from_another_base_does_not_count(federation, hostile):
    run = submit(federation, "another-base", policy=SHORT)
    refusal = hostile.refused(changed(base="0" * 64)(hostile, hostile.assignment(run, 1)))
    assert "base" in refusal.reason
    finish(federation, hostile, run)
    first = outcomes(federation, run, 1)
    assert first["n0"][0] == "accepted"
    assert first["n1"][0] in ("lost", "rejected")
    assert first["n1"][1]


# -- right offers at the wrong time


def test_the_first_update_of_a_round_counts_and_another_is_refused(federation, hostile):
    federation.node(0).suspend()
    try:
        run = submit(federation, "two-updates")
        assignment = hostile.assignment(run, 1)
        first = hostile.offer(*hostile.update(assignment))
        receipt = hostile.deliver(first)
        claim, data = hostile.update(assignment)
        refusal = hostile.refused(hostile.offer(claim | {"weight": 20.0}, data))
        assert refusal.code
        assert refusal.reason
    finally:
        federation.node(0).resume()
    verify(hostile.identity.coordinator_key, receipt.statement, receipt.signature)
    assert ReceiptStatement.from_bytes(receipt.statement).update == name_of(first)
    finish(federation, hostile, run)
    update = next(u for u in federation.admin.round(run, 1)["updates"] if u["node"] == "n1")
    assert (update["verdict"], update["weight"]) == ("accepted", 10.0)


def test_a_rejected_node_cannot_make_up_for_it_in_the_same_round(federation, hostile):
    federation.node(0).suspend()
    try:
        run = submit(federation, "made-up")
        assignment = hostile.assignment(run, 1)
        hostile.refused(wrong_signature(hostile, assignment))
        hostile.session.send(offer=hostile.offer(*hostile.update(assignment)))
        # An answer to the next message shows that the one before was taken.
        hostile.refused(garbage(hostile, assignment))
    finally:
        federation.node(0).resume()
    finish(federation, hostile, run)
    first = outcomes(federation, run, 1)
    assert first["n0"][0] == "accepted"
    assert first["n1"][0] == "rejected"
    assert "signature" in first["n1"][1]


def test_the_same_offer_twice_is_received_twice_and_counts_once(federation, hostile):
    federation.node(0).suspend()
    try:
        run = submit(federation, "twice")
        offer = hostile.offer(*hostile.update(hostile.assignment(run, 1)))
        receipts = [hostile.deliver(offer), hostile.deliver(offer)]
    finally:
        federation.node(0).resume()
    assert receipts[0].update == receipts[1].update == name_of(offer)
    finish(federation, hostile, run)
    assert [u["node"] for u in federation.admin.round(run, 1)["updates"]] == ["n0", "n1"]
    assert outcomes(federation, run, 1)["n1"][0] == "accepted"


def test_an_offer_for_a_round_that_is_over_is_late_and_costs_nothing_else(federation, hostile):
    run = submit(federation, "late")
    assignment = hostile.assignment(run, 1)
    hostile.session.send(decline=pb.Decline(run=run, round=1, attempt=1, code="declined", reason="not today"))
    second = hostile.assignment(run, 2)
    refusal = hostile.refused(hostile.offer(*hostile.update(assignment)))
    assert refusal.reason
    hostile.honest(second)
    assert federation.wait(run)["rounds_committed"] == 2
    verdict, reason = outcomes(federation, run, 1)["n1"]
    assert verdict == "declined"
    assert "not today" in reason
    assert outcomes(federation, run, 2)["n1"][0] == "accepted"
    after = hostile.refused(hostile.offer(*hostile.update(assignment)))
    assert after.reason


def test_an_offer_for_a_run_that_does_not_exist_is_refused(federation, hostile):
    run = submit(federation, "no-such-run")
    assignment = hostile.assignment(run, 1)
    for absent in ("0" * 12, "../../etc/passwd", "' OR 1=1 --"):
        refusal = hostile.refused(changed(run=absent)(hostile, assignment))
        assert refusal.reason
    hostile.session.send(decline=pb.Decline(run=run, round=1, attempt=1, code="declined", reason="enough"))
    finish(federation, hostile, run)
    first = outcomes(federation, run, 1)
    assert first["n0"][0] == "accepted"
    assert first["n1"][0] in ("declined", "rejected")


def test_the_newest_session_wins(federation, hostile):
    federation.node(0).suspend()
    try:
        run = submit(federation, "two-sessions")
        hostile.assignment(run, 1)
        older, newer = hostile.session, hostile.connect()
        assert older.take("goodbye").code == "replaced"
        assert older.ended() is None
        assert hostile.session is newer
        hostile.honest(hostile.assignment(run, 1))
        older.send(decline=pb.Decline(run=run, round=1, attempt=1, code="declined", reason="from the grave"))
    finally:
        federation.node(0).resume()
    finish(federation, hostile, run)
    assert outcomes(federation, run, 1)["n1"][0] == "accepted"


# -- what only the worker sees


@pytest.mark.parametrize("value", [np.nan, np.inf], ids=["nan", "inf"])
def test_an_update_that_is_not_finite_is_rejected_by_the_worker(federation, hostile, value):
    run = submit(federation, "not-finite")
    assignment = hostile.assignment(run, 1)
    _, data = hostile.update(assignment)
    vector = np.frombuffer(data, "<f4").copy()
    vector[-1] = value
    hostile.deliver(hostile.offer(*hostile.update(assignment, vector.tobytes())))
    finish(federation, hostile, run)
    first = outcomes(federation, run, 1)
    assert first["n0"][0] == "accepted"
    assert first["n1"][0] == "rejected"
    assert "finite" in first["n1"][1]


# -- bulk


def status_of(call):
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code()


def test_nothing_can_be_uploaded_without_an_offer_and_a_grant(federation, hostile):
    run = submit(federation, "no-grant")
    assignment = hostile.assignment(run, 1)
    claim, data = hostile.update(assignment)
    digest = claim["parts"][0]["digest"]
    for wanted in (digest, "", "0" * 64, "../../coordinator.json"):
        assert status_of(lambda wanted=wanted: hostile.upload(wanted, messages(data))) is STATUS.NOT_FOUND
    for offset in ("-1", "1e3", "x"):
        assert status_of(lambda offset=offset: hostile.upload(digest, [], offset)) is STATUS.NOT_FOUND
    hostile.honest(assignment)
    finish(federation, hostile, run)


def test_corrupt_chunks_cost_only_the_attempt(federation, hostile):
    run = submit(federation, "corrupt", **LARGE)
    claim, data = hostile.update(hostile.assignment(run, 1))
    offer, digest = hostile.offer(claim, data, inline=False), claim["parts"][0]["digest"]
    hostile.session.send(offer=offer)
    grant = hostile.session.take("upload")
    assert [(part.digest, part.offset) for part in grant.parts] == [(digest, 0)]
    good = messages(data)
    for bad in ([flipped(good[0])], [b"\xff" * 100], [good[0][:-1]], [], [good[0], flipped(good[1])]):
        assert status_of(lambda bad=bad: hostile.upload(digest, bad)) not in (STATUS.UNKNOWN, STATUS.INTERNAL)
    hostile.session.send(offer=offer)
    (left,) = hostile.session.take("upload").parts
    assert left.offset == 1 << 20  # what was valid is kept, and nothing else
    hostile.upload(digest, good[1:], str(left.offset))
    hostile.session.take("receipt", lambda receipt: receipt.update == name_of(offer))
    federation.wait(run)
    assert {node: verdict for node, (verdict, _) in outcomes(federation, run, 1).items()} == {
        "n0": "accepted",
        "n1": "accepted",
    }


def test_a_node_that_never_uploads_what_it_offered_is_lost(federation, hostile):
    run = submit(federation, "never", policy=SHORT, **LARGE)
    claim, data = hostile.update(hostile.assignment(run, 1))
    hostile.session.send(offer=hostile.offer(claim, data, inline=False))
    hostile.session.take("upload")
    digest = claim["parts"][0]["digest"]
    corrupt = [flipped(messages(data)[0])]
    assert status_of(lambda: hostile.upload(digest, corrupt)) is STATUS.DATA_LOSS
    federation.wait(run)
    first = outcomes(federation, run, 1)
    assert first["n0"][0] == "accepted"
    assert first["n1"][0] == "lost"
    assert first["n1"][1]


def test_only_the_base_model_can_be_downloaded(federation, hostile):
    run = submit(federation, "download")
    assignment = hostile.assignment(run, 1)
    base = assignment.model
    assert hashlib.sha256(hostile.download(base.digest)).digest() == base.chunk_sha256
    for digest in ("", "0" * 64, "../../coordinator.json", base.digest.upper()):
        assert status_of(lambda digest=digest: hostile.download(digest)) is STATUS.NOT_FOUND
    for offset in (1, base.size_bytes + 1, 1 << 20, 2**63, 2**64 - 1):
        refused = status_of(lambda offset=offset: hostile.download(base.digest, offset))
        assert refused not in (STATUS.INTERNAL, STATUS.UNKNOWN)
    hostile.honest(assignment)
    finish(federation, hostile, run)


# -- who may do what


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


# -- too much of everything


def test_a_flood_of_messages_is_read_at_a_pace_that_leaves_room_for_others(federation, hostile):
    run = submit(federation, "flood", policy=SHORT)
    work = hostile.assignment(run, 1)
    for step in range(20_000):
        hostile.session.send(progress=pb.Progress(run=run, round=1, phase="training", step=step, steps=20_000))
    hostile.session.send(decline=pb.Decline(run=run, round=work.round, code="flood", reason="the last message"))
    assert federation.wait(run)["rounds_committed"] == 2
    # What came after the flood had its turn only after it: the rest of it was not even read yet.
    assert outcomes(federation, run, 1)["n1"][0] == "lost"
