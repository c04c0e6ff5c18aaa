"""CHOCO-SGD: what is known of it, held against this code; edges on bad networks; what it does not go with."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from covey.codecs.contract import CODECS, Codec, CodecContext
from covey.errors import SpecError
from covey.gossip.ledger import Incarnation
from covey.gossip.protocols.choco import ChocoSGD, gamma_of
from covey.gossip.protocols.contract import ESTIMATE, Context, Received, State
from covey.gossip.protocols.runs import require_possible
from covey.gossip.push_sum import events as ev
from covey.learning.models.state import layout_of
from covey.spec import GossipSpec, parse_data
from covey.vectors import TensorVector, Vector
from covey.worker.execute.algebra import BlockAlgebra
from covey.worker.files.estimates import OWN, Estimate
from tests.unit.gossip.protocols.file_nodes import FileSwarm, OneVector
from tests.unit.gossip.protocols.vector_nodes import in_lock_step
from tests.unit.gossip.storms import EVENTS, Storm, schedules, stormy

NODES = 8
MH = {"name": "metropolis-hastings"}
CODEC = {"codec": "top-k", "options": {"fraction": 0.1}}


def run_of(exchange: dict[str, Any] | None = None, **gossip: Any) -> GossipSpec:
    section = {"protocol": "choco", "topology": {"name": "ring"}, "mixing": MH, "steps": 8} | gossip
    fields = {"name": "run", "mode": "gossip", "seed": 7, "task": {"name": "digits"}, "gossip": section}
    spec = parse_data(fields | {"exchange": CODEC if exchange is None else exchange})
    assert isinstance(spec, GossipSpec)
    return spec


class Ring:
    """Eight nodes on a ring that only average, in float32, by the protocol, the codec and the estimates of the worker.

    They know nothing of each other at first, as in the paper: estimates are 0.
    """

    def __init__(self, exchange: dict[str, Any], gamma: float, folder: Path, d: int = 400) -> None:
        self.spec = run_of(exchange, protocol={"name": "choco", "options": {"gamma": gamma}})
        self.codec: Codec = CODECS.make(self.spec.exchange.codec, self.spec.exchange.options)
        self.protocol, self.algebra, self.body = ChocoSGD({"gamma": gamma}), BlockAlgebra(d), folder / "body"
        first = np.random.default_rng(1).standard_normal((NODES, d))
        self.layout = layout_of(OneVector(first[0]))
        self.models = [torch.from_numpy(model.astype(np.float32)) for model in first]
        self.known = [Estimate(TensorVector(torch.zeros(d)), bytes(32)) for _ in self.models]
        self.began = self.apart
        self.mean = self.whole.mean(0)

    @property
    def whole(self) -> torch.Tensor:
        return torch.stack(self.models).double()

    @property
    def apart(self) -> float:
        return float((self.whole - self.whole.mean(0)).norm())

    @property
    def error(self) -> float:
        """Of what it was at first, squared."""
        return (self.apart / self.began) ** 2

    def steps(self, count: int) -> float:
        """The error after so many."""
        for step in range(count):
            self.known = [self._told(step, node) for node in range(NODES)]
            self.models = [self._mixed(node) for node in range(NODES)]
        return self.error

    def _told(self, step: int, node: int) -> Estimate:
        context = CodecContext(step * NODES + node, step + 1, layout=self.layout.part("model"))
        self.known[node].write_body(self.body, self.codec, TensorVector(self.models[node]), context, synced=False)
        moved = self.known[node].moved(self.body, self.codec, self.layout)
        return Estimate(TensorVector(moved.model.dense()), moved.stamp)

    def _mixed(self, node: int) -> torch.Tensor:
        model, own = TensorVector(self.models[node]), self.known[node].model
        state = State[Vector](model, {ESTIMATE: own})
        received = [Received(1 / 3, self.known[(node + k) % NODES].model) for k in (-1, 1)]
        return self.models[node] + self.protocol.mix(state, received, Context(self.algebra, self.spec)).change.dense()


def test_signs_bring_a_ring_to_its_mean(tmp_path: Path) -> None:
    ring = Ring({"codec": "scaled-sign"}, 1.0, tmp_path)
    assert ring.steps(100) < 1e-10
    assert float((ring.whole.mean(0) - ring.mean).abs().max()) < 1e-6


def test_a_hundredth_of_the_elements_does_with_a_small_step_and_diverges_with_a_large_one(tmp_path: Path) -> None:
    exchange = {"codec": "top-k", "options": {"fraction": 0.01}}
    ring = Ring(exchange, gamma_of(run_of(exchange).exchange), tmp_path)
    assert ring.steps(400) < 1.2e-2
    assert float((ring.whole.mean(0) - ring.mean).abs().max()) < 1e-5
    large = Ring(exchange, 1.0, tmp_path)
    assert 2 < large.steps(40) < large.steps(40) / 2


# -- edges ----------------------------------------------------------------------------------------------------------


def models_of(n: int, d: int = 120) -> dict[str, Any]:
    rng = np.random.default_rng(n)
    return {f"node-{i}": rng.standard_normal(d) for i in range(n)}


def slope(node: str, z: Any) -> Any:
    return 0.3 * (z - int(node.removeprefix("node-")))


def flat(node: str, z: Any) -> Any:
    return 0 * z


def spread(swarm: FileSwarm) -> float:
    """The largest distance of a model from the mean, in the largest norm."""
    return float(np.abs(swarm.models - swarm.models.mean(0)).max())


def agree(swarm: FileSwarm) -> None:
    """What a node's neighbours know of it is what it thinks that they know, to the bit."""
    for me in swarm.nodes:
        own = swarm.estimates(me).known[OWN]
        for other in swarm.neighbours(me.node):
            told = swarm.estimates(Incarnation(other)).known[str(me)]
            assert told.stamp == own.stamp
            assert torch.equal(told.model.dense(), own.model.dense())


