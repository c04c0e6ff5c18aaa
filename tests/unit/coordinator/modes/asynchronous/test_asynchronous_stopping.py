"""An asynchronous run that `[stop]` ends: at once, whatever nodes are still at."""

from __future__ import annotations

from dataclasses import replace

from covey.coordinator.modes.asynchronous.events import AsyncRestored, Decided, DecideNext, OpenAssignment
from covey.machines.protocol import Cancel, EvaluateCentrally, Evaluated, FinishRun, Tick, UpdateStored
from covey.machines.stopping import StopRules
from tests.unit.coordinator.modes.asynchronous.async_machine import POLICY, kinds, started


def policy(**rules):
    return replace(POLICY, updates=99, stop=StopRules("accuracy", **rules))


def decide(made, node, number, version, **known):
    actions = made.handle(UpdateStored(node, number, 1))
    assert DecideNext() in actions
    return made.handle(Decided(node, number, version, True, 2, **known))


def test_a_value_that_was_to_be_reached_ends_it():
    made, _ = started(policy(target=0.9))
    decide(made, "a", 1, 1)
    assert EvaluateCentrally(2) in decide(made, "b", 2, 2)
    assert made.handle(Evaluated(2, 3, 0.5)) == []
    decide(made, "a", 3, 3)
    decide(made, "b", 4, 4)
    made.handle(UpdateStored("a", 5, 4))
    actions = made.handle(Evaluated(4, 4, 0.9))
    assert actions == []  # a decision is being made
    actions = made.handle(Decided("a", 5, 5, True, 5))
    assert kinds(actions, Cancel) == [Cancel("b", 6, "[stop] target = 0.9: version 4 has accuracy 0.9")]
    assert kinds(actions, EvaluateCentrally) == [EvaluateCentrally(5)]
    assert kinds(actions, OpenAssignment) == []
    (end,) = kinds(made.handle(Evaluated(5, 6, 0.1)), FinishRun)
    assert end == FinishRun("completed", "[stop] target = 0.9: version 4 has accuracy 0.9")


def test_bytes_and_time_end_it():
    made, _ = started(replace(policy(sent_bytes=100), evaluate_every=0))
    decide(made, "a", 1, 1, sent_bytes=60)
    (end,) = kinds(decide(made, "b", 2, 2, sent_bytes=60), FinishRun)
    assert end.reason == "[stop] bytes = 100: nodes have sent 120 bytes of updates"
    made, _ = started(replace(policy(ends_at=50.0, time_s=50.0), evaluate_every=0))
    assert made.wake_at == 50.0
    assert kinds(made.handle(Tick(50.0)), FinishRun)[0].state == "completed"


def test_a_restart_knows_what_was_known():
    restored = AsyncRestored(decided=3, version=3, values=((1, 0.5), (2, 0.5)), sent_bytes=10)
    made, actions = started(replace(policy(patience=1), evaluate_every=1), restored=restored)
    assert kinds(actions, OpenAssignment) == []
    assert made.state == "done"
    assert "since version 1" in kinds(actions, FinishRun)[0].reason
