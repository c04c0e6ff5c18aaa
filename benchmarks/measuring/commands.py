"""How long the commands take that read a large record, from a real coordinator: as whole processes, and as calls.

Used by `benchmarks.reading`. A command's time is that of its whole process, Python's start and imports included; the
call beside it is the same through `covey.client`, over TLS, in a process that is connected already.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measuring.large_record import ASYNC, SYNC, Size, fill_store
from covey.client.connection import Connection, connect
from covey.testing.federation import Federation

KILOBYTE = 1024
RESET_PEAK = "5"


@dataclass(frozen=True)
class Command:
    """One command, how it is given, and the call that it is made of."""

    arguments: tuple[str, ...]
    call: Callable[[Connection], object]

    @property
    def name(self) -> str:
        """As it is typed."""
        return " ".join(("covey", *self.arguments))


@dataclass(frozen=True)
class Timed:
    """What one command took.

    Attributes:
        name: As it is typed.
        call_s: Median of the calls.
        process_s: Median of the whole processes.
        client_mb: By how much the calls raised the peak of the client's resident memory, 1e6 bytes.
        coordinator_mb: By how much the coordinator's peak lay over what it held before, 1e6 bytes.
    """

    name: str
    call_s: float
    process_s: float
    client_mb: float
    coordinator_mb: float


def commands(size: Size) -> list[Command]:
    """What is measured: each command as people use it, and with `--json`."""
    last, middle = str(size.rounds), str(size.updates // 2)
    plain = [
        Command(("run", "list"), lambda c: c.runs(100)),
        Command(("run", "show", SYNC), lambda c: (c.run(SYNC), c.contributions(SYNC))),
        Command(("run", "show", ASYNC), lambda c: (c.run(ASYNC), c.contributions(ASYNC))),
        Command(("run", "watch", SYNC), lambda c: list(c.watch(SYNC))),
        Command(("run", "watch", ASYNC), lambda c: list(c.watch(ASYNC))),
        Command(("round", "list", SYNC), lambda c: c.rounds(SYNC, limit=100, newest=True)),
        Command(("round", "list", ASYNC), lambda c: c.rounds(ASYNC, limit=100, newest=True)),
        Command(("round", "list", ASYNC, "--after", middle), lambda c: c.rounds(ASYNC, after=int(middle), limit=100)),
        Command(("round", "show", SYNC, last), lambda c: c.round(SYNC, int(last))),
        Command(("node", "list"), lambda c: c.nodes(100)),
    ]
    return [form for command in plain for form in (command, Command((*command.arguments, "--json"), command.call))]


def time_commands(root: Path, url: str | None, size: Size, repeat: int) -> Iterator[Timed]:
    """Fill a coordinator's record, start it, and time every command. The first line is a command that reads nothing.

    Args:
        root: A new folder for it.
        url: An empty database; None: SQLite in the data directory.
        size: Of the record.
        repeat: How often each is done.
    """
    with Federation(root, nodes=0, store_url=url) as federation:
        federation.start_coordinator()
        federation.stop_coordinator()
        fill_store(url or f"sqlite:///{federation.coordinator_dir}/covey.db", size)
        daemon = federation.start_coordinator()
        where = ("--data-dir", str(federation.coordinator_dir))
        yield Timed("covey --version", 0.0, _processes_s(["--version"], repeat), 0.0, 0.0)
        with connect(federation.coordinator_dir) as connection:
            for command in commands(size):
                command.call(connection)
                before = {pid: _reset_peak_mb(pid) for pid in (os.getpid(), daemon.pid)}
                call_s = statistics.median(_seconds(lambda: command.call(connection)) for _ in range(repeat))  # noqa: B023
                grown = [max(0.0, _mb(pid, "VmHWM") - mb) for pid, mb in before.items()]
                yield Timed(command.name, call_s, _processes_s([*command.arguments, *where], repeat), *grown)


def _seconds(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def _processes_s(arguments: Sequence[str], repeat: int) -> float:
    """Median seconds of a command's processes."""
    command = [sys.executable, "-m", "covey", *arguments]
    return statistics.median(
        _seconds(lambda: subprocess.run(command, capture_output=True, check=True)) for _ in range(repeat)
    )


def _reset_peak_mb(pid: int) -> float:
    """Begin a process's peak of resident memory anew; what it holds now."""
    Path(f"/proc/{pid}/clear_refs").write_text(RESET_PEAK)
    return _mb(pid, "VmRSS")


def _mb(pid: int, name: str) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{name}:")).split()[1]) * KILOBYTE / 1e6
