"""The audit of a run whose updates are decided on one by one."""

from __future__ import annotations

import hashlib

import pytest

from covey.client.audit.verify import examine
from covey.client.reading.translation import signed_of
from covey.client.values import Run
from covey.protos import admin_pb2 as pb
from covey.wire.identities.signing import CommitStatement, CommitVerdict, PartStatement, SigningKey, UpdateStatement

FEDERATION, RUN = "fe" * 16, "3f9a01c2d4e5"
COORDINATOR, NODE = SigningKey.generate(), SigningKey.generate()
MODELS = {0: "00" * 32, 1: "11" * 32, 2: "22" * 32}


def update(number, base, verdict="accepted"):
    part = PartStatement("model", "none", {}, "1a" * 32, f"{number:02x}" * 32, 40)
    made = UpdateStatement(FEDERATION, RUN, number, "a", NODE.key_id, MODELS[base], (part,), 10.0, {})
    raw = made.to_bytes()
    return pb.SignedUpdate(
        round=number,
        node="a",
        statement=raw,
        signature=NODE.sign(raw),
        signing_key=NODE.public_bytes,
        verdict=verdict,
        kept=True,
        base_version=base,
    )


def commit(version, number, judged, parent=b""):
    verdicts = tuple(
        CommitVerdict("a", hashlib.sha256(u.statement).hexdigest(), u.verdict, "", share, u.round)
        for u, share in judged
    )
    parent_digest = hashlib.sha256(parent).hexdigest() if parent else ""
    raw = CommitStatement(
        FEDERATION, RUN, number, version, MODELS[version], "cc" * 32, parent_digest, verdicts, ()
    ).to_bytes()
    assert CommitStatement.from_bytes(raw).verdicts == verdicts
    return pb.Commit(version=version, statement=raw, signature=COORDINATOR.sign(raw))


def chain():
    """Version 1 from an update and a rejection before it, version 2 from a stale update; then a rejection."""
    updates = [update(1, 0, "rejected"), update(2, 0), update(5, 0), update(6, 1, "rejected"), update(7, 2, "held")]
    first = commit(1, 2, [(updates[0], 0.0), (updates[1], 0.5)])
    second = commit(2, 5, [(updates[2], 0.25)], first.statement)
    return pb.AuditReply(coordinator_key=COORDINATOR.public_bytes, commits=[first, second], updates=updates)


def problems(reply):
    run = Run(RUN, "d", "async", "completed", rounds_committed=2, model_sha256=MODELS[2])
    return list(examine(signed_of([reply]), run, FEDERATION, COORDINATOR.public_bytes, MODELS[0]).problems)


def test_an_untouched_asynchronous_run_is_right():
    assert problems(chain()) == []


def _other_base(reply):
    reply.updates[2].base_version = 1


def _other_verdict(reply):
    reply.updates[0].verdict = "accepted"


def _uncommitted(reply):
    reply.updates[4].verdict = "accepted"


def _gone(reply):
    del reply.updates[0]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (_other_base, "round 5, update of a: was not made from version 1"),
        (_other_verdict, "round 1, update of a: is on record as accepted, but was committed as rejected"),
        (_uncommitted, "round 7, update of a: is on record as accepted, but in no commit"),
        (_gone, "round 1, update of a: is in the commit, but not on record"),
    ],
)
def test_a_changed_asynchronous_record_is_noticed(change, expected):
    reply = chain()
    change(reply)
    assert problems(reply) == [expected]
