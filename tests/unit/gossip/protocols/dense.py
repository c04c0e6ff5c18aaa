"""Protocols' mathematics in float64, beside the machine: dense matrices, all nodes in one place, no files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from covey.gossip.protocols.contract import Context, Protocol, Received, State, Update
from covey.spec import GossipSpec, parse_data
from covey.testing.swarm_ports import ArrayAlgebra

Vector = npt.NDArray[np.float64]


def spec_of(**gossip: Any) -> GossipSpec:
    """A run of mode gossip."""
    spec = parse_data({"name": "run", "mode": "gossip", "task": {"name": "digits"}, "gossip": gossip})
    assert isinstance(spec, GossipSpec)
    return spec


@dataclass
class DenseNodes:
    """Nodes of a run in one place, each with its state and its mass.

    Attributes:
        protocol: Any object with `train` and `mix` of a protocol.
        states: Of the nodes.
        weights: Their masses.
        context: What all steps share.
    """

    protocol: Any
    states: list[State[Vector]]
    weights: list[float]
    context: Context[Any]

    @classmethod
    def at(cls, protocol: Protocol | Any, models: Sequence[Vector], rate: float = 0.1) -> DenseNodes:
        """Nodes that begin at these models."""
        context: Context[Any] = Context(ArrayAlgebra(), spec_of(), learning_rate=rate)
        return cls(protocol, [State(model.copy()) for model in models], [1.0] * len(models), context)

    def train(self, step: int, change: Callable[[int, Vector], Vector], **context: Any) -> None:
        """All train, and do what the protocol does then."""
        for node, state in enumerate(self.states):
            now = replace(self.context, step=step, weight=self.weights[node], **context)
            update = self.protocol.train(state, change(node, state.model), 1.0 / self.weights[node], now)
            self.states[node] = changed(state, update)

    def mix(self, step: int, matrix: Vector, **context: Any) -> None:
        """All give and take: `matrix[j, i]` is the part of node i's mass that node j gets; columns sum to one."""
        given = matrix * np.array(self.weights)
        before, self.weights = list(self.states), [float(weight) for weight in given.sum(1)]
        for node, state in enumerate(before):
            whole = self.weights[node]
            others = [other for other in range(len(before)) if other != node and given[node, other]]
            received = [
                Received(given[node, k] / whole, before[k].model, before[k].vectors, before[k].stamp) for k in others
            ]
            now = replace(self.context, step=step, weight=whole, **context)
            if received:
                self.states[node] = changed(state, self.protocol.mix(state, received, now))

    @property
    def models(self) -> Vector:
        """Of all nodes, `[n, d]`."""
        return np.stack([state.model for state in self.states])

    def sum_of(self, name: str) -> Vector:
        """The sum of a vector times the nodes' masses."""
        total: Vector = np.sum(
            [weight * state.vectors[name] for weight, state in zip(self.weights, self.states, strict=True)], axis=0
        )
        return total


def changed(state: State[Vector], update: Update[Vector]) -> State[Vector]:
    """The state after an update."""
    return State(state.model + update.change, {**state.vectors, **update.vectors}, update.stamp)


def directed(n: int, seed: int) -> Vector:
    """An irregular directed graph's column-stochastic matrix, strongly connected."""
    rng = np.random.default_rng(seed)
    edges = (rng.random((n, n)) < 0.3) | np.eye(n, dtype=bool) | np.roll(np.eye(n, dtype=bool), 1, axis=0)
    matrix: Vector = edges / edges.sum(0)
    return matrix
