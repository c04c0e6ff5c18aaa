"""Every kind of protocol in storms: loss, reordering, crashes, old records, partitions, joins, leaves, evictions.

After every event each account agrees with every other one, unit by unit (`Storm.check`); in the end all are through.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from covey.gossip.averaging import Averaging
from covey.gossip.ledger import Incarnation
from covey.gossip.mass import ONE
from covey.gossip.mixing import Uniform
from covey.gossip.planning import Planner
from covey.gossip.protocols.runs import planner_of, policy_of
from covey.gossip.push_sum.machine import PushSumPolicy
from covey.gossip.topologies.contract import Topology
from covey.gossip.topologies.random import Matching, Random
from covey.gossip.topologies.regular import Complete, Exponential, Ring
from covey.node.gossip.ports import Piece
from covey.testing.protocols import gossip_run
from covey.testing.swarm_ports import Message, Vector
from covey.testing.swarms import VirtualNode, VirtualSwarm
from tests.unit.gossip.storms import Storm, schedules, stormy

D = 3
STEPS = 10


def models_of(n: int) -> dict[str, Vector]:
    rng = np.random.default_rng(n)
    return {f"node-{i}": rng.standard_normal(D) for i in range(n)}


def rounded(z: Any) -> Any:
    """A codec that loses up to an eighth of each value."""
    return np.round(z * 4) / 4


def raging(swarm: VirtualSwarm, schedule: bytes, minted: int) -> Storm:
    """A whole storm, up to the end of all."""
    swarm.begin()

    def joins(me: Incarnation) -> None:
        swarm.join(me, swarm.up[0].z, minted)

    storm = Storm(swarm, joins)
    if isinstance(swarm, Watched):
        swarm.restored = storm.restored
    storm.rage(schedule)
    storm.end()
    return storm


@stormy(40)
@given(
    schedule=schedules,
    n=st.integers(2, 5),
    overlap=st.sampled_from([0, 1, 3, None]),
    topology=st.sampled_from([Exponential(), Ring(), Complete(), Random()]),
    slow=st.booleans(),
    every=st.sampled_from([0, 0, 1, 3]),
    codec=st.sampled_from([None, rounded]),
    minted=st.sampled_from([0, ONE]),
)
def test_no_mass_is_made_or_lost_where_it_is_pushed(
    schedule: bytes, n: int, overlap: int | None, topology: Topology, slow: bool, every: int, codec: Any, minted: int
) -> None:
    policy = PushSumPolicy(STEPS, overlap, averaging=Averaging(every if overlap == 0 else 0, 2))
    swarm = VirtualSwarm(models_of(n), Planner(topology, Uniform(), 7), policy, codec=codec, has_slow_disks=slow)
    total = swarm.sum_of_models()
    storm = raging(swarm, schedule, minted)
    if storm.is_whole:
        assert sum(node.ledger.live for node in swarm.nodes.values()) == n * ONE
        assert np.abs(swarm.sum_of_models() - total).max() < 1e-9


@stormy(25)
@given(
    schedule=schedules,
    n=st.integers(2, 5),
    topology=st.sampled_from([Matching(), Ring(), Random()]),
    slow=st.booleans(),
)
def test_no_mass_is_made_or_lost_in_pairs(schedule: bytes, n: int, topology: Topology, slow: bool) -> None:
    policy = PushSumPolicy(STEPS, None, pairs=True)
    swarm = VirtualSwarm(models_of(n), Planner(topology, Uniform(), 7), policy, has_slow_disks=slow)
    total = swarm.sum_of_models()
    storm = raging(swarm, schedule, ONE)
    if storm.is_whole:
        assert sum(node.ledger.live for node in swarm.nodes.values()) == n * ONE
        assert np.abs(swarm.sum_of_models() - total).max() < 1e-9


class Watched(VirtualSwarm):
    """A swarm that notes what was sent in each step, and what each node mixed in each of its steps."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self.sent: dict[tuple[Incarnation, int], Vector] = {}
        self.mixed: dict[tuple[Incarnation, int], tuple[Vector, Sequence[Piece[Vector]]]] = {}
        """By node and step: its own model then, and what came; of what was done again after a crash, the newest."""
        self.restored: set[Incarnation] = set()
        super().__init__(*args, **options)
        for node in self.nodes.values():
            self.enter(node)

    def enter(self, node: VirtualNode) -> VirtualNode:
        def note(step: int, model: Vector, pieces: Sequence[Piece[Vector]]) -> None:
            self.mixed[node.me, step] = model, pieces

        node.labour.on_mixed = note
        return node

    def send(self, message: Message) -> None:
        if message.body is not None:
            known = self.sent.setdefault((message.sender, message.event.step), message.body)
            assert message.sender in self.restored or known.tobytes() == message.body.tobytes()
        super().send(message)

    def check(self, apart: set[Incarnation]) -> None:
        """Each body counted once, in the step in which it was sent, and was what its sender sent."""
        for (me, step), (model, pieces) in self.mixed.items():
            if me in apart:
                continue
            assert len({piece.source for piece in pieces}) == len(pieces)
            assert sum(piece.part for piece in pieces) <= 1
            assert self.sent.get((me, step), model).tobytes() == model.tobytes()
            for piece in pieces:
                assert piece.step == step
                assert piece.source is not None
                if piece.source not in apart:
                    assert self.sent[piece.source, step].tobytes() == piece.body.tobytes()


MH = {"name": "metropolis-hastings"}
COMPLETE = {"name": "complete"}
RECEIVING: list[dict[str, Any]] = [
    {"protocol": "d-psgd", "topology": {"name": "ring"}, "mixing": MH},
    {"protocol": "d-psgd", "topology": {"name": "matching"}, "mixing": MH},
    {"protocol": "epidemic", "topology": {"name": "random"}},
    {"protocol": "clipped-gossip", "topology": COMPLETE, "mixing": MH},
    {"protocol": "nearest-neighbour-averaging", "topology": COMPLETE},
    {"protocol": "trimmed-mean", "topology": COMPLETE},
]


@stormy(40)
@given(schedule=schedules, n=st.integers(2, 5), gossip=st.sampled_from(RECEIVING), slow=st.booleans())
def test_each_body_counts_once_where_the_receiver_weighs(
    schedule: bytes, n: int, gossip: dict[str, Any], slow: bool
) -> None:
    spec = gossip_run(steps=STEPS, **gossip)
    models = models_of(n)
    swarm = Watched(models, planner_of(spec), policy_of(spec.gossip, n), spec=spec, has_slow_disks=slow)
    storm = raging(swarm, schedule, ONE)
    swarm.check(storm.restored | storm.gone.keys())
    first = np.stack(list(models.values()))
    for node in swarm.nodes.values():  # a mixture lies between what it is made of
        assert (first.min(0) - 1e-12 <= node.z).all()
        assert (node.z <= first.max(0) + 1e-12).all()
