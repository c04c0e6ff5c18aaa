"""How many runs a node takes at once, and how much memory there is for them: what its coordinator is told."""

from __future__ import annotations

from pathlib import Path

from covey.node.operator.config import NodeConfig

MOST_RUNS = 16
"""At once: of more a node keeps no state."""


def free_memory() -> int:
    """Bytes of this machine's memory that are free, or can be at once; 0: it does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError, StopIteration):
        return 0


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
