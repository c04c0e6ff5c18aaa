from __future__ import annotations

from dataclasses import replace

from covey.coordinator.modes.asynchronous.decisions import PendingUpdate, evicted_holders, recorded_evictions
from covey.storage.record.contract import StepRecord, Verdict
from covey.testing.store import records as make


def arrived(number: int, node: str, verdict: Verdict) -> PendingUpdate:
    return PendingUpdate(replace(make.update_record("run", number, node), verdict=verdict), 0, number)


def decision(*verdicts: tuple[int, str, str, str]) -> StepRecord:
    names = ("round", "node", "verdict", "reason")
    judged = tuple(dict(zip(names, verdict, strict=True)) for verdict in verdicts)
    return StepRecord("run", 5, ((5, 1),), 0, None, 3, judged, 1.0)


def test_only_nodes_with_a_held_update_are_named() -> None:
    earlier = {1: arrived(1, "ada", "held"), 2: arrived(2, "bob", "accepted"), 3: arrived(3, "cy", "held")}
    assert evicted_holders(earlier, {"zoe", "cy", "bob", "ada"}) == ("ada", "cy")
    assert evicted_holders(earlier, {"bob"}) == ()


def test_a_replay_learns_of_evictions_from_the_verdicts_on_held_updates() -> None:
    found = decision((5, "ada", "held", ""), (3, "cy", "rejected", "evicted"), (2, "bob", "rejected", "replaced"))
    assert recorded_evictions(found) == ("cy",)
    assert recorded_evictions(decision((5, "ada", "rejected", "evicted"))) == ()