def test_in_lock_step_faults_change_not_one_bit(tmp_path: Path) -> None:
    ends = []
    for seed in (None, 1):
        spec = run_of(momentum="quasi-global")
        swarm = FileSwarm(spec, models_of(4), slope, tmp_path / str(seed), has_slow_disks=True)
        ends.append(in_lock_step(swarm, seed, 300))
        assert swarm.audit().is_exact
        assert swarm.refused == 0
        agree(swarm)
        if seed is None:  # whole once along each edge, and differences from then on
            edges = sum(len(swarm.neighbours(me.node)) for me in swarm.nodes)
            assert (swarm.whole, swarm.mixed) == (edges, edges * 8)
    assert ends[0] == ends[1]


@stormy(12)
@given(schedule=schedules, n=st.integers(2, 5), topology=st.sampled_from(["ring", "complete"]), slow=st.booleans())
def test_no_honest_body_is_passed_over_in_storms(schedule: bytes, n: int, topology: str, slow: bool) -> None:
    with TemporaryDirectory() as folder:
        spec = run_of(topology={"name": topology})
        swarm = FileSwarm(spec, models_of(n), slope, Path(folder), has_slow_disks=slow)
        swarm.begin()

        def joins(me: Incarnation) -> None:
            swarm.join(me, models_of(n)["node-0"])

        kept = tuple(set(EVENTS) - {"back-up", "restore"})  # files that a node needs no more are gone
        storm = Storm(swarm, joins, strangers=False, events=kept)
        storm.rage(schedule)
        storm.end()
        assert swarm.refused_of <= set(map(str, storm.gone))  # what is known of the evicted is dropped with them


def cut_off(swarm: FileSwarm, node: Incarnation, steps: int) -> None:
    """Node and others hear nothing of each other until the others have gone on for so many steps."""
    others = [other for me, other in swarm.nodes.items() if me != node]
    goal = others[0].machine.step + steps
    for other in others:
        other.take(ev.PeerSuspected(node, 0.0))
        swarm.nodes[node].take(ev.PeerSuspected(other.me, 0.0))
    while min(other.machine.step for other in others) < goal:
        swarm.messages = [m for m in swarm.messages if node not in (m.sender, m.receiver)]
        for _ in range(len(swarm.messages)):
            swarm.deliver()
        for other in others:
            if other.is_busy:
                other.finish_work()


