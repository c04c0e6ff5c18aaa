"""Steps in which nodes average and do not train, now and then (`global_every`): when they are, and how many it takes.

Everything follows from the number of nodes with which the run began, so that all nodes do the same without asking each
other: to measure how far the models are from each other would take a second protocol, and trust in what peers say.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from covey.gossip.topologies.regular import distances


@dataclass(frozen=True)
class Averaging:
    """A cycle of steps: `every` with training, then `rounds` without.

    Attributes:
        every: Steps with training in a cycle; 0: all steps are.
        rounds: Steps without.
    """

    every: int = 0
    rounds: int = 0

    def is_round(self, step: int) -> bool:
        """Whether a step, from 0, is one without training."""
        return self.every > 0 and step % (self.every + self.rounds) >= self.every

    def trainings(self, step: int) -> int:
        """How many trainings there are before a step."""
        if not self.every:
            return step
        cycles, rest = divmod(step, self.every + self.rounds)
        return cycles * self.every + min(rest, self.every)

    def steps(self, trainings: int) -> int:
        """How many steps there are in all, with those that follow the last training."""
        return trainings + (trainings // self.every * self.rounds if self.every else 0)


NEVER = Averaging()
"""All steps train."""


def contraction(n: int) -> float:
    """What one period of the one-peer exponential topology leaves of the nodes' distances from their mean, at most.

    In a step each node keeps half of its mass and gives half to the one d further on. The matrix is circulant, its
    eigenvalues are (1 + exp(-2 pi i f d / n)) / 2 of magnitude |cos(pi f d / n)|, and it is normal; so the largest
    product over f = 1..n-1 is the factor of the Euclidean norm. It is 0 where n is a power of two (Assran et al.,
    "Stochastic Gradient Push for Distributed Deep Learning", ICML 2019, section 5).

    Args:
        n: How many nodes; 1 or more.
    """
    if n & (n - 1) == 0:
        return 0.0
    return max(math.prod(abs(math.cos(math.pi * f * d / n)) for d in distances(n)) for f in range(1, n // 2 + 1))


def rounds_for(n: int, spread: float) -> int:
    """How many steps leave at most `spread` of the nodes' distances from their mean: whole periods, at least one.

    It holds for masses and for models times masses, where all n nodes are there and nothing waits between the steps.

    Args:
        n: How many nodes; 1 or more.
        spread: Above 0, below 1.
    """
    left, period = contraction(n), len(distances(n))
    return period * max(math.ceil(math.log(spread) / math.log(left)), 1) if left else period
