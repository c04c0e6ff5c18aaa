"""The child's end of the pipe: requests in, answers out; and the end of the child when the pipe closes."""

from __future__ import annotations

import json
import os
import queue
import socket
import threading
import time
import traceback
from dataclasses import dataclass
from typing import Any

from covey.errors import CoveyError

MAX_TRACEBACK = 20_000
"""Of a traceback's text the end is sent, which says most."""
ALIVE_S = 1.0
"""How often a job that makes steps says so."""


@dataclass(frozen=True)
class Request:
    """One operation asked for by the daemon."""

    number: int
    op: str
    args: dict[str, Any]


class Cancelled(BaseException):
    """The daemon cancelled the operation. Not an Exception, so that the user's code does not swallow it."""


class Channel:
    """Reads requests in a thread of its own, so that a cancel or the daemon's end is seen while training."""

    def __init__(self, fd: int) -> None:
        self._socket = socket.socket(fileno=fd)
        self._socket.set_inheritable(False)
        self._requests: queue.SimpleQueue[Request] = queue.SimpleQueue()
        self._waiting: set[int] = set()
        self._cancelled: set[int] = set()
        self._current = 0
        self._alive_due = 0.0
        threading.Thread(target=self._read, name="pipe", daemon=True).start()

    def _read(self) -> None:
        try:
            with self._socket.makefile("rb") as lines:
                for line in lines:
                    self._take(json.loads(line))
        finally:
            # The daemon is gone, or speaks nonsense: nobody is left to work for. Unlike sys.exit this ends a
            # training in the main thread at once; all that it wrote so far is scratch.
            os._exit(0)

    def _take(self, message: dict[str, Any]) -> None:
        if "cancel" in message:
            if message["cancel"] in self._waiting:
                self._cancelled.add(message["cancel"])
            return
        self._waiting.add(message["id"])
        self._requests.put(Request(message["id"], message["op"], message["args"]))

    def next(self) -> Request:
        """Wait for the next request, which becomes the current one."""
        request = self._requests.get()
        self._current = request.number
        self._say_alive()
        return request

    def check_cancelled(self) -> None:
        """Raise `Cancelled` if the daemon cancelled the current request; it is told that a step was made.

        Costs next to nothing: it is said about once a second.
        """
        if self._cancelled and self._current in self._cancelled:
            raise Cancelled
        if time.monotonic() >= self._alive_due:
            self._say_alive()

    def _say_alive(self) -> None:
        self._alive_due = time.monotonic() + ALIVE_S
        self._send({"id": self._current, "alive": True})

    def progress(self, fields: dict[str, Any]) -> None:
        """Report progress of the current request."""
        self._send({"id": self._current, "progress": fields})

    def answer(self, result: dict[str, Any]) -> None:
        """End the current request with its result."""
        self._finish({"id": self._current, "result": result})

    def fail(self, error: CoveyError, raised: BaseException | None = None) -> None:
        """End the current request with an error; `raised`: what was raised, whose traceback goes with it."""
        where = "".join(traceback.format_exception(raised))[-MAX_TRACEBACK:] if raised is not None else ""
        fields = {"code": error.code, "message": str(error), "traceback": where}
        self._finish({"id": self._current, "error": fields})

    def refuse(self, error: CoveyError) -> None:
        """Answer the first request with an error: this program cannot do any."""
        self.next()
        self.fail(error)

    def _finish(self, message: dict[str, Any]) -> None:
        self._waiting.discard(self._current)
        self._cancelled.discard(self._current)
        self._send(message)

    def _send(self, message: dict[str, Any]) -> None:
        self._socket.sendall(json.dumps(message).encode() + b"\n")
