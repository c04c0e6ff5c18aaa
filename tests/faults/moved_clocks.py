"""Clocks of their own for daemons: the computer's, moved by as many seconds as a file says."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

COMPILER = shutil.which("cc") or ""


def compiled(folder: Path) -> Path:
    """The library that moves a daemon's clock, made in a folder."""
    library = folder / "clock.so"
    source = Path(__file__).with_name("clock.c")
    subprocess.run([COMPILER, "-shared", "-fPIC", "-o", library, source], check=True)
    return library


class Clock:
    """The computer's clock as one daemon sees it: seconds before or after the real one."""

    def __init__(self, folder: Path, library: Path) -> None:
        self._file, self._library = folder / "clock", library
        folder.mkdir()
        self.set(0)

    def set(self, seconds: int) -> None:
        """The file is replaced as a whole: it is read at every look at the clock."""
        new = self._file.with_suffix(".new")
        new.write_text(str(seconds))
        new.replace(self._file)

    @property
    def env(self) -> dict[str, str]:
        return {"LD_PRELOAD": str(self._library), "COVEY_TEST_CLOCK": str(self._file)}
