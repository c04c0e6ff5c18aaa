"""What fails when: a sequence of strikes that follows from the seed alone."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from covey.testing.chaos.kinds import KINDS
from covey.testing.relay import Direction

MEAN_PAUSE_S = 1.5
COORDINATOR = "coordinator"
EVERYBODY = "everybody"


@dataclass(frozen=True)
class Strike:
    """One fault.

    Attributes:
        number: From 1.
        pause_s: How long after the strike before it.
        kind: The name of the fault, a key of `KINDS`.
        target: The daemon's name; for some kinds `everybody`.
        lasts_s: Until what was done is undone.
        fraction: In [0, 1): whatever else the fault has to choose (a moment, an amount).
        direction: Of a link, where it is about one.
    """

    number: int
    pause_s: float
    kind: str
    target: str
    lasts_s: float
    fraction: float
    direction: Direction

    def __str__(self) -> str:
        return f"{self.kind} {self.target} for {self.lasts_s:.1f} s"


def strikes(
    seed: int,
    nodes: Sequence[str],
    kinds: Sequence[str] = tuple(KINDS),
    mean_pause_s: float = MEAN_PAUSE_S,
    stretch: float = 1.0,
    *,
    coordinator: bool = True,
) -> Iterator[Strike]:
    """The strikes of a seed, without end: pauses are exponential, kinds in proportion to their weights.

    Args:
        seed: Of all that is drawn.
        nodes: Their names.
        kinds: Those that are drawn.
        mean_pause_s: Between two strikes.
        stretch: How many times longer than usual they last.
        coordinator: Whether there is one, that can be struck as nodes can.
    """
    draw, number = random.Random(seed), 0
    weights = [KINDS[kind].weight for kind in kinds]
    while True:
        number += 1
        pause_s = draw.expovariate(1.0 / mean_pause_s)
        (name,) = draw.choices(list(kinds), weights)
        kind = KINDS[name]
        target = _target(draw, kind.strikes, nodes, [COORDINATOR] if coordinator else [])
        lasts_s, fraction = stretch * draw.uniform(kind.least_s, kind.most_s), draw.random()
        direction: Direction = draw.choice(("up", "down"))
        yield Strike(number, pause_s, name, target, lasts_s, fraction, direction)


def _target(
    draw: random.Random,
    strikes_whom: Literal["coordinator", "node", "any", "all"],
    nodes: Sequence[str],
    others: Sequence[str],
) -> str:
    if strikes_whom == "all":
        return EVERYBODY
    if strikes_whom == "coordinator":
        return COORDINATOR
    return draw.choice(nodes if strikes_whom == "node" else [*others, *nodes])
