"""What a federation's processes hold, and what lies on its disks."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from covey.testing.chaos.arena import Arena

MOST_MORE_FILES, MOST_MORE_THREADS = 24, 16
"""Of one process, beside what it had before: connections that just end, threads of a pool that were not needed yet."""
MOST_MORE_BYTES = 64_000_000
"""Of memory: an allocator keeps what a burst took."""
MB = 1e6
COLLECTED = ("events", "receipts")
"""What a node's folder has more of with every run, by design."""


@dataclass(frozen=True)
class Held:
    """What one process holds: private memory in bytes, open descriptors, threads."""

    memory_bytes: int
    descriptors: int
    threads: int


@dataclass(frozen=True)
class Disk:
    """What lies in the data directories, bytes unless it says files.

    Attributes:
        record: The coordinator's database.
        artifacts: The coordinator's models and updates.
        artifact_files: How many those are.
        spool_files: Unfinished ones.
        events: Event logs of coordinator and nodes.
        node: The largest node's data directory, without its event logs and the receipts that it collects.
    """

    record: int
    artifacts: int
    artifact_files: int
    spool_files: int
    events: int
    node: int


@dataclass(frozen=True)
class Figures:
    """All of it at one moment.

    Attributes:
        at_s: Seconds since the beginning.
        lap: 0: the undisturbed runs.
        rounds: How many rounds and asynchronous updates were done by then.
        settled: Whether nothing went on any more.
        held: By process: a daemon's name, or `NAME's worker`.
        disk: What lies on disk.
    """

    at_s: float
    lap: int
    rounds: int
    settled: bool
    held: Mapping[str, Held] = field(default_factory=dict)
    disk: Disk = field(default_factory=lambda: Disk(0, 0, 0, 0, 0, 0))

    def most(self, what: str) -> int:
        """The largest of all processes' `memory_bytes`, `descriptors` or `threads`."""
        return max((int(getattr(held, what)) for held in self.held.values()), default=0)


def take(arena: Arena, began: float, *, lap: int, rounds: int, settled: bool) -> Figures:
    """The figures now."""
    federation = arena.federation
    pids = dict(federation.pids)
    pids |= {f"{name}'s worker": pid for name, pid in federation.worker_pids.items()}
    held = {name: used for name, pid in pids.items() if (used := _held(pid)) is not None}
    return Figures(time.monotonic() - began, lap, rounds, settled, held, disk_of(arena))


def _held(pid: int) -> Held | None:
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        return Held(process.memory_full_info().uss, process.num_fds(), process.num_threads())
    return None


def disk_of(arena: Arena) -> Disk:
    """What lies in the data directories."""
    home = arena.federation.coordinator_dir
    nodes = [arena.federation.node_dir(index) for index in range(len(arena.federation.names))]
    artifacts = _sizes(home / "files" / "artifacts")
    return Disk(
        record=sum(path.stat().st_size for path in home.glob("covey.db*")),
        artifacts=sum(artifacts),
        artifact_files=len(artifacts),
        spool_files=len(_sizes(home / "files" / "spool")),
        events=sum(sum(_sizes(folder / "events")) for folder in (home, *nodes)),
        node=max((_size_but(node, COLLECTED) for node in nodes), default=0),
    )


def _size_but(folder: Path, but: Iterable[str]) -> int:
    return sum(_sizes(folder)) - sum(sum(_sizes(folder / name)) for name in but)


def _sizes(folder: Path) -> list[int]:
    sizes = []
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # it went away just now
            if path.is_file():
                sizes.append(path.stat().st_size)
    return sizes


def growth(before: Figures, now: Figures) -> Iterable[str]:
    """In what processes hold more than they should, compared with before; both settled."""
    for name, held in now.held.items():
        earlier = before.held.get(name)
        if earlier is None:
            continue
        bounds = {
            "descriptors": earlier.descriptors + MOST_MORE_FILES,
            "threads": earlier.threads + MOST_MORE_THREADS,
            "memory_bytes": earlier.memory_bytes + MOST_MORE_BYTES,
        }
        for what, bound in bounds.items():
            if getattr(held, what) > bound:
                yield f"{name} holds {getattr(held, what):,} {what}; before it was {getattr(earlier, what):,}"
    if now.disk.spool_files:
        yield f"{now.disk.spool_files} unfinished files are left in the coordinator's spool"
    if now.disk.node > 2 * before.disk.node + MB:
        yield f"a node's folder has {now.disk.node:,} bytes; before it was {before.disk.node:,}"
