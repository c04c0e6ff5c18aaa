"""In which order the updates of an asynchronous simulation arrive: a function of the seed, not of this machine's load.

An assignment that was given at version v is due at version v + s, with s drawn for it. Of all open assignments the one
that is due first (of equals the oldest) arrives next; it waits for its training, and the others wait for it. With
N nodes, all of them always at work, and a version for each update, staleness is N - 1 on average whatever is drawn:
the draws decide how it spreads around that.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from covey.coordinator.modes.asynchronous.machine import AsyncMachine
from covey.driver.changes import Changes
from covey.errors import SpecError
from covey.seeds import derive_seed

NUMBER = r"(\d+(?:\.\d+)?)"


@dataclass(frozen=True)
class Staleness:
    """A normal distribution, rounded, nothing below 0: how many versions an assignment takes."""

    mean: float = 0.0
    sd: float = 0.0

    def draw(self, seed: int, number: int) -> int:
        """The value for an assignment, by its number."""
        rng = random.Random(derive_seed(seed, "staleness", number))
        return max(0, round(rng.gauss(self.mean, self.sd)))


def parse_staleness(text: str) -> Staleness:
    """Read `normal:MEAN,SD`.

    Raises:
        SpecError: Not of that form.
    """
    match = re.fullmatch(rf"normal:{NUMBER},{NUMBER}", text)
    if match is None:
        raise SpecError(f"--staleness {text!r}: write normal:MEAN,SD, for example normal:6,2")
    return Staleness(float(match[1]), float(match[2]))


class PacedRun(Protocol):
    """A run in progress; its order is decided only while its machine is an asynchronous one."""

    @property
    def machine(self) -> object:
        """What decides on its updates; None: it is not made yet."""


class Pace:
    """Lets nodes deliver one after the other.

    Args:
        changes: Told whenever something of the run has changed.
        run: The run; None: it is not in progress.
        staleness: What is drawn for each assignment.
        seed: The run's.
    """

    def __init__(self, changes: Changes, run: Callable[[], PacedRun | None], staleness: Staleness, seed: int) -> None:
        self._changes, self._run, self._staleness, self._seed = changes, run, staleness, seed
        self._waiting: dict[tuple[str, int], asyncio.Event] = {}

    async def turn(self, node: str, number: int) -> None:
        """A node has trained for an assignment: wait until it is its turn to deliver. In mode `rounds` it always is."""
        if self._machine() is None:
            return
        event = self._waiting[node, number] = asyncio.Event()
        self._release()
        try:
            await event.wait()
        finally:
            self._waiting.pop((node, number), None)

    async def run(self) -> None:
        """Look who is next whenever something has changed, until cancelled."""
        seen = self._changes.count
        while True:
            self._release()
            seen = await self._changes.after(seen)

    def _machine(self) -> AsyncMachine | None:
        run = self._run()
        machine = run.machine if run is not None else None
        return machine if isinstance(machine, AsyncMachine) else None

    def _release(self) -> None:
        machine = self._machine()
        if machine is None or not machine.open or machine.undecided or machine.deciding:
            return
        keys = {node: (self._due(w.number, w.base_version), w.number) for node, w in machine.open.items()}
        node = min(keys, key=lambda key: keys[key])
        event = self._waiting.get((node, keys[node][1]))
        if event is not None:
            event.set()

    def _due(self, number: int, base_version: int) -> int:
        return base_version + self._staleness.draw(self._seed, number)
