"""Runs in which a hostile node takes part, and what becomes of its updates."""

from __future__ import annotations

import grpc
import pytest

from tests.integration.specs import BIG, spec

POLICY = "quorum = 0.5\nrejoin_s = 1"
SHORT = POLICY + "\ndeadline_s = 5\nhard_deadline_s = 6"
CENTRAL = '[evaluation]\nwhere = "central"'
"""Else a run's end waits for every node's evaluation, which a hostile one does not send."""
LARGE = BIG | {"rounds": 1, "extra": "[evaluation]\nevery = 0"}
STATUS = grpc.StatusCode


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


def status_of(call):
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code()
