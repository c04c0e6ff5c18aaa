"""Who calls whom, and again and again until there is a link."""

from __future__ import annotations

import asyncio
import random

import structlog

from covey.driver.ending import heed
from covey.errors import CoveyError
from covey.node.peers.calls import PeerCalls
from covey.node.peers.hub import Hub
from covey.node.peers.roster import Member

log = structlog.get_logger(room="peers")
FIRST_WAIT_S, MAX_WAIT_S = 0.1, 10.0
GONE_WAIT_S = 300.0
"""Who is evicted for good is called on, that rarely: it may not have heard of it, and wait for the others."""
LOOK_S = 0.5
PATIENCE_S = 10.0
"""How long a node waits for the call of one that is to call it, before it tries itself: only one way may be open."""
TELL_S = 60.0
FINAL = ("version", "invalid-spec", "conflict", "identity")
"""Refusals of the peer after which calling again soon would not help: somebody has to do something."""


def patience_s(me: Member, other: Member) -> float | None:
    """How long to wait for a peer's call before it is called; None: it cannot be.

    Of two nodes that can both be called, the one with the lesser name calls.
    """
    if not other.address:
        return None
    return PATIENCE_S if me.address and me.name > other.name else 0.0


def longest_s(failures: int, *, is_gone: bool) -> float:
    """How long to wait at most after so many failed calls; `is_gone`: to one that is evicted for good."""
    return min(GONE_WAIT_S if is_gone else MAX_WAIT_S, FIRST_WAIT_S * 2.0 ** min(failures, 32))


class Dialer:
    """Keeps up the link to one peer.

    Args:
        calls: To that peer.
        hub: Where links are.
        patience_s: How long there has to be none before it calls.
    """

    def __init__(self, calls: PeerCalls, hub: Hub, patience_s: float) -> None:
        self._calls, self._hub, self._patience_s = calls, hub, patience_s
        self._told, self._told_at = "", 0.0
        self.trouble = ""
        """Why the newest call came to nothing; empty: it did not."""

    async def run(self) -> None:
        """Until cancelled."""
        failures = 0
        while True:
            await self._missed()
            try:
                await self._calls.link()
                failures, self.trouble = 0, ""
            except CoveyError as error:
                heed()
                failures = failures + 1 if error.code not in FINAL else 32
                self.trouble = str(error)
                if not self._hub.lives.is_out(self._calls.member.name):
                    self._tell(error)
            is_gone = self._calls.member.name in self._hub.evicted.for_good
            await asyncio.sleep(longest_s(failures, is_gone=is_gone) * random.uniform(0.5, 1.0))

    async def _missed(self) -> None:
        """Return once there was no link for long enough."""
        loop, name = asyncio.get_running_loop(), self._calls.member.name
        since = loop.time()
        while loop.time() - since < self._patience_s or self._hub.links.named(name) is not None:
            if (link := self._hub.links.named(name)) is not None:
                await link.ended.wait()
                since = loop.time()
            else:
                await asyncio.sleep(LOOK_S)

    def _tell(self, error: CoveyError) -> None:
        """Say why there is no link: when that changes, and every minute."""
        now = asyncio.get_running_loop().time()
        if (str(error), now < self._told_at + TELL_S) == (self._told, True):
            return
        self._told, self._told_at = str(error), now
        member = self._calls.member
        log.warning("cannot connect; trying again", peer=member.name, address=member.address, reason=str(error))
