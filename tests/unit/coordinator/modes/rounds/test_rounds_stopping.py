"""A run in rounds that `[stop]` ends: after which round, with which evaluation, and the same after a restart."""

from __future__ import annotations

from dataclasses import replace

import pytest

from covey.coordinator.modes.registry import ROUNDS
from covey.coordinator.modes.rounds.events import Aggregated, OpenRound, Restored, RoundCommitted
from covey.machines.protocol import (
    Cancel,
    EvaluateCentrally,
    Evaluated,
    FinishRun,
    NodeJoined,
    NodeLost,
    Tick,
    UpdateStored,
)
from covey.machines.stopping import StopRules
from tests.unit.coordinator.modes.rounds.round_machine import POLICY, kinds, machine, started

NODES = ("a", "b", "c")


def policy(every=1, **rules):
    return replace(POLICY, count=9, evaluate_every=every, stop=StopRules("accuracy", **rules))


def commit(made, now=1.0, **known):
    """A round of three updates, committed."""
    number = made.round
    for node in NODES:
        made.handle(UpdateStored(node, number, now))
    made.handle(Aggregated(number, True, {}, now))
    return made.handle(RoundCommitted(number, now, **known))


def test_the_next_round_waits_for_what_the_newest_version_is_worth():
    made, _ = started(policy(target=0.9))
    assert commit(made) == [EvaluateCentrally(1)]
    assert kinds(made.handle(Evaluated(1, 2, 0.5)), OpenRound)[0].round == 2
    assert commit(made) == [EvaluateCentrally(2)]
    (end,) = kinds(made.handle(Evaluated(2, 3, 0.95)), FinishRun)
    assert end == FinishRun("completed", "[stop] target = 0.9: version 2 has accuracy 0.95")
    assert made.done


def test_versions_that_are_not_evaluated_are_not_waited_for():
    made, _ = started(policy(every=2, patience=1))
    assert kinds(commit(made), OpenRound)[0].round == 2
    assert commit(made) == [EvaluateCentrally(2)]
    made.handle(Evaluated(2, 3, 0.5))
    commit(made)
    commit(made)
    assert "since version 2" in kinds(made.handle(Evaluated(4, 5, 0.5)), FinishRun)[0].reason


def test_where_nodes_evaluate_a_round_brings_what_the_version_before_is_worth():
    rules = replace(policy(target=0.9), evaluate_centrally=False)
    made, _ = started(rules)
    assert kinds(commit(made), OpenRound)
    assert kinds(commit(made, value=0.5), OpenRound)
    (end,) = kinds(commit(made, value=0.92), FinishRun)
    assert "version 2 has accuracy 0.92" in end.reason
    assert made.committed == 3


def test_bytes_end_it_with_an_evaluation_of_the_last_version():
    made, _ = started(policy(every=5, sent_bytes=100))
    assert kinds(commit(made, sent_bytes=60), OpenRound)
    actions = commit(made, sent_bytes=60)
    assert actions == [EvaluateCentrally(2)]
    assert kinds(made.handle(Evaluated(2, 3, 0.5)), FinishRun)[0].reason.endswith(
        "nodes have sent 120 bytes of updates"
    )


def test_time_ends_it_after_the_round_that_is_open():
    made, _ = started(policy(every=5, ends_at=50.0, time_s=50.0))
    assert kinds(commit(made, 40.0), OpenRound)
    assert made.handle(Tick(60.0)) == []
    assert commit(made, 70.0) == [EvaluateCentrally(2)]
    assert kinds(made.handle(Evaluated(2, 71.0)), FinishRun) == [
        FinishRun("completed", "[stop] time_s = 50: the run has had its time")
    ]


def test_time_ends_a_run_that_waits_for_nodes():
    made, _ = machine(policy(ends_at=50.0, time_s=50.0), nodes=("a",))
    assert made.wake_at == 50.0
    assert kinds(made.handle(Tick(50.0)), FinishRun)[0].state == "completed"
    made, _ = started(replace(policy(ends_at=5000.0, time_s=50.0), min_nodes=3, max_retries=0))
    made.handle(UpdateStored("a", 1, 1))
    for node in ("b", "c"):
        made.handle(NodeLost(node, 2))
    made.handle(Tick(40.0))  # given up: the round waits for others
    assert (made.state, made.wake_at) == ("collecting", 5000.0)
    made.handle(NodeJoined("b", 4000))
    actions = [*made.handle(NodeLost("b", 4001)), *made.handle(Tick(4500.0)), *made.handle(Tick(5000.0))]
    assert kinds(actions, FinishRun)[0].state == "completed"
    assert kinds(actions, Cancel) == []


@pytest.mark.parametrize("restored", [{"values": ((1, 0.5), (2, 0.4))}, {"sent_bytes": 100}])
def test_a_restart_knows_what_was_known(restored):
    rules = replace(policy(patience=1, sent_bytes=100), evaluate_on_nodes=False)
    _, actions = machine(rules, nodes=NODES, restored=Restored(committed=2, **restored))
    assert kinds(actions, OpenRound) == []
    assert kinds(actions, FinishRun)[0].state == "completed"


def test_its_whole_state_goes_to_the_event_log_and_back():
    made, _ = started(policy(target=0.9, patience=3, ends_at=1e9))
    commit(made)
    made.handle(Evaluated(1, 2, 0.5))
    again = ROUNDS.from_json(ROUNDS.to_json(made))
    assert commit(again) == commit(made) == [EvaluateCentrally(2)]
    assert again.handle(Evaluated(2, 3, 0.95)) == made.handle(Evaluated(2, 3, 0.95))
