"""Forks a daemon's workers: its own children, each a copy of a process that has imported everything."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Mapping, Sequence

from covey.testing.launch.forking import WORKER, send_order


class ForkedChild:
    """A worker that was forked for this process; the part of asyncio's `Process` that a worker's client needs."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._ended = asyncio.Event()
        self._pidfd = os.pidfd_open(pid)
        asyncio.get_running_loop().add_reader(self._pidfd, self._reap)

    def _reap(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        _, status = os.waitpid(self.pid, 0)
        self.returncode = os.waitstatus_to_exitcode(status)
        self._ended.set()

    async def wait(self) -> int:
        """Wait for the end; the exit code."""
        await self._ended.wait()
        return self.returncode or 0

    def terminate(self) -> None:
        """SIGTERM."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


class Nursery:
    """Forks a daemon's workers, in place of `covey.worker.client.client.start_program`."""

    def __init__(self, control: socket.socket, name: str) -> None:
        self._control, self._name = control, name

    async def start(self, arguments: Sequence[str], pipe: int, output: int, env: Mapping[str, str]) -> ForkedChild:
        """Fork a worker."""
        order = {
            "program": WORKER,
            "arguments": list(arguments),
            "env": dict(env),
            "folder": os.getcwd(),
            "name": self._name,
        }
        return ForkedChild(send_order(self._control, order, [pipe, output, output]))
