"""Small disks of their own for daemons: filled, emptied, mounted read-only. Only root may mount one."""

from __future__ import annotations

import contextlib
import os
import shutil
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


class BreakableDisk:
    """An ext4 file system in a file, which can be made to fail as one whose disk fails does: read-only, at once.

    Args:
        folder: Where it is mounted; made.
        image: The file.
        mib: How large.
    """

    def __init__(self, folder: Path, image: Path, mib: int) -> None:
        self.folder, self._image = folder, image
        with image.open("wb") as file:
            file.truncate(mib << 20)
        _run("mkfs.ext4", "-q", "-F", image)
        folder.mkdir(parents=True)
        self._mount()

    def _mount(self) -> None:
        _run("mount", "-o", "loop,errors=remount-ro", self._image, self.folder)

    def fail(self) -> None:
        """From now on nothing can be written, also into files that are open; what was synced is on it.

        The error comes while the file system is frozen. Otherwise, as with `remount,abort`, a sync that is on its way
        may say that all is well, and lose what it wrote (3 of 25 trials with SQLite, none of 100 this way; Linux 6.18).
        """
        _run("fsfreeze", "--freeze", self.folder)
        try:
            Path(f"/sys/fs/ext4/{self._device()}/trigger_fs_error").write_text("a test", encoding="utf-8")
        finally:
            _run("fsfreeze", "--unfreeze", self.folder)

    def _device(self) -> str:
        """The name of the loop device under it."""
        mounts = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
        return next(Path(line.split()[0]).name for line in mounts if line.split()[1] == str(self.folder))

    def mend(self) -> None:
        """Check it, and mount it again: whoever had files open on it must be started again."""
        self.close()
        # A copy: in the namespaces of other daemons' workers the file system that failed is still mounted.
        copy = self._image.with_suffix(f".{len(list(self._image.parent.glob('*.img')))}.img")
        shutil.copyfile(self._image, copy)
        self._image = copy
        subprocess.run(["e2fsck", "-p", self._image], capture_output=True)
        self._mount()

    def close(self) -> None:
        """Unmount it."""
        _run("umount", "-l", self.folder)


@contextlib.contextmanager
def breakable_disk(folder: Path, mib: int = 64) -> Iterator[BreakableDisk]:
    """A small disk that can fail, or the test is skipped."""
    if os.getuid() != 0:
        pytest.skip("only root may mount a small disk")
    image = folder.parent / f"{folder.name}.img"
    image.parent.mkdir(parents=True, exist_ok=True)
    try:
        made = BreakableDisk(folder, image, mib)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no disk that can fail can be mounted here: {error}")
    try:
        yield made
    finally:
        made.close()


def _run(*command: object) -> None:
    subprocess.run(list(map(str, command)), check=True, capture_output=True)
