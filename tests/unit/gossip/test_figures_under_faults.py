"""What is known of push-sum where messages are lost, peers die and speeds differ, held against this code.

`docs/gossip.md` has the table. What a system without an account of mass does is shown beside it, with the same nodes:
their network says that what it lost was had.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from covey.gossip.ledger import Incarnation
from covey.gossip.mass import ONE
from covey.gossip.mixing import Uniform
from covey.gossip.planning import Planner
from covey.gossip.push_sum import events as ev
from covey.gossip.push_sum.machine import PushSumPolicy
from covey.gossip.topologies.contract import Topology
from covey.gossip.topologies.given import Given
from covey.gossip.topologies.random import Random
from covey.gossip.topologies.regular import Exponential, Ring
from covey.learning.task import NodeData
from covey.learning.tasks.digits import Digits
from covey.testing.swarm_ports import Message, Training, Vector, no_training
from covey.testing.swarms import VirtualSwarm, uneven
from tests.unit.gossip.networks import late_by, run_lossy
from tests.unit.gossip.storms import TIMES


class Credulous(VirtualSwarm):
    """Nodes that are told that what their network lost was had, as one believes that sends once and forgets."""

    loses: Callable[[Message], bool]

    def send(self, message: Message) -> None:
        """Put a message on its way; or lose it, and acknowledge it."""
        if isinstance(message.event, ev.Arrived) and self.loses(message):
            message = Message(
                message.receiver, message.sender, ev.Acknowledged(message.receiver, message.event.sequence)
            )
        super().send(message)


def swarm_of(
    models: Any,
    topology: Topology,
    steps: int,
    training: Training = no_training,
    *,
    kind: Any = VirtualSwarm,
    **policy: Any,
) -> Any:
    """A swarm whose i-th node begins with row i; nobody will crash, so nothing is put on record."""
    names = {f"node-{i:02}": row.copy() for i, row in enumerate(models)}
    planner = Planner(topology, Uniform(), 7)
    return kind(names, planner, PushSumPolicy(steps, **policy), training, keeps_records=False)


def models_of(swarm: VirtualSwarm) -> dict[str, Vector]:
    return {node.me.node: node.z for node in swarm.nodes.values()}


def tick(swarm: VirtualSwarm) -> None:
    """All messages come, and everybody makes a step."""
    due = {node: node.machine.step + 1 for node in swarm.up}
    while at_work := [node for node, step in due.items() if node.is_busy and node.machine.step < step]:
        for node in at_work:
            node.finish_work()
    while swarm.messages:
        swarm.deliver()


def test_t4_a_fifth_of_the_messages_lost_for_600_rounds_moves_the_mean_by_rounding_only() -> None:
    models = np.random.default_rng(1).standard_normal((8, 3))
    swarm = swarm_of(models, Random({"peers": 2}), 600)
    swarm.begin()
    run_lossy(swarm, random.Random(2), loss=0.2)
    assert swarm.audit().is_exact
    assert swarm.audit().live == 8 * ONE
    assert max(np.abs(z - models.mean(0)).max() for z in models_of(swarm).values()) < 6e-14


def test_t4_who_forgets_what_was_lost_comes_to_something_else_and_the_audit_says_so() -> None:
    far = []
    for seed in range(5):
        models = np.random.default_rng(seed).standard_normal((8, 1))
        swarm = swarm_of(models, Random({"peers": 2}), 10_000, kind=Credulous, overlap=None, least=0)
        lossy = random.Random(seed)
        swarm.loses = lambda _, lossy=lossy: lossy.random() < 0.2
        swarm.begin()
        for _ in range(40):
            tick(swarm)
        audit = swarm.audit()
        assert any(" gave " in text for text in audit.findings)
        assert audit.live < 4 * ONE  # a node with less than half of the mean waits until something comes: so not 0
        far.append(abs(float(swarm.sum_of_models()[0] / (audit.live / ONE) - models.mean())))
    assert np.median(far) > 0.05


def test_t5_float32_over_a_lossy_network_does_not_move_the_mean() -> None:
    rng, steps = np.random.default_rng(4), 20_000 if TIMES > 1 else 2_000
    models = rng.standard_normal((4, 3)).astype(np.float32)
    pulls = rng.standard_normal((steps, 3)).astype(np.float32) * np.float32(0.1)

    def pull_apart(node: str, step: int, z: Any, scale: float) -> Any:
        """Half of the nodes one way, half of them the other: in the sum it is nothing."""
        return z + np.float32(scale) * pulls[step] * (1 if int(node[-1]) % 2 else -1)

    swarm = swarm_of(models, Exponential(), steps, pull_apart)
    swarm.begin()
    run_lossy(swarm, random.Random(5), loss=0.2)
    assert swarm.audit().is_exact
    assert swarm.audit().live == 4 * ONE
    assert uneven(models_of(swarm)) > 1e-3  # they did move
    assert np.abs(swarm.sum_of_models() / 4 - models.astype(np.float64).mean(0)).max() < 6.5e-6


def half_life(n: int, late: bool) -> float:
    """After how many rounds half of the survivors' mass is with a dead node, by the eigenvalue of their matrix.

    Two out-edges a node, to the next two; what is sent is mixed in at once, or after the next sending.
    """
    eye = np.eye(n)
    sent = (np.roll(eye, 1, 0) + np.roll(eye, 2, 0))[1:, 1:] / 3
    kept = eye[1:, 1:] / 3
    whole = np.block([[kept, eye[1:, 1:]], [sent, 0 * sent]]) if late else kept + sent
    return -math.log(2) / math.log(float(np.abs(np.linalg.eigvals(whole)).max()))


@pytest.mark.parametrize(("n", "known", "first", "last"), [(8, 5.1, 8, 28), (32, 20.0, 20, 60)])
def test_t6_a_dead_peer_is_no_sink(n: int, known: float, first: int, last: int) -> None:
    assert half_life(n, late=False) == pytest.approx(known, rel=0.02)
    edges = {"edges": [(f"node-{i:02}", f"node-{(i + k) % n:02}") for i in range(n) for k in (1, 2)]}
    dead = Incarnation("node-00")
    masses: dict[Any, list[float]] = {}
    for kind in (Credulous, VirtualSwarm):
        swarm = swarm_of(np.eye(n), Given(edges), 10_000, kind=kind, overlap=None, least=0)
        swarm.loses = lambda message: message.receiver == dead
        swarm.begin()
        swarm.nodes[dead].crash()
        masses[kind] = []
        for _ in range(last + 1):
            tick(swarm)
            masses[kind].append(sum(node.ledger.live + node.ledger.in_flight for node in swarm.up) / ONE)
    believed = masses[Credulous]
    measured = (last - first) / math.log2(believed[first] / believed[last])
    assert measured == pytest.approx(half_life(n, late=True), rel=0.1)
    assert set(masses[VirtualSwarm]) == {n - 1}  # as long as one likes: one batch an edge, and it is not given up


RATES = (1, 1, 1, 1, 2, 2, 4, 8)
OPTIMA = np.random.default_rng(3).standard_normal((8, 4))


def bias(
    correction: Any, ticks: int = 1200, first: float = 0.015, rates: Sequence[int] = RATES, pairs: bool = False
) -> float:
    """How far from the optimum of all nodes eight come whose losses are quadratic, by steps that become smaller.

    1: as far as the optimum by speed.
    """
    models = np.zeros((8, 4))
    now = [0.0]

    def training(node: str, step: int, z: Any, scale: float) -> Any:
        assert scale < 8.001
        return z - first / math.sqrt(now[0] / 100 + 1) * scale * (z - OPTIMA[int(node[-2:])])

    options = {"correction": correction, "pairs": pairs}
    swarm = swarm_of(models, Random({"peers": 1}), 100_000, training, overlap=None, **options)
    swarm.begin()
    reached = []
    for time in range(ticks):
        now[0] = swarm.clock.time = float(time)
        while swarm.messages:
            swarm.deliver()
        for rate, node in zip(rates, swarm.nodes.values(), strict=True):
            if time % (max(rates) // rate) == 0:
                for _ in range(3):  # a training, its publication, and the mixture
                    node.finish_work()
        if time > ticks // 2:
            reached.append(swarm.sum_of_models() / 8)
    assert swarm.audit().is_exact
    optimum = OPTIMA.mean(0)
    far = np.linalg.norm(np.average(OPTIMA, axis=0, weights=rates) - optimum)
    return float(np.linalg.norm(np.mean(reached, axis=0) - optimum) / far)


def test_t7_unequal_rates_are_corrected() -> None:
    assert bias("none") > 0.75  # fast nodes count for more
    assert bias("elapsed", pairs=True) < 1 / 40
    for correction in ("elapsed", "asyspa"):
        assert bias(correction) < 1 / 8
        if TIMES > 1:
            for rates in (RATES, (1, 1, 1, 1, 2, 3, 6, 12)):
                assert bias(correction, 9600, 0.0075, rates) < 1 / 50


class Softmax:
    """Digits among eight nodes: a fifth dealt alike, the rest by label; softmax regression with momentum."""

    n, rate, beta, steps = 8, 0.5, 0.9, 150

    def __init__(self) -> None:
        task = Digits()
        images, labels = (tensor.numpy() for tensor in task.train_data(NodeData()).tensors)
        self.test_images, self.test_labels = (tensor.numpy() for tensor in task.central_data().tensors)
        order = np.random.default_rng(1).permutation(len(labels))
        alike, rest = order[: len(order) // 5], order[len(order) // 5 :]
        rest = rest[np.argsort(labels[rest], kind="stable")]
        parts = [np.concatenate(part) for part in zip(*(np.array_split(k, self.n) for k in (alike, rest)), strict=True)]
        self.images = [images[part].astype(np.float64) for part in parts]
        self.labels = [labels[part] for part in parts]

    def gradient(self, node: int, w: Any) -> Any:
        """float64 `[640]`."""
        images, labels = self.images[node], self.labels[node]
        odds = np.exp(images @ w.reshape(64, 10))
        odds /= odds.sum(1, keepdims=True)
        odds[np.arange(len(odds)), labels] -= 1
        return (images.T @ odds / len(odds)).ravel()

    def accuracy(self, w: Any) -> float:
        """On data of all."""
        guesses = (self.test_images @ w.reshape(64, 10)).argmax(1)
        return float((guesses == self.test_labels).mean())

    def together(self, nodes: range) -> float:
        """Of these, who average their gradients in each step."""
        w, m = np.zeros(640), np.zeros(640)
        for _ in range(self.steps):
            m = self.beta * m + np.mean([self.gradient(node, w) for node in nodes], axis=0)
            w = w - self.rate * m
        return self.accuracy(w)

    def gossiping(self, topology: Topology, overlap: int, is_biased: bool = False) -> float:
        """The accuracy of the mean model; biased: as where the mass w is forgotten, and w z taken for the model."""
        momenta: dict[str, Any] = {}

        def training(node: str, step: int, z: Any, scale: float) -> Any:
            w = swarm.nodes[Incarnation(node)].machine.exchange.kept / ONE if is_biased else 1.0
            momenta[node] = self.beta * momenta.get(node, 0.0) + self.gradient(int(node[-2:]), w * z)
            return z - self.rate * scale * momenta[node]

        late = {"overlap": overlap, "max_in_flight": overlap + 1}
        swarm = swarm_of(np.zeros((self.n, 640)), topology, 10_000, training, **late)
        swarm.begin()
        *_, live = late_by(swarm, overlap, self.steps)
        assert not overlap or live == pytest.approx(self.n / (1 + overlap / 2), rel=1e-3)
        masses = [node.machine.exchange.kept / ONE if is_biased else 1.0 for node in swarm.nodes.values()]
        return self.accuracy(np.mean([mass * z for mass, z in zip(masses, models_of(swarm).values(), strict=True)], 0))


def test_t9_accuracy_does_not_show_a_forgotten_weight() -> None:
    known = Softmax()
    everybody = known.together(range(known.n))
    alone = np.mean([known.together(range(node, node + 1)) for node in range(known.n)])
    assert alone < everybody - 0.15
    for topology, overlap in ((Exponential(), 0), (Ring(), 0), (Exponential(), 3)):
        assert known.gossiping(topology, overlap) > everybody - 0.015
    assert known.gossiping(Exponential(), 3, is_biased=True) > everybody - 0.05
