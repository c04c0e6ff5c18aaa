"""Where tests put their files: in memory, where the machine has plenty of it; on a disk each sync is waited for."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import psutil

IN_MEMORY = Path("/dev/shm")
FREE_BYTES, AVAILABLE_BYTES = 6 << 30, 12 << 30
"""What must be free in it, and in memory as a whole: the tests' files take up to 4 GiB, their processes as much."""


def prefer_memory() -> None:
    """Temporary files of this process, and of those that it starts, are in memory; not where TMPDIR says another place.

    A program that is killed loses nothing there that it would not lose on a disk: only a power cut tells them apart.
    """
    if "TMPDIR" not in os.environ and _is_fit(IN_MEMORY):
        os.environ["TMPDIR"] = str(IN_MEMORY)
        tempfile.tempdir = None  # it is looked up anew


def _is_fit(folder: Path) -> bool:
    """Whether it is there, programs in it may run, and it is large enough."""
    if not os.access(folder, os.W_OK) or os.statvfs(folder).f_flag & os.ST_NOEXEC:
        return False
    return shutil.disk_usage(folder).free > FREE_BYTES and psutil.virtual_memory().available > AVAILABLE_BYTES
