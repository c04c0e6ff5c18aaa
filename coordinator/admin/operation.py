"""What the operator wants of the coordinator now."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field


@dataclass
class Operation:
    """Whether the coordinator works, is paused, or is to stop.

    Attributes:
        paused: No new round is opened.
        draining: No new round is opened, and the coordinator stops once none is open.
        stop: Set: it stops now.
    """

    paused: bool = False
    draining: bool = False
    stop: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def state(self) -> str:
        """`running`, `paused` or `draining`."""
        return "draining" if self.draining else "paused" if self.paused else "running"
