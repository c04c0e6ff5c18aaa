"""Files go up and come down only as granted, and what is corrupt costs only its sender."""

from __future__ import annotations

import contextlib
import hashlib
import threading

import grpc
import pytest

from covey.node.membership.enrolment import enrol
from covey.protos import coordinator_pb2 as pb
from tests.integration.hostile.node import Hostile, flipped, messages, name_of
from tests.integration.hostile.runs import LARGE, SHORT, STATUS, finish, outcomes, status_of, submit

pytestmark = [pytest.mark.processes, pytest.mark.timeout(180)]


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
    assert first["n1"][0] == "late"
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


def trickle(node, digest, data, ended):
    """Upload one chunk, and then nothing until told to end, or refused."""

    def slowly():
        yield messages(data)[0]
        ended.wait(60)

    with contextlib.suppress(grpc.RpcError):
        node.upload(digest, slowly())


def test_two_that_trickle_do_not_keep_others_from_uploading(federation, hostile, tmp_path):
    enrol(federation.admin.create_token("trickle"), tmp_path / "identity")
    federation.node(0).suspend()
    ended, threads = threading.Event(), []
    with Hostile(tmp_path / "identity", federation.coordinator_address) as second:
        federation.wait_connected(3)
        run = submit(federation, "trickle", policy="quorum = 0.3\nrejoin_s = 1", **LARGE)
        offers = {}
        try:
            for node in (hostile, second):
                claim, data = node.update(node.assignment(run, 1))
                offers[node] = node.offer(claim, data, inline=False)
                node.session.send(offer=offers[node])
                node.session.take("upload")
                digest = claim["parts"][0]["digest"]
                threads.append(threading.Thread(target=trickle, args=(node, digest, data, ended)))
                threads[-1].start()
        finally:
            federation.node(0).resume()
        federation.until(lambda: outcomes(federation, run, 1).get("n0", ("",))[0] == "received", 60, "no upload of n0")
        # Who was interrupted goes on where it ended, once there is room.
        ended.set()
        for thread in threads:
            thread.join()
        for node in (hostile, second):
            node.session.send(offer=offers[node])
            (left,) = node.session.take("upload", lambda grant, of=node: grant.parts[0].offset == 1 << 20).parts
            assert left.offset == 1 << 20
            node.session.send(decline=pb.Decline(run=run, round=1, attempt=1, code="declined", reason="enough"))
        federation.wait(run)
    assert outcomes(federation, run, 1)["n0"][0] == "accepted"
