"""A network for swarms that loses, doubles and reorders."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np

from covey.gossip.mass import ONE
from covey.gossip.mixing import Uniform
from covey.gossip.planning import Planner
from covey.gossip.push_sum import events as ev
from covey.gossip.push_sum.machine import PushSumPolicy
from covey.gossip.topologies.random import Random
from covey.testing.swarm_ports import Message, Vector
from covey.testing.swarms import VirtualSwarm

SPEEDS = {"node-0": 1, "node-1": 1, "node-2": 4, "node-3": 4}
OPTIMA = {"node-0": -1.0, "node-1": -1.0, "node-2": 1.0, "node-3": 1.0}


def run_lossy(swarm: VirtualSwarm, rng: random.Random, loss: float) -> None:
    """Until all are finished: messages in any order, some lost, some twice."""
    while not all(node.finished for node in swarm.nodes.values()):
        for _ in range(len(swarm.messages)):
            index = rng.randrange(len(swarm.messages))
            if rng.random() < loss:
                swarm.messages.pop(index)
            else:
                swarm.deliver(index, keep=rng.random() < 0.1)
        for node in swarm.up:
            if node.is_busy and rng.random() < 0.8:
                node.finish_work()
        if rng.random() < 0.1:
            for node in swarm.up:
                node.heartbeat()
    swarm.settle()


def late_by(swarm: VirtualSwarm, steps: int, ticks: int) -> Iterator[float]:
    """Everybody makes a step a tick, and batches come so many steps late; yields the mass that nodes have in each.

    Args:
        swarm: It has begun, and allows for so many steps of overlap.
        steps: 0: in the step in which it was sent.
        ticks: How many.
    """
    under_way: list[tuple[int, Message]] = []
    for tick in range(ticks):
        for node in swarm.up:
            while node.machine.step <= tick and node.is_busy:
                node.finish_work()
                under_way += [(tick, message) for message in swarm.messages if isinstance(message.event, ev.Arrived)]
                swarm.messages = [message for message in swarm.messages if not isinstance(message.event, ev.Arrived)]
                while swarm.messages:
                    swarm.deliver()
        due = [message for sent, message in under_way if tick - sent >= steps - 1]
        under_way = [(sent, message) for sent, message in under_way if tick - sent < steps - 1]
        yield sum(node.machine.exchange.kept for node in swarm.up) / ONE
        swarm.messages += due
        while swarm.messages:
            swarm.deliver()
        for node in swarm.up if not steps else ():
            while node.machine.step <= tick and node.is_busy:
                node.finish_work()


def consensus_at_speeds(**policy: Any) -> float:
    """What four nodes come to, of which two are four times as fast; the optimum of all is 0, by speed it is 0.6."""

    def training(node: str, step: int, z: Vector, scale: float) -> Vector:
        return z - 0.015 * scale * (z - OPTIMA[node])

    models: dict[str, Vector] = {name: np.zeros(1) for name in OPTIMA}
    planner = Planner(Random({"peers": 1}), Uniform(), 7)
    swarm = VirtualSwarm(models, planner, PushSumPolicy(10_000, None, **policy), training)
    swarm.begin()
    reached = []
    for tick in range(600):
        swarm.clock.time = float(tick)
        while swarm.messages:
            swarm.deliver()
        for name, node in zip(SPEEDS, swarm.nodes.values(), strict=True):
            if tick % (4 // SPEEDS[name]) == 0:
                for _ in range(3):  # a training, its publication, and the mixture
                    node.finish_work()
        reached.append(swarm.sum_of_models()[0] / len(SPEEDS))
    assert swarm.audit().is_exact
    return float(np.mean(reached[450:]))
