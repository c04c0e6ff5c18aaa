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
from covey.gossip.push_sum import events as ev
from covey.node.gossip.executor import Executor
from covey.node.gossip.ports import Labour, Moment, Piece, State
from covey.spec import GossipSpec
from covey.testing.swarm_ports import ArrayAlgebra
from covey.testing.swarms import VirtualSwarm
from tests.unit.gossip.protocols.dense import Vector

RATE = 0.1
FAULTS = {"deliver": 40.0, "drop": 6.0, "double": 6.0, "work": 40.0, "crash": 2.0, "restart": 6.0, "beat": 5.0}
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
        planner: Planner = planner_of(spec)
        super().__init__(dict(models), planner, policy_of(spec.gossip, len(models)), has_slow_disks=has_slow_disks)
        for node in self.nodes.values():
            self._equip(node, spec, gradient)

    def _equip(self, node: Any, spec: GossipSpec, gradient: Gradient) -> None:
        node.first, node.labour = Body(node.first), DynamicsLabour(node.me.node, spec, gradient)
        node.labour.queue = _Queue()
        node.executor = Executor(node.fresh(), State(node.first), node._ports(), node._ended)

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

    def stir(self, rng: random.Random, events: int, kinds: Mapping[str, float]) -> None:
        """Let so many things happen, by chance."""
        for _ in range(events):
            self._happen(rng, rng.choices(list(kinds), list(kinds.values()))[0])

    def _happen(self, rng: random.Random, kind: str) -> None:
        up, down = self.up, [node for node in self.nodes.values() if not node.is_up]
        busy = [node for node in up if node.is_busy]
        match kind:
            case "deliver" | "double" if self.messages:
                self.deliver(rng.randrange(len(self.messages)), keep=kind == "double")
            case "drop" if self.messages:
                self.messages.pop(rng.randrange(len(self.messages)))
            case "work" if busy:
                rng.choice(busy).finish_work()
            case "crash" if up:
                rng.choice(up).crash()
            case "restart" if down:
                rng.choice(down).restart()
            case "suspect" if up:
                node = rng.choice(up)
                node.take(ev.PeerSuspected(rng.choice(list(node.machine.exchange.peers) or [node.me]), 0.0))
            case "beat" if up:
                rng.choice(up).heartbeat()
            case "evict" if len(self.nodes) > 2:
                self.evict(rng.choice(list(self.nodes)))
            case "leave" if len(up) > 2:
                rng.choice(up).take(ev.LeaveAsked(0.0))

    def come_to_an_end(self) -> None:
        """Everybody goes on, on a network without faults."""
        for node in self.nodes.values():
            if not node.is_up:
                node.restart()
        self.settle()


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
    while seed is not None and any(node.machine.step < 1 for node in swarm.nodes.values()):
        swarm.stir(random.Random(seed), 20, {"deliver": 1.0, "work": 1.0})  # who restarts knows of the others
    if seed is not None:
        swarm.stir(random.Random(seed), strikes, FAULTS)
    swarm.come_to_an_end()
    assert {node.finished for node in swarm.nodes.values()} == {"completed"}
    return swarm.models.tobytes()
