"""Following a run to its end, across restarts of its coordinator."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncGenerator, Callable, Iterator

from covey.client.errors import Unreachable
from covey.client.reading.admin_channel import AdminChannel
from covey.client.reading.translation import change_of
from covey.client.values import Change
from covey.protos import admin_pb2 as pb

RETRY_S = 1.0
AWAY_S = 120.0
"""How long a coordinator that was there may be away (a restart) before following it is given up."""
OnLost = Callable[[Unreachable], object]
"""Told that the coordinator does not answer; it is being tried again."""


def follow(attempt: Callable[[], Iterator[Change]], on_lost: OnLost | None = None) -> Iterator[Change]:
    """A run's changes until it has ended.

    Args:
        attempt: Connects, and gives the changes from then on; the first ones have the newest rounds.
        on_lost: Called each time that the connection is gone.

    Raises:
        Unreachable: The coordinator does not answer (at first, or for `AWAY_S`).
    """
    away_since: float | None = None
    heard = False
    while True:
        try:
            for change in attempt():
                heard, away_since = True, None
                yield change
                if change.run.ended:
                    return
        except Unreachable as error:
            now = time.monotonic()
            away_since = away_since or now
            if not heard or now - away_since > AWAY_S:
                raise
            if on_lost is not None:
                on_lost(error)
        time.sleep(RETRY_S)


async def changes_over(channel: AdminChannel, run: str) -> AsyncGenerator[Change]:
    """A run's changes over a channel, which is closed at their end."""
    try:
        async with contextlib.aclosing(channel.stream("WatchRun", pb.RunRequest(run=run))) as messages:
            async for message in messages:
                yield change_of(message)
    finally:
        await channel.close()
