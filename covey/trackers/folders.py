"""What trackers that write into a folder share: names, a file that grows, and one that is written at the end."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from typing_extensions import override

from covey.errors import Conflict, NotFound
from covey.trackers.contract import TrackedRun, Tracker

MAX_NAME = 60
_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]+")


class Point(NamedTuple):
    """As `Tracker.point` takes it."""

    name: str
    step: int
    value: float
    at: float


def named(run: TrackedRun) -> str:
    """A file name for a run: its name, as far as that is harmless, and its id."""
    name = _UNSAFE.sub("-", run.name)[:MAX_NAME].strip(".-")
    return f"{name}-{run.run}" if name else run.run


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """What the operating system refuses meanwhile is said with the path."""
    try:
        yield
    except OSError as error:
        raise NotFound(f"{path} cannot be written: {error.strerror}; name another folder, or make room") from error


def replace(path: Path, text: str) -> None:
    """Write a file so that after a kill the old text is there, or the new one."""
    new = path.with_name(f".{path.name}.new")
    new.write_text(text)
    os.replace(new, path)


class Growing(Tracker):
    """A tracker with one file that grows. Beside it lies a cursor, with the size that it stands for.

    What a killed process wrote behind the cursor is cut off by the next one.
    """

    @abstractmethod
    def path(self, folder: Path, run: TrackedRun) -> Path:
        """The file."""

    @abstractmethod
    def head(self, run: TrackedRun) -> bytes:
        """What it begins with."""

    @abstractmethod
    def line(self, point: Point) -> bytes:
        """One point."""

    @override
    def open(self, where: str, run: TrackedRun) -> str:
        """See `Tracker.open`.

        Raises:
            Conflict: Another process tracks this run there.
        """
        self._path = path = self.path(Path(where).expanduser(), run)
        self._cursor = path.with_name(f".{path.name}.cursor")
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file: IO[bytes] = path.open("ab")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.close()
            raise Conflict(f"another process writes {path}: end it, or name another folder") from error
        size, cursor = self._saved()
        with writing(path):
            self._file.truncate(size)
            if not size:
                self._file.write(self.head(run))
        return cursor

    def _saved(self) -> tuple[int, str]:
        """Size and cursor; nothing, where the file has become shorter than that, or the cursor cannot be read."""
        try:
            size, cursor = json.loads(self._cursor.read_text())
            return (int(size), str(cursor)) if size <= self._path.stat().st_size else (0, "")
        except (OSError, ValueError, TypeError):
            return 0, ""

    @override
    def point(self, name: str, step: int, value: float, at: float) -> None:
        with writing(self._path):
            self._file.write(self.line(Point(name, step, value, at)))

    @override
    def save(self, cursor: str) -> None:
        with writing(self._path):
            self._file.flush()
            replace(self._cursor, json.dumps([self._file.tell(), cursor]))

    @override
    def model(self, file: Path) -> None:
        with writing(self._path):
            shutil.copyfile(file, self._path.with_name(f"{self._path.stem}.safetensors"))

    @override
    def close(self, state: str) -> None:
        with writing(self._path):
            self._file.close()


class Collected(Tracker):
    """A tracker that writes all points at once when it is closed, in place of what it wrote before."""

    @abstractmethod
    def write(self, folder: Path, run: TrackedRun, points: list[Point], models: list[Path], state: str) -> None:
        """Write everything.

        Args:
            folder: Where; it exists.
            run: The run.
            points: All, in the order in which they were told.
            models: The run's model, if it is wanted.
            state: As in `close`.
        """

    @override
    def open(self, where: str, run: TrackedRun) -> str:
        self._folder, self._run = Path(where).expanduser(), run
        self._points, self._models = list[Point](), list[Path]()
        with writing(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
        return ""

    @override
    def point(self, name: str, step: int, value: float, at: float) -> None:
        self._points.append(Point(name, step, value, at))

    @override
    def save(self, cursor: str) -> None:
        """It begins anew each time."""

    @override
    def model(self, file: Path) -> None:
        with writing(self._folder):
            kept = self._folder / f"{named(self._run)}.safetensors"
            shutil.copyfile(file, kept)
        self._models.append(kept)

    @override
    def close(self, state: str) -> None:
        with writing(self._folder):
            self.write(self._folder, self._run, self._points, self._models, state)
