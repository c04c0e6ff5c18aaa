"""How many runs a node takes at once, and how much memory there is for them: what its coordinator is told."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from covey.node.operator.config import NodeConfig

MOST_RUNS = 16
"""At once: of more a node keeps no state."""
_V2 = ("", "memory.max", "memory.current", "inactive_file")
_V1 = ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def free_memory(root: Path = Path("/")) -> int:
    """Bytes of memory that are free, or can be at once, for this process; 0: the machine does not say.

    The least of what the machine has, and of what the limit of each control group that the process is in (a
    container's, a batch job's) leaves: proc(5), cgroups(7).

    Args:
        root: Where the file systems `proc` and `sys/fs/cgroup` are.
    """
    try:
        lines = (root / "proc/meminfo").read_text(encoding="ascii").splitlines()
        free = next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError, StopIteration):
        return 0
    return max(1, min([free, *_left_by_groups(root)]))


def _left_by_groups(root: Path) -> Iterator[int]:
    """Bytes that are left in each control group of this process that has a limit; of files that are cached, too."""
    try:
        groups = (root / "proc/self/cgroup").read_text().splitlines()
    except (OSError, ValueError):
        return
    for group in groups:
        _, kinds, path = group.split(":", 2)
        if kinds and "memory" not in kinds.split(","):
            continue
        top, limit, used, cached = _V1 if kinds else _V2
        # In a container the path may be that of the machine, and the top is the container's own.
        names = [name for name in path.split("/") if name not in ("", "..")]
        for depth in range(len(names) + 1):
            folder = root.joinpath("sys/fs/cgroup", top, *names[:depth])
            with contextlib.suppress(OSError, ValueError, LookupError):  # "max" is no number: there is no limit
                stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
                yield int((folder / limit).read_text()) - int((folder / used).read_text()) + int(stat[cached])


def memory_for_runs(config: NodeConfig) -> int:
    """Bytes that runs may take: what is free, or less where the operator says so; 0: unknown."""
    free, limit = free_memory(), config.confinement.memory_bytes
    return free if limit is None else min(limit, free or limit)


def most_runs(config: NodeConfig) -> int:
    """How many runs at once: as the operator says, or one for each GiB of memory; 0: unknown, there is no limit."""
    if config.policy.max_runs is not None:
        return config.policy.max_runs
    memory_bytes = memory_for_runs(config)
    return min(MOST_RUNS, max(1, memory_bytes >> 30)) if memory_bytes else 0
