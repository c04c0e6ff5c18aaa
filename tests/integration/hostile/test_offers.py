"""A node that lies costs its own update in that round: not the round, the run, the other nodes or the coordinator."""

from __future__ import annotations

import numpy as np
import pytest

from tests.integration.hostile.attacks import (
    a_terabyte,
    announced,
    changed,
    changed_part,
    corrupt_inline,
    deeply_nested,
    extra_part,
    garbage,
    half_inline,
    missing_part,
    naming_another_key,
    part_not_announced,
    short_signature,
    signed_with_another_key,
    two_megabytes,
    wrong_signature,
    wrong_size,
)
from tests.integration.hostile.runs import SHORT, finish, outcomes, submit

pytestmark = [pytest.mark.processes, pytest.mark.timeout(180)]


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
    assert first["n1"][0] in ("late", "rejected")
    assert first["n1"][1]


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
