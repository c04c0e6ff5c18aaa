"""A round machine for scripted cases, and what its tests ask of it."""

from __future__ import annotations

from covey.coordinator.modes.rounds.events import Aggregated, Commit, RoundCommitted, RoundPolicy
from covey.coordinator.modes.rounds.machine import RoundMachine
from covey.machines.protocol import NodeJoined, Started

POLICY = RoundPolicy(count=2, min_nodes=2, deadline_s=100, hard_deadline_s=300, rejoin_s=30, evaluate_on_nodes=False)

LATE = "no update before the deadline"
RESTS = f"{LATE}; in the next 8 rounds it is asked only where it is needed"


def machine(policy=POLICY, nodes=("a", "b", "c"), **kwargs):
    made = RoundMachine(policy, (), **kwargs)
    actions = made.handle(Started(0))
    for node in nodes:
        actions += made.handle(NodeJoined(node, 0))
    return made, actions


def started(policy=POLICY, nodes=("a", "b", "c")):
    """All nodes are known before the first of them connects, as after enrolment."""
    made = RoundMachine(policy, nodes)
    actions = made.handle(Started(0))
    for node in nodes:
        actions += made.handle(NodeJoined(node, 0))
    return made, actions


def kinds(actions, kind):
    return [action for action in actions if isinstance(action, kind)]


def commit(made, now):
    number = made.round
    actions = made.handle(Aggregated(number, True, {}, now))
    assert kinds(actions, Commit) == [Commit(number)]
    return made.handle(RoundCommitted(number, now))
