"""How long a daemon waits for a job of its worker's that gives no sign of life."""

from __future__ import annotations

import asyncio
from typing import TypeVar

T = TypeVar("T")
START_S = 300.0
"""For a job to begin: the child imports torch first, and ends what was given up."""
STOP_S = 30.0
"""For a job that was given up to end."""
PIECE_S = 5.0
"""Silence is counted in pieces of at most this length, so that a daemon that was suspended itself blames nobody."""


class Patience:
    """Waits for one job, and counts for how long it was silent."""

    def __init__(self) -> None:
        self.begun = False
        self._heard = False

    def heard(self) -> None:
        """It gave a sign of life: it began, or made a step."""
        self.begun = self._heard = True

    async def wait(self, answer: asyncio.Future[T], limit_s: float) -> T:
        """The job's answer.

        Raises:
            TimeoutError: It was silent for `limit_s`, or did not begin within `START_S`.
        """
        silent_s = 0.0
        while True:
            limit = limit_s if self.begun else START_S
            piece_s, self._heard = min(PIECE_S, limit / 4), False
            done, _ = await asyncio.wait({answer}, timeout=piece_s)
            if done:
                return answer.result()
            silent_s = 0.0 if self._heard else silent_s + piece_s
            if silent_s >= limit:
                raise TimeoutError
