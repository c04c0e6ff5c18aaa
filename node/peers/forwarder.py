"""How a node without an open port is called all the same: connections of its own wait at a relay for callers.

When a caller comes through one, it is passed on to the node's listener on loopback, and another one takes its place.
What passes is TLS between the caller and that listener.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable

import structlog

from covey.driver.ending import end
from covey.errors import CoveyError, TransferError
from covey.wire.addresses import host_and_port
from covey.wire.identities.identity import Identity
from covey.wire.registration import CALLED, CHALLENGE_BYTES, GREETING, WELCOME, proof
from covey.wire.splicing import PIECE_BYTES, keep_alive, splice

log = structlog.get_logger(room="peers")
WAITING = 4
"""Connections that wait for callers: a peer that comes back opens two at once."""
ANSWER_S = 15.0
FIRST_WAIT_S, MAX_WAIT_S = 0.2, 15.0


class Forwarder:
    """Keeps connections at a relay.

    Args:
        relay: Its address, `HOST:PORT`.
        newest: Gives this node's identity as it is now.
        listener: Where this node listens.
    """

    def __init__(self, relay: str, newest: Callable[[], Identity], listener: str) -> None:
        self._relay, self._newest, self._listener = relay, newest, listener
        self._splices: set[asyncio.Task[None]] = set()
        self._told = ""

    async def run(self) -> None:
        """Until cancelled."""
        try:
            await asyncio.gather(*(self._keep() for _ in range(WAITING)))
        finally:
            await end(self._splices)

    async def _keep(self) -> None:
        failures = 0
        while True:
            try:
                await self._once()
                failures = 0
            except (OSError, EOFError, TimeoutError, CoveyError) as error:
                failures += 1
                self._tell(str(error) or type(error).__name__)
                await asyncio.sleep(min(MAX_WAIT_S, FIRST_WAIT_S * 2.0 ** min(failures, 16)) * random.uniform(0.5, 1.0))

    async def _once(self) -> None:
        """Wait at the relay until somebody calls; then what passes is another task's."""
        async with asyncio.timeout(ANSWER_S):
            reader, writer = await asyncio.open_connection(*host_and_port(self._relay), limit=PIECE_BYTES)
        try:
            keep_alive(writer)
            async with asyncio.timeout(ANSWER_S):
                await self._register(reader, writer)
            self._tell("")
            if await reader.readexactly(1) != CALLED:
                raise TransferError("the relay says what a relay does not say")
        except BaseException:
            writer.close()
            raise
        task = asyncio.ensure_future(self._pass_on(reader, writer))
        self._splices.add(task)
        task.add_done_callback(self._splices.discard)

    async def _register(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(GREETING)
        writer.write(proof(self._newest(), await reader.readexactly(CHALLENGE_BYTES)))
        try:
            if await reader.readexactly(1) == WELCOME:
                return
        except EOFError:
            pass
        raise TransferError("it does not let this node wait there: is it a relay, and of this node's federation?")

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.CancelledError):
            near_reader, near_writer = await asyncio.open_connection(*host_and_port(self._listener), limit=PIECE_BYTES)
            await splice(reader, writer, near_reader, near_writer)
        writer.close()

    def _tell(self, problem: str) -> None:
        """Say whether callers can come, when that changes."""
        if problem == self._told:
            return
        self._told = problem
        if problem:
            log.warning("nobody can call through the relay; trying again", relay=self._relay, reason=problem)
        else:
            log.info("can be called through the relay", relay=self._relay)
