"""Daemons started by a command: each with a log file, watched, and gone when the command ends."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType

from covey.errors import CoveyError

STOP_S = 10.0
TAIL_LINES = 15


class DaemonFailed(CoveyError):
    """A started daemon ended by itself; the message holds the end of its log."""

    code = "daemon-failed"


class Daemon:
    """One `covey` daemon as a child process, in a session of its own: a Ctrl-C reaches only the command."""

    def __init__(self, name: str, arguments: Sequence[object], log: Path) -> None:
        """Start it.

        Args:
            name: How messages call it.
            arguments: What follows `covey`.
            log: Where its output goes, appended.
        """
        self.name, self.log = name, log
        log.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "covey.cli.main", *map(str, arguments)]
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
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


class Daemons:
    """All daemons of one command; leaving the context ends them: SIGTERM, and SIGKILL for what stays."""

    def __init__(self) -> None:
        self._started: list[Daemon] = []

    def __enter__(self) -> Daemons:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, name: str, arguments: Sequence[object], log: Path) -> Daemon:
        """Start one more."""
        daemon = Daemon(name, arguments, log)
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
            self._started.clear()


@contextlib.contextmanager
def interrupted_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end the command as Ctrl-C does, so that what it started is ended too."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def tame_malloc() -> None:
    """Keep glibc to one malloc arena in this process, and give large blocks back to the system at once.

    Else the arenas of gRPC's threads, and the heap between 1 MiB messages, keep what a burst of transfers took. What
    the environment says (MALLOC_ARENA_MAX) goes first; without glibc it does nothing.
    """
    import ctypes

    trim_threshold, mmap_threshold, arena_max = -1, -3, -8
    if "MALLOC_ARENA_MAX" not in os.environ:
        with contextlib.suppress(OSError, AttributeError):
            libc = ctypes.CDLL(None)
            for option, value in ((arena_max, 1), (mmap_threshold, 256 << 10), (trim_threshold, 1 << 20)):
                libc.mallopt(option, value)