def test_who_was_cut_off_gets_a_whole_model_and_goes_on_with_differences(tmp_path: Path) -> None:
    swarm = FileSwarm(run_of(steps=24), models_of(4), flat, tmp_path)
    swarm.begin()
    swarm.until_step(8)
    whole = swarm.whole
    assert whole == 8
    cut_off(swarm, Incarnation("node-1"), 4)
    apart = spread(swarm)
    swarm.settle()
    assert {node.finished for node in swarm.nodes.values()} == {"completed"}
    assert swarm.refused == 0
    assert 2 <= swarm.whole - whole <= 12  # those who are near it, in the steps in which neighbours went or came back
    agree(swarm)
    assert spread(swarm) < 0.6 * apart


def test_who_joins_is_sent_whole_models_first(tmp_path: Path) -> None:
    swarm = FileSwarm(run_of(steps=30, topology={"name": "complete"}), models_of(3), slope, tmp_path)
    swarm.begin()
    swarm.until_step(8)
    swarm.evict(Incarnation("node-2"))
    whole = swarm.whole
    swarm.join(Incarnation("node-2", 2), models_of(3)["node-2"])
    swarm.settle()
    assert {node.finished for node in swarm.nodes.values()} == {"completed"}
    assert swarm.refused == 0
    assert swarm.whole - whole >= 4
    assert set(swarm.estimates(Incarnation("node-0")).known) == {OWN, "node-1", "node-2 (incarnation 2)"}


# -- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("exchange", "gossip", "said"),
    [
        (CODEC, {"topology": {"name": "random"}, "mixing": {"name": "uniform"}}, 'choose "ring" or "complete"'),
        (CODEC, {"topology": {"name": "matching"}}, "in this topology they change"),
        (CODEC, {"topology": {"name": "exponential"}}, "gossip.mixing"),
        (CODEC, {"topology": {"name": "ring", "options": {"directions": 1}}}, "edges that go both ways"),
        (CODEC, {"mixing": {"name": "uniform"}}, 'choose "metropolis-hastings"'),
        (CODEC, {"overlap": 1}, "gossip.overlap"),
        (CODEC, {"global_every": 2}, "gossip.global_every"),
        ({"codec": "sign"}, {}, "may be more than the difference; choose one of bf16"),
        ({"codec": "terngrad"}, {}, "exchange.codec"),
        ({"codec": "random-k", "options": {"unbiased": True}}, {}, "exchange.options.unbiased"),
        ({"codec": "qsgd", "options": {"norm": "l2"}}, {}, "exchange.options.norm"),
        ({"codec": "qsgd", "options": {"bits": 2}}, {}, "exchange.options.bits"),
        ({"codec": "qsgd", "options": {"levels": 2}}, {}, "exchange.options.levels"),
        ({"codec": "top-k", "options": {"k": 10}}, {}, "give a fraction in place of k, or gamma"),
    ],
)
def test_what_it_does_not_go_with_is_refused_with_a_way_out(
    exchange: dict[str, Any], gossip: dict[str, Any], said: str
) -> None:
    with pytest.raises(SpecError, match=said):
        require_possible(run_of(exchange, **gossip), [f"node-{i}" for i in range(NODES)])


@pytest.mark.parametrize(
    ("exchange", "gamma"),
    [
        ({"codec": "none"}, 1.0),
        ({"codec": "scaled-sign"}, 0.5),
        ({"codec": "top-k"}, 0.02),
        ({"codec": "top-k", "options": {"fraction": 0.8}}, 1.0),
        ({"codec": "random-k", "options": {"fraction": 0.1}}, 0.1),
    ],
)
def test_each_codec_has_a_step_size(exchange: dict[str, Any], gamma: float) -> None:
    spec = run_of(exchange)
    require_possible(spec, [f"node-{i}" for i in range(NODES)])
    assert gamma_of(spec.exchange) == pytest.approx(gamma)
    wide = run_of({"codec": "top-k", "options": {"k": 10}}, protocol={"name": "choco", "options": {"gamma": 0.1}})
    require_possible(wide, [f"node-{i}" for i in range(NODES)])
