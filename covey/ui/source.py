"""The federation behind the page: asked by several threads, and found again after its coordinator was away."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from covey.client.connection import Connection
from covey.client.errors import Unreachable
from covey.client.target import Target

R = TypeVar("R")
LOOK_AGAIN_S = 2.0
"""A record that is read while no coordinator runs is opened anew after so long: one may run now."""
ENDING = "covey ui is ending"


class Source:
    """A federation; safe to ask from any thread, one call at a time.

    Where a data directory is named and no coordinator runs on it, its record is read.

    Args:
        target: Which coordinator.
        now: A clock, in seconds.
    """

    def __init__(self, target: Target, now: Callable[[], float] = time.monotonic) -> None:
        self.target, self._now = target, now
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._is_live, self._opened_at = False, 0.0
        self._guard = threading.Lock()
        """Of the two below; it is never held while somebody waits for an answer."""
        self._open: set[Connection] = set()
        self._is_closed = False

    @property
    def is_live(self) -> bool:
        """Whether the last answer came from a coordinator, not from a record at rest."""
        return self._connection is not None and self._is_live

    def ask(self, question: Callable[[Connection], R]) -> R:
        """Ask, and wait for the answer.

        Raises:
            Unreachable: There is no answer; the next call looks for the coordinator anew.
            CoveyError: What the answer is.
        """
        with self._said_at_the_end(), self._lock:
            try:
                return question(self._usable())
            except Unreachable:
                self._drop()
                raise

    def aside(self, question: Callable[[Connection], R]) -> R:
        """Ask what may take long, over a connection of its own: others are answered meanwhile. Raises as `ask`."""
        with self._said_at_the_end():
            connection = self._opened(self.target)
            try:
                return question(connection)
            finally:
                self._close(connection)

    def close(self) -> None:
        """Close all connections, for good: whoever waits for an answer gets `Unreachable` at once."""
        with self._guard:
            self._is_closed = True
            still_open = [*self._open]
        for connection in still_open:
            self._close(connection)

    def _usable(self) -> Connection:
        if self._connection is not None and not self._is_live and self._now() - self._opened_at >= LOOK_AGAIN_S:
            self._drop()
        if self._connection is None:
            address = self.target.address()
            self._is_live, self._opened_at = address is not None, self._now()
            by_address = Target(None, address, self.target.identity_folder())
            self._connection = self._opened(self.target if address is None else by_address)
        return self._connection

    def _drop(self) -> None:
        if self._connection is not None:
            self._close(self._connection)
            self._connection = None

    def _opened(self, target: Target) -> Connection:
        with self._guard:
            if self._is_closed:
                raise Unreachable(ENDING)
            connection = Connection(target)
            self._open.add(connection)
            return connection

    def _close(self, connection: Connection) -> None:
        """Close a connection, unless another thread does."""
        with self._guard:
            if connection not in self._open:
                return
            self._open.remove(connection)
        connection.close()

    @contextlib.contextmanager
    def _said_at_the_end(self) -> Iterator[None]:
        """What goes wrong because all connections were closed is said as such."""
        try:
            yield
        except Exception as error:
            if self._is_closed:
                raise Unreachable(ENDING) from error
            raise
