"""The contract of protocols: the machine's numbers, what a run has to look like, the mathematics of a node's step.

A protocol is made anew wherever it is needed, in daemons and in their workers, and holds nothing: what lives on is in
the model's file. Daemons never import torch, so the mathematics is written over an `Algebra`, which the worker gives.
"""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Generic, Literal, TypeVar

from covey.gossip.graph import Graph, is_symmetric
from covey.gossip.mixing import Mixing
from covey.gossip.protocols.encoding import codec_refusals
from covey.gossip.push_sum.machine import PushSumPolicy
from covey.gossip.push_sum.weighing import Weighs
from covey.gossip.topologies.contract import Swarm, Topology
from covey.gossip.topologies.given import Given
from covey.plugins import Kind, Pluggable
from covey.spec import GossipSection, GossipSpec, NamedSection

ESTIMATE = "estimate"
"""The node's own vector of that name in `State.vectors`, where bodies are differences."""
SAMPLE = 8
"""How many steps, and nodes where it is not known which, are looked at to see what a topology is like."""
V = TypeVar("V")
"""A vector of `d` float32 (of float64 in tests) that nobody has whole in memory."""


class Algebra(ABC, Generic[V]):
    """What can be done with vectors. Results are vectors too, computed block by block where they are read."""

    @abstractmethod
    def combination(self, terms: Sequence[tuple[V, float]]) -> V:
        """The sum of factor x vector, added up in this order; zero without terms. A factor of 0: it is not read."""

    @abstractmethod
    def distances(self, origin: V, others: Sequence[V]) -> list[float]:
        """The Euclidean distance of each from the origin, in float64: the same wherever it is computed."""

    @abstractmethod
    def trimmed_mean(self, vectors: Sequence[V], trimmed: int) -> V:
        """In each coordinate the mean of what is left without the `trimmed` least and the `trimmed` greatest values.

        There are more than twice as many vectors.
        """


@dataclass(frozen=True)
class State(Generic[V]):
    """What a node has: its model, and the vectors that its protocol `keeps` or lets travel, by name.

    A vector that was never made is missing. `stamp` is a whole number that travels beside them, at first 0.
    """

    model: V
    vectors: Mapping[str, V] = field(default_factory=dict)
    stamp: int = 0


@dataclass(frozen=True)
class Received(Generic[V]):
    """What came from a peer: its share of the mixture, its model, and the vectors that travelled with it.

    It is finite, and shares of all that came in are below 1 together: the rest is the node's own.
    """

    share: float
    model: V
    vectors: Mapping[str, V] = field(default_factory=dict)
    stamp: int = 0


@dataclass(frozen=True)
class Update(Generic[V]):
    """What becomes of a node's state: what is added to its model, new vectors (those not named stay), the new stamp."""

    change: V
    vectors: Mapping[str, V] = field(default_factory=dict)
    stamp: int = 0


@dataclass(frozen=True)
class Context(Generic[V]):
    """What the mathematics of a step may know. New fields come with defaults.

    Attributes:
        algebra: For vectors.
        spec: The run.
        step: From 0; steps that only average are not counted.
        learning_rate: Of the step's training; 0 where nothing is known of one.
        weight: The node's mass, 1 is what it began with: before it gives some away, and with what is mixed in.
        is_trained: Whether there was a training.
        leaves: Whether what comes out is handed over to a peer, for good.
        evictions: How many incarnations the node knows to be evicted.
    """

    algebra: Algebra[V]
    spec: GossipSpec
    step: int = 0
    learning_rate: float = 0.0
    weight: float = 1.0
    is_trained: bool = True
    leaves: bool = False
    evictions: int = 0


@dataclass(frozen=True)
class Combination:
    """What a specification names, made: what `Protocol.refusals` may look at.

    Attributes:
        spec: The specification.
        topology: Its topology.
        mixing: Its mixing weights.
        nodes: Who takes part at first, in the order of the roster; empty: not known yet.
        begins_with: How many nodes the run begins with at least, where it is not known who; 0: that neither.
    """

    spec: GossipSpec
    topology: Topology
    mixing: Mixing
    nodes: tuple[str, ...] = ()
    begins_with: int = 0

    @property
    def name(self) -> str:
        """The protocol's."""
        return self.spec.gossip.protocol.name

    @functools.cached_property
    def graphs(self) -> tuple[Graph, ...]:
        """The edges of the first steps, with all nodes there; none where listed edges name nodes that nobody knows yet.

        Where it is not known who takes part, those of a few nodes stand for them.
        """
        nodes = self.nodes or tuple(map(str, range(max(self.spec.gossip.min_nodes, SAMPLE))))
        if not self.nodes and isinstance(self.topology, Given):
            return ()
        return self._graphs_of(nodes)

    @property
    def least_graphs(self) -> tuple[Graph, ...]:
        """The same of as few nodes as the run may begin with; none where that is not known, or edges are listed."""
        if self.nodes or not self.begins_with or isinstance(self.topology, Given):
            return self.graphs if self.nodes else ()
        return self._graphs_of(tuple(map(str, range(self.begins_with))))

    def _graphs_of(self, nodes: tuple[str, ...]) -> tuple[Graph, ...]:
        swarm = Swarm(nodes, self.spec.seed)
        return tuple(self.topology.graph(step, swarm) for step in range(min(self.topology.period(swarm), SAMPLE)))

    @property
    def is_fixed(self) -> bool:
        """Whether edges are the same in each step."""
        swarm = Swarm(self.nodes or tuple(map(str, range(SAMPLE))), self.spec.seed)
        return len({self.topology.graph(step, swarm) for step in range(SAMPLE)}) == 1

    @property
    def is_symmetric(self) -> bool:
        """Whether edges go both ways."""
        return self.topology.symmetric or all(map(is_symmetric, self.graphs))


