"""Small disks of their own for daemons: filled, emptied, mounted read-only. Only root may mount one."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


class Disk:
    """A file system in memory, mounted on a folder that it is made for.

    Args:
        folder: Where.
        mib: How large.
    """

    def __init__(self, folder: Path, mib: int) -> None:
        self.folder, self._filler = folder, folder / "filler"
        folder.mkdir(parents=True)
        options = f"size={mib}m,mode=700"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "covey-test", folder], check=True)

    @property
    def free_bytes(self) -> int:
        """What is left."""
        found = os.statvfs(self.folder)
        return found.f_bavail * found.f_frsize

    def fill(self, left_bytes: int = 0) -> None:
        """Take all the room but so much."""
        with self._filler.open("ab") as file:
            while (wanted := self.free_bytes - left_bytes) > 0:
                with contextlib.suppress(OSError):  # somebody else took some of it just now
                    os.posix_fallocate(file.fileno(), file.seek(0, os.SEEK_END), wanted)

    def empty(self) -> None:
        """Give the room back."""
        self._filler.unlink(missing_ok=True)

    def mount(self, options: str) -> None:
        """Mount it again with other options: `ro`, `rw`. Read-only needs that nobody has a file open for writing."""
        subprocess.run(["mount", "-o", f"remount,{options}", self.folder], check=True)

    def close(self) -> None:
        """Unmount it, at once also where something has a file open."""
        subprocess.run(["umount", "-l", self.folder], check=True)


@contextlib.contextmanager
def disk(folder: Path, mib: int = 64) -> Iterator[Disk]:
    """A small disk, or the test is skipped."""
    if os.getuid() != 0:
        pytest.skip("only root may mount a small disk")
    try:
        made = Disk(folder, mib)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no small disk can be mounted here: {error}")
    try:
        yield made
    finally:
        made.close()
