"""Memory and CPU time of processes, from /proc."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
KB_IN_MB = 1000 / 1.024
"""The kernel's kB are 1024 bytes; an MB here is 1e6 bytes, as in a model of 100 MB."""


@dataclass(frozen=True)
class Usage:
    """What one process holds and has used.

    Attributes:
        private_mb: Resident anonymous and shared memory, 1e6 bytes.
        mapped_mb: Resident pages of files, 1e6 bytes: the kernel takes them back when it needs to.
        cpu_s: User and system time since the process started.
    """

    private_mb: float = 0.0
    mapped_mb: float = 0.0
    cpu_s: float = 0.0

    def __add__(self, other: Usage) -> Usage:
        return Usage(self.private_mb + other.private_mb, self.mapped_mb + other.mapped_mb, self.cpu_s + other.cpu_s)


def parse_memory_mb(status: str) -> tuple[float, float]:
    """(anonymous and shared, file-backed) resident memory from the text of /proc/PID/status, 1e6 bytes.

    A process that is just ending has none of the lines: (0, 0).
    """
    sizes_kb = {}
    for line in status.splitlines():
        name, _, value = line.partition(":")
        if name in ("RssAnon", "RssShmem", "RssFile"):
            sizes_kb[name] = int(value.split()[0])
    private_kb = sizes_kb.get("RssAnon", 0) + sizes_kb.get("RssShmem", 0)
    return private_kb / KB_IN_MB, sizes_kb.get("RssFile", 0) / KB_IN_MB


def state_of(pid: int) -> str:
    """A process's state, one letter (`T`: it is suspended); empty: it is not there."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def parse_cpu_s(stat: str) -> float:
    """User and system seconds from the line of /proc/PID/stat (resolution: one tick, usually 0.01 s)."""
    fields = stat.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_A_SECOND


def usage_of(pid: int) -> Usage | None:
    """What a process holds now; None if it is gone."""
    try:
        private_mb, mapped_mb = parse_memory_mb(Path(f"/proc/{pid}/status").read_text(errors="replace"))
        return Usage(private_mb, mapped_mb, parse_cpu_s(Path(f"/proc/{pid}/stat").read_text(errors="replace")))
    except (FileNotFoundError, ProcessLookupError):
        return None


def available_memory_mb() -> float:
    """What new processes can have without pushing others out, 1e6 bytes."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) / KB_IN_MB
    raise RuntimeError("/proc/meminfo has no MemAvailable")
