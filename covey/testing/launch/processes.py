"""Daemons as child processes (Linux): started with a log file, killed, suspended, and gone at the end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from covey import faults
from covey.testing.launch import forks
from covey.testing.launch.forking import NURSERY
from covey.testing.launch.forks import DEFAULT_NAME, ForkedProcess, covey_arguments, mark_of

POLL_S, SELDOM_S = 0.02, 0.1
"""How long it is between two looks at something: at first, and once it has taken a few seconds."""
TAIL_LINES = 30
STOP_S = 15.0
ORPHANS_S = 5.0


def living_parent_of(stat: str) -> int | None:
    """The parent's id in a line of /proc/PID/stat, whatever the name in it holds; None if it has ended."""
    state, parent = stat.rpartition(")")[2].split()[:2]
    return None if state in "ZX" else int(parent)


def process_ids() -> list[int]:
    """Every process that is visible now."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def children_of(*parents: int) -> dict[int, list[int]]:
    """Living direct children of each of these processes, the oldest id first; none if it is gone. Nurseries apart."""
    children: dict[int, list[int]] = {pid: [] for pid in parents}
    for candidate in sorted(process_ids()):
        with contextlib.suppress(OSError):
            stat = Path(f"/proc/{candidate}/stat").read_text(errors="replace")
            parent = living_parent_of(stat)
            if parent is not None and parent in children and f"{NURSERY})" not in stat:
                children[parent].append(candidate)
    return children


def marked_processes(name: str, value: str) -> list[int]:
    """Living processes whose environment holds `name=value`, whatever their parent is by now."""
    wanted, called, pids = f"{name}={value}".encode(), mark_of({name: value}), []
    for candidate in process_ids():
        with contextlib.suppress(OSError):
            folder = Path(f"/proc/{candidate}")
            # What was forked shows the environment of the process that it is a copy of, and has a name instead.
            is_called = called != DEFAULT_NAME and (folder / "comm").read_text().startswith(called)
            if (is_called and living_parent_of((folder / "stat").read_text()) is not None) or (
                wanted in (folder / "environ").read_bytes().split(b"\0")
            ):
                pids.append(candidate)
    return sorted(pids)


def wait_until(condition: Callable[[], bool], timeout_s: float, *, poll_s: float = POLL_S) -> bool:
    """Look at a condition until it holds; False if it did not within `timeout_s`.

    Args:
        condition: What it looks at.
        timeout_s: How long it looks.
        poll_s: At least so long is between two looks; where it takes long, up to `SELDOM_S`: a look costs those who
            answer, and they have other work.
    """
    began = time.monotonic()
    while not condition():
        waited_s = time.monotonic() - began
        if waited_s > timeout_s:
            return False
        time.sleep(max(poll_s, min(waited_s / 20, SELDOM_S)))
    return True


@contextlib.contextmanager
def standing_still(pids: Collection[int]) -> Iterator[None]:
    """Meanwhile these processes do nothing and say nothing (SIGSTOP), as on a machine that hangs."""
    try:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


Process = subprocess.Popen[bytes] | ForkedProcess


def _started(command: Sequence[str], output: BinaryIO, env: Mapping[str, str], *, fork: bool) -> Process:
    arguments = covey_arguments(command)
    server = forks.server() if fork and arguments is not None else None
    if arguments is not None and server is not None:
        return server.start(arguments, output, output, env)
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=env, start_new_session=True
    )


class Daemon:
    """One started program and its log; usable until it has ended, and started again by making another one."""

    def __init__(
        self, name: str, command: Sequence[str], log: Path, env: Mapping[str, str], *, may_die: bool, fork: bool = True
    ) -> None:
        """Start the program.

        Args:
            name: How errors call it.
            command: Program and arguments.
            log: Where its output goes, appended.
            env: Its whole environment.
            may_die: Whether it may end by itself (a drill told it to).
            fork: Whether it may be a copy of a process that has imported it, where that is enabled
                (`covey.testing.launch.forks`).
        """
        self.name, self.log, self.may_die = name, log, may_die
        self.command, self._fault_points = tuple(command), env.get("COVEY_FAULTS", "")
        self._is_killed_here = False
        with log.open("ab") as output:
            self._log_begin = output.tell()
            self._process = _started(command, output, env, fork=fork)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        return self._process.poll()

    @property
    def printed(self) -> str:
        """Its log since this start."""
        return self.log.read_bytes()[self._log_begin :].decode(errors="replace")

    @property
    def points_not_passed(self) -> list[str]:
        """The fault points that it was started with, and at which neither it nor a worker of its was killed.

        A worker's last words do not reach the log of a daemon that it has killed: there, its end says it.
        """
        if not self._fault_points:
            return []
        left = faults.not_passed(self._fault_points, self.printed)
        of_workers = [point for point in left if point.endswith(":daemon")]
        if of_workers and self.exit_code == -signal.SIGKILL and not self._is_killed_here:
            left.remove(of_workers[0])
        return left

    def tail(self, lines: int = TAIL_LINES) -> str:
        """The end of its log."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    def wait(self, timeout_s: float) -> int:
        """Wait until it has ended by itself; its exit code.

        Raises:
            TimeoutError: It still runs.
        """
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise TimeoutError(
                f"{self.name} did not end within {timeout_s:g} s; its log ends:\n{self.tail()}"
            ) from None

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.may_die = self._is_killed_here = True
        self._process.kill()
        self._process.wait()

    def terminate(self) -> None:
        """Ask it to end (SIGTERM); see `wait`."""
        self.may_die = True
        self._process.terminate()

    def send(self, number: signal.Signals) -> None:
        """Send it a signal that ends it; see `wait`."""
        self.may_die = True
        self._process.send_signal(number)

    def suspend(self) -> None:
        """Stop it in its tracks (SIGSTOP), as a machine that hangs; its connections stay open."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on after `suspend`."""
        os.kill(self.pid, signal.SIGCONT)


def end_all(daemons: Sequence[Daemon], name: str, value: str) -> list[str]:
    """End daemons (SIGTERM, after `STOP_S` SIGKILL) and everything else whose environment holds `name=value`.

    Returns:
        One line for each process that had to be killed; empty if all ended as they should.
    """
    living = [daemon for daemon in daemons if daemon.alive]
    for daemon in reversed(living):
        daemon.resume()
        daemon.terminate()
    stubborn = []
    for daemon in living:
        try:
            daemon.wait(STOP_S)
        except TimeoutError:
            daemon.kill()
            stubborn.append(f"{daemon.name} did not end within {STOP_S:g} s of SIGTERM")
    return stubborn + _kill_orphans(name, value)


def _kill_orphans(name: str, value: str) -> list[str]:
    try:
        return _orphans_killed(name, value)
    finally:
        forks.reap(mark_of({name: value}))


def _orphans_killed(name: str, value: str) -> list[str]:
    if wait_until(lambda: not marked_processes(name, value), ORPHANS_S):
        return []
    orphans = marked_processes(name, value)
    lines = [f"process {pid} ({_command_line(pid)}) outlived its daemon" for pid in orphans]
    for pid in orphans:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not marked_processes(name, value), ORPHANS_S)
    return lines


def _command_line(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    return "gone"
