"""Forks a daemon's workers, and whom it asks: its own children, copies of a process that has imported everything."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import socket
import subprocess
import tempfile
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
    """Forks what a process starts: its workers, and the programs that it asks."""

    def __init__(self, control: socket.socket, name: str) -> None:
        self._control, self._name = control, name

    async def start(self, arguments: Sequence[str], pipe: int, output: int, env: Mapping[str, str]) -> ForkedChild:
        """Fork a worker, in place of `covey.worker.client.client.start_program`."""
        return ForkedChild(self._fork(WORKER, arguments, env, [pipe, output, output]))

    def answer(self, module: str, question: bytes, answer: int, timeout_s: float) -> int:
        """Fork a program that answers a question, in place of `covey.user_code.asking.run_program`."""
        with tempfile.TemporaryFile() as file:
            file.write(question)
            file.seek(0)
            pid = self._fork(module, [], os.environ, [file.fileno(), answer, 2, 2])
        end = os.pidfd_open(pid)
        try:
            in_time = bool(select.select([end], [], [], timeout_s)[0])
        finally:
            os.close(end)
        if not in_time:
            os.kill(pid, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if not in_time:
            raise subprocess.TimeoutExpired(module, timeout_s)
        return code

    def _fork(self, program: str, arguments: Sequence[str], env: Mapping[str, str], files: list[int]) -> int:
        order = {
            "program": program,
            "arguments": list(arguments),
            "env": dict(env),
            "folder": os.getcwd(),
            "name": self._name,
        }
        return send_order(self._control, order, files)
