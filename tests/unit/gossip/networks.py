"""A network for swarms that loses, doubles and reorders."""

from __future__ import annotations

import random

from covey.testing.swarms import VirtualSwarm


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
