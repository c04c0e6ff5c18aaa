"""A swarm whose nodes do a run's whole mathematics, vectors beside the model included, in float64 numpy."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from typing_extensions import override

from covey.gossip.ledger import Incarnation
from covey.gossip.planning import Planner
from covey.gossip.protocols.contract import Context, Received, Update
from covey.gossip.protocols.contract import State as Vectors
from covey.gossip.protocols.dynamics import Dynamics
from covey.gossip.protocols.runs import planner_of, policy_of
from covey.node.gossip.executor import Executor
from covey.node.gossip.ports import Labour, Moment, Piece, State
from covey.spec import GossipSpec
from covey.testing.swarm_ports import ArrayAlgebra
from covey.testing.swarms import VirtualSwarm
from tests.unit.gossip.protocols.dense import Vector
from tests.unit.gossip.storms import Storm

RATE = 0.1
LOSSES = ("deliver", "drop", "double", "work", "crash", "restart", "beat")
"""In lock step these change nothing."""
Gradient = Callable[[str, Vector], Vector]
"""(node, z) -> its gradient there."""


@dataclass(frozen=True)
class Body:
    """A model, and the vectors that travel with it."""

    model: Vector
    vectors: Mapping[str, Vector] = field(default_factory=dict)
    stamp: int = 0

    def copy(self) -> Body:
        """Nothing ever changes it."""
        return self


class DynamicsLabour(Labour[Any, Vector]):
    """Work that waits in a queue until the test lets it be done.

    Args:
        node: Whose.
        spec: The run.
        gradient: Of all nodes.
    """

    def __init__(self, node: str, spec: GossipSpec, gradient: Gradient) -> None:
        self._node, self._spec, self._gradient = node, spec, gradient
        self._dynamics = Dynamics.of(spec.gossip)
        self.queue: list[Callable[[], None]] = []

    @override
    def train(self, step: int, state: State[Any], then: Callable[[Vector], None]) -> None:
        self.queue.append(lambda: then(-RATE * self._gradient(self._node, state.model.model)))

    @override
    def apply(
        self, moment: Moment, state: State[Any], trained: Vector | None, scale: float, then: Callable[[Any], None]
    ) -> None:
        vectors, context = self._vectors(state), self._context(moment, trained is not None)
        change = trained if trained is not None else np.zeros_like(state.model.model)
        self._later(vectors, self._dynamics.train(vectors, change, scale, context), then)

    @override
    def mix(
        self, moment: Moment | None, state: State[Any], portions: Sequence[Piece[Any]], then: Callable[[Any], None]
    ) -> None:
        assert moment is not None
        vectors, context = self._vectors(state), self._context(moment, False)
        received = [Received(p.part, p.body.model, p.body.vectors, p.body.stamp) for p in portions]
        self._later(vectors, self._dynamics.mix(vectors, received, context), then)

    def _vectors(self, state: State[Any]) -> Vectors[Vector]:
        return Vectors(state.model.model, {**state.model.vectors, **(state.kept or {})}, state.model.stamp)

    def _context(self, moment: Moment, is_trained: bool) -> Context[Any]:
        step, weight, leaves, evictions = moment.step, moment.weight, moment.leaves, moment.evictions
        return Context(ArrayAlgebra(), self._spec, step, RATE, weight, is_trained, leaves, evictions)

    def _later(self, before: Vectors[Vector], update: Update[Vector], then: Callable[[Any], None]) -> None:
        zero = np.zeros_like(before.model)
        vectors = {**before.vectors, **update.vectors}
        travels = {name: vectors.get(name, zero) for name in self._dynamics.travels}
        kept = {name: vectors.get(name, zero) for name in self._dynamics.keeps}
        body = Body(before.model + update.change, travels, update.stamp)
        self.queue.append(lambda: then(State(body, kept)))

    @override
    def hold(self, model: Any) -> Any:
        return model

    @override
    def release(self, model: Any) -> None:
        """Memory is freed by itself."""


class VectorSwarm(VirtualSwarm):
    """Nodes of a run.

    Args:
        spec: The run.
        models: The first model of each node.
        gradient: Of all nodes.
        has_slow_disks: As `VirtualSwarm`.
    """

    def __init__(
        self, spec: GossipSpec, models: Mapping[str, Vector], gradient: Gradient, *, has_slow_disks: bool = False
    ) -> None:
        self._run, self._gradient = spec, gradient
        planner: Planner = planner_of(spec)
        super().__init__(dict(models), planner, policy_of(spec.gossip, len(models)), has_slow_disks=has_slow_disks)
        for node in self.nodes.values():
            self.enter(node)

    @override
    def enter(self, node: Any) -> Any:
        node.first, node.labour = Body(node.first), DynamicsLabour(node.me.node, self._run, self._gradient)
        node.labour.queue = _Queue()
        node.executor = Executor(node.fresh(), State(node.first), node._ports(), node._ended)
        return node

    def vector(self, me: Incarnation, name: str) -> Vector:
        """A node's vector; zero where it has none."""
        state: Any = self.nodes[me].executor.state
        found: Vector = {**(state.kept or {}), **state.model.vectors}.get(name, np.zeros_like(state.model.model))
        return found

    @property
    def models(self) -> Vector:
        """Of all nodes, `[n, d]`."""
        bodies: list[Any] = [node.executor.model for node in self.nodes.values()]
        return np.stack([body.model for body in bodies])


class _Queue(list[Callable[[], None]]):
    def popleft(self) -> Callable[[], None]:
        return self.pop(0)


def in_lock_step(swarm: VectorSwarm, seed: int | None, strikes: int) -> bytes:
    """Let a swarm make all its steps, with faults in between, or without (no seed); all models, in one.

    Args:
        swarm: It has not begun.
        seed: Of what happens.
        strikes: How much does.
    """
    swarm.begin()
    storm, rng = Storm(swarm, events=LOSSES), random.Random(seed)
    while seed is not None and any(node.machine.step < 1 for node in swarm.nodes.values()):
        for _ in range(len(swarm.messages)):  # who restarts knows of the others
            swarm.deliver()
        for node in swarm.up:
            node.finish_work()
    if seed is not None:
        storm.rage(rng.randbytes(2 * strikes))
    storm.end()
    assert {node.finished for node in swarm.nodes.values()} == {"completed"}
    return swarm.models.tobytes()
