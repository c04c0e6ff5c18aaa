"""What every protocol of gossip must keep, as tests that its author inherits.

class TestMine(ProtocolConformance):
gossip = {"protocol": {"name": "my_package.mine:Mine", "options": {"f": 2}}, "topology": {"name": "complete"}}
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from covey.errors import SpecError
from covey.gossip.protocols.contract import Context, Protocol, Received, State
from covey.gossip.protocols.runs import policy_of, protocol_of, require_possible
from covey.spec import GossipSpec, parse_data
from covey.testing.swarm_ports import ArrayAlgebra, Vector
from covey.testing.swarms import VirtualSwarm, uneven
from covey.vectors import TensorVector
from covey.vectors import Vector as BlockVector
from covey.worker.execute.algebra import BlockAlgebra

NODES = 8
D = 37


def gossip_run(**gossip: Any) -> GossipSpec:
    """A run of digits with this [gossip]."""
    spec = parse_data({"name": "run", "mode": "gossip", "seed": 7, "task": {"name": "digits"}, "gossip": gossip})
    if not isinstance(spec, GossipSpec):
        raise SpecError("this is no run of gossip")
    return spec


def models_of(swarm: VirtualSwarm) -> dict[str, Vector]:
    """The nodes' models, by name."""
    return {node.me.node: node.z for node in swarm.nodes.values()}


def averaged(spec: GossipSpec, models: Mapping[str, Vector]) -> VirtualSwarm:
    """Nodes that have done all steps of a run without training."""
    swarm = VirtualSwarm.of_run(spec, dict(models))
    swarm.begin()
    while swarm.messages or any(node.is_busy for node in swarm.up):
        while swarm.messages:  # at once: else nodes that never wait are through before they hear of each other
            swarm.deliver()
        for node in swarm.up:
            node.finish_work()
    swarm.settle()
    return swarm


class ProtocolConformance:
    """Of a protocol. Vectors that travel beside a model are zero in these tests: what they do is the author's to test.

    Class attributes:
        gossip: The [gossip] of a run of 8 nodes that names it, with a topology that it can work with.
        is_mean: Whether a mixture's values lie between those that it is made of.
        steps: After how many steps without training eight nodes that begin apart are together, to a thousandth.
    """

    gossip: ClassVar[Mapping[str, Any]]
    is_mean: ClassVar[bool] = True
    steps: ClassVar[int] = 60

    def make(self) -> Protocol:
        """The protocol."""
        return protocol_of(gossip_run(**self.gossip).gossip, allow_path=True)

    def mixed(self, models: Vector, shares: list[float]) -> Vector:
        """What becomes of the first model when the others come, in float64."""
        protocol = self.make()
        vectors = dict.fromkeys(protocol.travels, np.zeros(D))
        received = [Received(share, model, vectors) for share, model in zip(shares, models[1:], strict=True)]
        context = Context(ArrayAlgebra(), gossip_run(**self.gossip))
        mixed: Vector = models[0] + protocol.mix(State(models[0]), received, context).change
        return mixed

    def test_it_is_not_refused_where_it_works(self) -> None:
        """`gossip` is a run that can be."""
        require_possible(gossip_run(**self.gossip), [f"node-{i}" for i in range(NODES)], allow_path=True)

    def test_what_it_says_of_itself_goes_together(self) -> None:
        """The machine weighs as the class says, and vectors have names of their own."""
        protocol = self.make()
        policy = policy_of(gossip_run(**self.gossip).gossip, NODES, allow_path=True)
        assert policy.weighs == protocol.weighs
        assert policy.weighs == "mass" or policy.overlap == 0
        assert len({*protocol.travels, *protocol.keeps}) == len(protocol.travels) + len(protocol.keeps)

    def test_of_models_that_are_the_same_nothing_changes(self) -> None:
        """Nodes that agree stay where they are."""
        model = np.random.default_rng(1).standard_normal(D)
        assert self.mixed(np.stack([model] * 5), [0.2] * 4) == pytest.approx(model, abs=1e-12)

    def test_a_mixture_lies_between_what_it_is_made_of(self) -> None:
        """In each coordinate."""
        models = np.random.default_rng(2).standard_normal((5, D))
        mixed = self.mixed(models, [0.2] * 4)
        assert np.isfinite(mixed).all()
        if self.is_mean:
            assert (models.min(axis=0) - 1e-12 <= mixed).all()
            assert (mixed <= models.max(axis=0) + 1e-12).all()

    def test_inputs_stay_as_they_are_and_the_result_is_a_function_of_them(self) -> None:
        """A job that is done twice comes to the same."""
        models = np.random.default_rng(3).standard_normal((5, D))
        before = models.copy()
        assert self.mixed(models, [0.2] * 4).tobytes() == self.mixed(models, [0.2] * 4).tobytes()
        assert models.tobytes() == before.tobytes()

    def test_the_worker_computes_the_same_in_float32(self) -> None:
        """Block by block, over the worker's algebra."""
        models = np.random.default_rng(4).standard_normal((5, D))
        first, *others = [TensorVector(torch.from_numpy(model.astype(np.float32))) for model in models]
        context: Context[BlockVector] = Context(BlockAlgebra(D), gossip_run(**self.gossip))
        protocol, zero = self.make(), TensorVector(torch.zeros(D))
        vectors: dict[str, BlockVector] = dict.fromkeys(protocol.travels, zero)
        update = protocol.mix(
            State[BlockVector](first), [Received[BlockVector](0.2, other, vectors) for other in others], context
        )
        mixed = (first.dense() + update.change.dense()).numpy()
        assert mixed == pytest.approx(self.mixed(models, [0.2] * 4), abs=1e-5)

    def test_training_that_changes_nothing_changes_nothing(self) -> None:
        """At whatever scale."""
        model = np.random.default_rng(5).standard_normal(D)
        context: Context[Vector] = Context(ArrayAlgebra(), gossip_run(**self.gossip))
        update = self.make().train(State[Vector](model), np.zeros(D), 0.5, context)
        assert np.abs(update.change).max() == 0

    def test_nodes_that_begin_apart_come_together(self) -> None:
        """Eight of them, without training; each batch is had once."""
        rng = np.random.default_rng(6)
        models = {f"node-{i}": rng.standard_normal(D) for i in range(NODES)}
        swarm = averaged(gossip_run(**{**self.gossip, "steps": self.steps}), models)
        assert {node.finished for node in swarm.nodes.values()} == {"completed"}
        assert uneven(models_of(swarm)) < 1e-3
        audit = swarm.audit()
        assert audit.is_exact
        assert audit.in_flight == 0
