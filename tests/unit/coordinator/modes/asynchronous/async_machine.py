"""A machine of mode async for scripted cases, and what its tests ask of it."""

from __future__ import annotations

from covey.coordinator.modes.asynchronous.events import AsyncRunPolicy, OpenAssignment
from covey.coordinator.modes.asynchronous.machine import AsyncMachine
from covey.machines.protocol import NodeJoined, Started

POLICY = AsyncRunPolicy(
    updates=4,
    min_nodes=2,
    deadline_s=100,
    rejoin_s=30,
    retry_s=1,
    retry_max_s=8,
    evaluate_every=2,
    evaluate_on_nodes=False,
)


def started(policy=POLICY, nodes=("a", "b"), **kwargs):
    """All nodes are known before the first of them connects, as after enrolment."""
    made = AsyncMachine(policy, nodes, **kwargs)
    actions = made.handle(Started(0))
    for node in nodes:
        actions += made.handle(NodeJoined(node, 0))
    return made, actions


def kinds(actions, kind):
    return [action for action in actions if isinstance(action, kind)]


def opened(actions):
    return [(action.node, action.number, action.base_version) for action in kinds(actions, OpenAssignment)]
