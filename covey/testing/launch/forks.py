"""Starts programs of Covey as copies of one process that has imported everything (`covey.testing.launch.fork_server`).

They are processes of their own in every respect, but are there in milliseconds. For tests on Linux, where `enable`
was called; elsewhere, and for a daemon that is told not to be forked, programs are executed.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from covey.testing.launch.forking import COMMAND, adopt_orphans, send_order
from covey.testing.launch.nursery import Nursery

DEFAULT_NAME = "covey"
POLL_S = 0.005
FIXED = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
"""A thread that a numerical library starts would not be in a copy."""


class ForkedProcess:
    """A process that was forked for this one, its parent; the part of `subprocess.Popen` that daemons need."""

    def __init__(self, pid: int, command: Sequence[str]) -> None:
        self.pid, self.args = pid, list(command)
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end; the exit code.

        Raises:
            subprocess.TimeoutExpired: It still runs.
        """
        give_up_at = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if give_up_at is not None and time.monotonic() > give_up_at:
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
            time.sleep(POLL_S)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)


class ForkServer:
    """The process that others are forked from; this one becomes their parent."""

    def __init__(self) -> None:
        adopt_orphans()
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [sys.executable, "-m", "covey.testing.launch.fork_server", "--fd", str(theirs.fileno())]
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, pass_fds=(theirs.fileno(),), env={**os.environ, **FIXED}
        )
        theirs.close()
        atexit.register(self.close)
        self._ready = False

    def start(self, command: Sequence[str], output: BinaryIO, error: BinaryIO, env: Mapping[str, str]) -> ForkedProcess:
        """Start `covey` with these arguments, and with this environment and no other; its standard input is empty."""
        self._wait_ready()
        order = {
            "program": COMMAND,
            "arguments": list(command),
            "env": dict(env),
            "folder": os.getcwd(),
            "name": mark_of(env),
        }
        pid = send_order(self._control, order, [output.fileno(), error.fileno()])
        return ForkedProcess(pid, ["covey", *command])

    def nursery(self) -> Nursery:
        """Forks workers of this process itself."""
        self._wait_ready()
        return Nursery(self._control, DEFAULT_NAME)

    def _wait_ready(self) -> None:
        if not self._ready:
            self._ready = self._control.recv(64) == b"ready"

    def close(self) -> None:
        """End the server; what it forked goes on."""
        self._control.close()
        self._process.wait()


_server: ForkServer | None = None
_enabled = False


def enable() -> None:
    """From now on, `covey.testing.launch.processes.Daemon` forks where it can."""
    global _enabled
    _enabled = sys.platform == "linux"


def server() -> ForkServer | None:
    """The server, started at its first use; None: nobody has enabled it."""
    global _server
    if _enabled and _server is None:
        _server = ForkServer()
    return _server


@contextlib.contextmanager
def forked_workers() -> Iterator[None]:
    """Inside, workers of this process itself are forked, too, as far as it was enabled: those of a simulation, say.

    So is whom it asks (`covey.user_code.asking`).
    """
    from covey.user_code import asking
    from covey.worker.client import client

    forking, before = server(), (client.start_program, asking.run_program)
    try:
        if forking is not None:
            nursery = forking.nursery()
            client.start_program, asking.run_program = nursery.start, nursery.answer
        yield
    finally:
        client.start_program, asking.run_program = before


def covey_arguments(command: Sequence[str]) -> list[str] | None:
    """The arguments of `python -m covey.cli.main ...`, with this interpreter and no option of its own; else None."""
    program = [sys.executable, "-m", COMMAND]
    return list(command[3:]) if list(command[:3]) == program else None


def mark_of(env: Mapping[str, str]) -> str:
    """The name of processes with this environment: a federation's own, if it is one's."""
    return env.get("COVEY_FEDERATION", DEFAULT_NAME)[:8]


def run_covey(
    arguments: Sequence[object], *, env: Mapping[str, str] | None = None, timeout_s: float = 60.0
) -> subprocess.CompletedProcess[str]:
    """Run a `covey` command in a process of its own, until its end; what it printed is text.

    Args:
        arguments: Of the command.
        env: Its whole environment; default: this process's.
        timeout_s: How long it may take.

    Raises:
        subprocess.TimeoutExpired: It took longer, and was killed.
    """
    texts, whole, forking = [str(argument) for argument in arguments], os.environ if env is None else env, server()
    if forking is None:
        command = [sys.executable, "-m", COMMAND, *texts]
        return subprocess.run(command, capture_output=True, text=True, env=whole, timeout=timeout_s, check=False)
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as error:
        process = forking.start(texts, output, error, whole)
        try:
            code = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        printed = [_text_of(file) for file in (output, error)]
    return subprocess.CompletedProcess(process.args, code, *printed)


def _text_of(file: BinaryIO) -> str:
    file.seek(0)
    return file.read().decode()


def reap(name: str) -> None:
    """Take note of the ends of orphans with this name, whom nobody else waits for."""
    if name == DEFAULT_NAME:
        return
    for entry in os.scandir("/proc"):
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and Path(entry.path, "comm").read_text().startswith(name):
                os.waitpid(int(entry.name), os.WNOHANG)