class Protocol(Pluggable):
    """A protocol (`[gossip] protocol`). Its docstring states the paper and equations, and deviations.

    Class attributes:
        weighs: Who says what a model counts for: whoever sends it, by giving mass away (push-sum), or whoever receives
            it, by its weights or by a rule of its own.
        mixes_alone: Whether a step mixes also where nothing came; its machine is `mutual` then.
        encodes: Whether `[exchange] codec` may be lossy: what is lost stays with the sender, by its mass.
        differences: Whether a body is what the codec makes of the way from a vector that its sender's peers have of it,
            the estimate, to its model. `Received.model` is a peer's estimate then, moved by what came, and `ESTIMATE`
            in `State.vectors` the node's own (its model where the codec loses nothing). The worker keeps them all.
        joins: How a node comes in whose earlier incarnation was evicted, where `[gossip] join` does not say it.
        averages: Whether a run may have steps that only average (`[gossip] global_every`), in lock step.
        travels: Names of float32 vectors `[d]` that travel beside the model in each body.
        keeps: Names of float32 vectors `[d]` that stay on the node, and survive a restart.
        own_models: Whether nodes keep models of their own, which may be different ones: nothing is mixed, and there is
            no consensus model. What came is kept for local training, by the `method`.
        extra_models: Most private memory of a node, daemon and worker, beyond what training alone takes, in models of
            100 MB or more. Mapped files do not count. None: it declares none.
    """

    weighs: ClassVar[Weighs] = "mass"
    mixes_alone: ClassVar[bool] = False
    encodes: ClassVar[bool] = False
    differences: ClassVar[bool] = False
    joins: ClassVar[Literal["split", "mint"]] = "split"
    averages: ClassVar[bool] = False
    travels: ClassVar[tuple[str, ...]] = ()
    keeps: ClassVar[tuple[str, ...]] = ()
    own_models: ClassVar[bool] = False
    extra_models: ClassVar[float | None] = None

    def method(self) -> NamedSection | None:
        """The method of local training, with `Method.among_peers`, which makes what travels; None: models are mixed."""
        return None

    def body(self, spec: GossipSpec) -> Mapping[str, int]:
        """The parts of the method that a body consists of, in order, with their bytes; empty: it is a model."""
        return {}

    @abstractmethod
    def policy(self, section: GossipSection, nodes: int) -> PushSumPolicy:
        """The numbers of a node's machine, from a run's [gossip] and the number of nodes with which it begins."""

    def refusals(self, run: Combination) -> Iterator[tuple[str, str]]:
        """What it cannot work with: the specification's key, and the reason with a way out.

        One that overrides this yields from it first.
        """
        section = run.spec.gossip
        if run.mixing.needs_symmetric and not run.is_symmetric:
            text = f'"{section.mixing.name}" needs edges that go both ways; choose mixing "uniform", or topology "ring"'
            yield "gossip.mixing", text
        if run.topology.agrees and self.weighs == "receiver":
            text = (
                f'"{section.topology.name}" goes by an order that nodes may take over at different steps, which is '
                f'exact only where senders choose their shares: choose another topology, or protocol = "sgp" or "agp"'
            )
            yield "gossip.topology", text
        if section.global_every and not (self.averages and not section.overlap):
            text = (
                "nodes come to one mean in a known number of steps only where none is ahead of another: "
                'leave it out, or choose protocol = "sgp" with overlap = 0'
            )
            yield "gossip.global_every", text
        if run.spec.task.nodes and not (self.own_models and self.body(run.spec)):
            text = f'protocol "{run.name}" mixes or compares whole models, which all nodes have alike; leave it out'
            yield "task.nodes", text
        yield from self.codec_refusals(run)

    def notes(self, spec: GossipSpec) -> Iterator[str]:
        """What one should know who starts a run of it."""
        section = spec.gossip
        if section.rate_correction == "asyspa" and self.policy(section, section.min_nodes).overlap is None:
            text = f'AsySPA is exact where pauses and delays are bounded; "{section.protocol.name}" waits for nobody'
            more = "and bounds neither, so nodes count alike only as far as machines and links are steady"
            yield f"gossip.rate_correction: {text} {more}"

    def codec_refusals(self, run: Combination) -> Iterator[tuple[str, str]]:
        """What the run's codec cannot be, as `refusals`."""
        yield from codec_refusals(run.spec, run.name, is_possible=self.encodes)

    def train(self, state: State[V], change: V, scale: float, context: Context[V]) -> Update[V]:
        """The state after local training, which is then sent.

        Args:
            state: Before it; something may have been mixed in since the training began.
            change: What training did to the model, at a scale of 1.
            scale: What the machine says that the step counts for.
            context: The step.
        """
        return Update(context.algebra.combination([(change, scale)]))

    def mix(self, state: State[V], received: Sequence[Received[V]], context: Context[V]) -> Update[V]:
        """The state after mixing in what came; by default the mean, weighted by the shares.

        Args:
            state: Before it.
            received: What came, one or more, in an order that all runs share.
            context: The step.
        """
        return weighted_mean(state, received, context.algebra)


def weighted_mean(state: State[V], received: Sequence[Received[V]], algebra: Algebra[V]) -> Update[V]:
    """Moves the model to the mean of it and of those that came: model += sum_j share_j (model_j - model)."""
    terms = [(other.model, other.share) for other in received]
    return Update(algebra.combination([*terms, (state.model, -math.fsum(share for _, share in terms))]))


PROTOCOLS = Kind("protocol", "covey.protocols", Protocol, "gossip.protocol")
