"""Daemons started on this machine: each with a log file, watched, and gone when the context ends, or this process."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from covey.client.errors import DaemonFailed
from covey.signals import UNTIL_STDIN_ENDS

STOP_S = 10.0
TAIL_LINES = 15


class LocalDaemon:
    """One `covey` daemon as a child process, in a session of its own: a Ctrl-C reaches only the caller.

    It ends by itself where this process does without ending it, by a signal or a kill: it reads a pipe of ours.
    """

    def __init__(self, name: str, arguments: Sequence[object], log: Path) -> None:
        """Start it.

        Args:
            name: How messages call it.
            arguments: What follows `covey`.
            log: Where its output goes, appended.
        """
        self.name, self.log = name, log
        log.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-P", "-m", "covey.cli.main", *map(str, arguments)]
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                start_new_session=True,
                env={**os.environ, UNTIL_STDIN_ENDS: "1"},
            )

    def check(self) -> None:
        """Make sure that it runs.

        Raises:
            DaemonFailed: It has ended.
        """
        code = self.process.poll()
        if code is not None:
            lines = self.log.read_text(errors="replace").splitlines()[-TAIL_LINES:]
            raise DaemonFailed(
                "\n".join([f"{self.name} ended with exit code {code}; its log {self.log} ends:", *lines])
            )


class LocalDaemons:
    """All daemons of one caller; leaving the context ends them: SIGTERM, and SIGKILL for what stays."""

    def __init__(self) -> None:
        self._started: list[LocalDaemon] = []

    def __enter__(self) -> LocalDaemons:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, name: str, arguments: Sequence[object], log: Path) -> LocalDaemon:
        """Start one more."""
        daemon = LocalDaemon(name, arguments, log)
        self._started.append(daemon)
        return daemon

    def check(self) -> None:
        """Make sure that all run.

        Raises:
            DaemonFailed: One has ended.
        """
        for daemon in self._started:
            daemon.check()

    def stop(self) -> None:
        """End all, the last started first; a worker ends with its daemon, because its pipe closes."""
        try:
            for daemon in reversed(self._started):
                daemon.process.terminate()
            give_up_at = time.monotonic() + STOP_S
            for daemon in self._started:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    daemon.process.wait(max(0.0, give_up_at - time.monotonic()))
        finally:
            for daemon in self._started:
                if daemon.process.poll() is None:
                    daemon.process.kill()
                    daemon.process.wait()
                if daemon.process.stdin is not None:
                    daemon.process.stdin.close()
            self._started.clear()


def free_ports(count: int) -> list[int]:
    """Ports of the loopback that nobody listens on now: others are told them before anybody does."""
    with ExitStack() as open_ones:
        ports = []
        for _ in range(count):
            probe = open_ones.enter_context(socket.socket())
            probe.bind(("127.0.0.1", 0))
            ports.append(int(probe.getsockname()[1]))
        return ports
