"""A network for swarms that loses, doubles and reorders."""

from __future__ import annotations

import random
from collections.abc import Iterator

from covey.gossip.mass import ONE
from covey.gossip.push_sum import events as ev
from covey.testing.swarm_ports import Message
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
