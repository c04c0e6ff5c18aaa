"""Right offers at the wrong time: a node has one update in a round, and one session."""

from __future__ import annotations

import pytest

from covey.protos import coordinator_pb2 as pb
from covey.wire.identities.signing import ReceiptStatement, verify
from tests.integration.hostile.attacks import changed, garbage, wrong_signature
from tests.integration.hostile.node import name_of
from tests.integration.hostile.runs import SHORT, finish, outcomes, submit

pytestmark = [pytest.mark.processes, pytest.mark.timeout(180)]


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


def test_a_flood_of_messages_is_read_at_a_pace_that_leaves_room_for_others(federation, hostile):
    run = submit(federation, "flood", policy=SHORT)
    work = hostile.assignment(run, 1)
    for step in range(20_000):
        hostile.session.send(progress=pb.Progress(run=run, round=1, phase="training", step=step, steps=20_000))
    hostile.session.send(decline=pb.Decline(run=run, round=work.round, code="flood", reason="the last message"))
    assert federation.wait(run)["rounds_committed"] == 2
    # What came after the flood had its turn only after it: the rest of it was not even read yet.
    assert outcomes(federation, run, 1)["n1"][0] == "late"
