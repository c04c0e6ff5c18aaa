"""What is shown of a run: how far it is, and what its nodes do."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from covey.metrics import NODES

MAX_METRICS, MAX_METRIC_NAME = 100, 100
"""Of one run's metrics whose names the nodes choose; names of all."""
Counted = Literal["rounds", "updates", "steps"]
"""What a mode's specifications ask for so many of."""


@dataclass(frozen=True)
class NodeProgress:
    """What a node does in its open round, for people who watch."""

    phase: str = "invited"
    step: int = 0
    steps: int = 0
    loss: float = math.nan
    seconds: float = 0.0
    since: float = 0.0
    """When this phase began, in Unix seconds."""
    bytes_received: int = 0
    """From the node, since it was invited."""
    bytes_sent: int = 0
    waits_for: str = ""
    """What keeps the node from going on, as it said itself."""


@dataclass
class RunFacts:
    """What metrics show of a run: of those that are active, and of the last one that ended."""

    run: str
    name: str
    mode: str
    counts: Counted = "rounds"
    asked: int = 0
    """How many rounds or updates the specification asks for."""
    committed: int = 0
    """The newest committed version."""
    decided: int = 0
    """Updates that were decided on, where these are counted."""
    waiting: bool = False
    lacks_place: bool = False
    """Whether it could open something, but for its places, which other runs have."""
    values: dict[str, float] = field(default_factory=dict)
    """The newest known value of every metric."""

    def note(self, metrics: Mapping[str, object]) -> None:
        """Values of a version became known."""
        for name, value in metrics.items():
            short = name[:MAX_METRIC_NAME]
            # What cannot be printed cannot be shown, and would cost the whole scrape.
            if isinstance(value, int | float) and short.isprintable() and self._has_room(short):
                self.values[short] = float(value)

    def _has_room(self, name: str) -> bool:
        """Whether a metric of this name may be shown: those that nodes name take no place from others."""
        if name in self.values or not name.startswith(NODES):
            return True
        return sum(known.startswith(NODES) for known in self.values) < MAX_METRICS
