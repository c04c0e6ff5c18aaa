"""A node's log: what it shares is sent beside its work (the clock and the link around `Gathering`); all stays here."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from typing import Any

from covey.errors import CoveyError, NoPart, PolicyError, WorkerError
from covey.node.ports import Link
from covey.node.site_log.gathering import Gathering, Sharing
from covey.node.site_log.local_log import LocalLog, in_words

EVERY_S = 1.0
"""How often what was gathered is sent."""


def log_name(node: str, sharing: Sharing) -> str:
    """What people call the log of a node's worker, for who reads of a failure elsewhere."""
    return f"the log of node {node}" + ("" if sharing == "none" else f" (covey run logs RUN --node {node})")


class SiteLog:
    """One node's. Made and called on the event loop, but for `heard`.

    Args:
        link: To the coordinator; what it cannot take now waits.
        sharing: What the operator shares.
        scrub: What is done to each text before it leaves.
        now: Unix time in seconds: what lines are dated by.
        local: Where all of it stays; None: nowhere. The node's own log events it hears by itself.
    """

    def __init__(
        self,
        link: Link,
        sharing: Sharing,
        scrub: Callable[[str], str],
        now: Callable[[], float] = time.time,
        local: LocalLog | None = None,
    ) -> None:
        self._link, self._now, self._loop, self._local = link, now, asyncio.get_running_loop(), local
        self._gathering = Gathering(sharing, scrub, time.monotonic())

    def began(self, run: str, number: int, worker: str = "") -> None:
        """One of the node's workers works for a round of a run now."""
        self._gathering.began(run, number, worker)
        if self._local is not None:
            self._local.began(run, number, worker)

    def named(self, run: str, name: str) -> None:
        """What people call a run; the coordinator knows."""
        if self._local is not None:
            self._local.named(run, name)

    def connected(self) -> None:
        """A session began."""
        self._gathering.connected()

    def printed(self, data: bytes, worker: str = "") -> None:
        """A worker printed something."""
        self._gathering.printed(data, self._now(), worker)
        if self._local is not None:
            self._local.printed(data, worker)

    def heard(self, event: Mapping[str, Any]) -> None:
        """The node logs something; in any thread."""
        run, number = event.get("run"), event.get("round")
        if not isinstance(run, str):
            return
        lines = [in_words(event), *str(event.get("exception", "")).splitlines()]
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._logged, run, number if isinstance(number, int) else 0, lines)

    def _logged(self, run: str, number: int, lines: list[str]) -> None:
        for line in lines:
            self._gathering.logged(run, number, line, self._now())

    def failed(self, run: str, number: int, phase: str, error: CoveyError) -> None:
        """Work for a run failed; that this site's operator does not allow it is no failure."""
        if not isinstance(error, PolicyError | NoPart):
            traceback = error.traceback if isinstance(error, WorkerError) else ""
            text = f"{phase} failed: {error.code}: {error}"
            self._gathering.failed(run, number, text, traceback, self._now())
            if self._local is not None:
                self._local.failed(run, number, text, traceback)

    def send(self) -> None:
        """Send what was gathered, if it can be sent now."""
        if self._link.up:
            for message in self._gathering.due(time.monotonic()):
                self._link.send(message)

    async def keep_sending(self) -> None:
        """Send what was gathered, again and again, until cancelled."""
        while True:
            await asyncio.sleep(EVERY_S)
            self.send()
