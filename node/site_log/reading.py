"""A node's own log, read on its machine, beside the daemon or without it."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from covey.errors import NotFound, StoreError
from covey.node.site_log.local_log import FOLDER, LEVELS, NEWEST, OLDER

LOOK_S = 0.5
"""How often a log that is followed is looked at."""


@dataclass(frozen=True)
class LocalLine:
    """A line of a node's own log."""

    at: float
    """Unix time, by the node's clock."""
    level: str
    run: str
    """The run's id; empty: it is about none."""
    round: int
    """0: it is not about a round."""
    kind: str
    """As `covey.client.reading.site_log.SiteLine`."""
    text: str
    name: str = ""
    """What people call the run; empty: the line is about none, or an older version wrote it."""


class LocalLogs:
    """The log in a node's data directory.

    Args:
        data_dir: The node's data directory.
        sleep: Waits for so many seconds.
    """

    def __init__(self, data_dir: Path, sleep: Callable[[float], object] = time.sleep) -> None:
        self._folder, self._sleep = data_dir / FOLDER, sleep
        self._newest: BinaryIO | None = None
        """The newer file, behind the lines that were read."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._newest is not None:
            self._newest.close()

    def lines(self) -> list[LocalLine]:
        """All that is there, the oldest first.

        Raises:
            NotFound: There is no log.
            StoreError: It cannot be read.
        """
        lines: list[LocalLine] = []
        if (older := self._opened(OLDER)) is not None:
            with older:
                lines += _parsed(older)
        self._newest = self._opened(NEWEST)
        if self._newest is None and older is None:
            raise NotFound(f"there is no log in {self._folder}: no node has run on this data directory")
        return lines + (list(_parsed(self._newest)) if self._newest is not None else [])

    def followed(self) -> Iterator[LocalLine]:
        """What comes behind the lines that were read, for ever."""
        path = self._folder / NEWEST
        while True:
            if self._newest is not None and _is_another(path, self._newest):
                yield from _parsed(self._newest)
                self._newest.close()
                self._newest = None
            if self._newest is None:
                self._newest = self._opened(NEWEST)
            if self._newest is not None:
                yield from _parsed(self._newest)
            self._sleep(LOOK_S)

    def _opened(self, name: str) -> BinaryIO | None:
        path = self._folder / name
        try:
            return path.open("rb")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(
                f"{path} cannot be read ({error.strerror}): give this command as the user that the node runs as"
            ) from error


def chosen(lines: Iterable[LocalLine], run: str, level: str) -> Callable[[LocalLine], bool]:
    """Which lines are about a run, of a level or a more important one.

    Args:
        lines: What there is.
        run: Its name (then the newest of that name), its id, or how that begins; empty: any.
        level: The least important.

    Raises:
        NotFound: No line is about it.
    """
    least = LEVELS.index(level)
    wanted = ""
    if run:
        wanted = next(iter(dict.fromkeys(_ids(run, list(lines)))), "")
        if not wanted:
            raise NotFound(f"this node's log says nothing of run {run!r}; covey node logs without --run shows all")
    return lambda line: LEVELS.index(line.level) >= least and (not wanted or line.run == wanted)


def _ids(run: str, lines: list[LocalLine]) -> Iterator[str]:
    # Each run by its first line: one that has ended may say something after the next of its name has begun.
    yield from reversed(dict.fromkeys(line.run for line in lines if line.run and run in (line.name, line.run)))
    for line in reversed(lines):
        if line.run.startswith(run):
            yield line.run


def _is_another(path: Path, file: BinaryIO) -> bool:
    try:
        return path.stat().st_ino != os.fstat(file.fileno()).st_ino
    except FileNotFoundError:
        return False  # it is being replaced


def _parsed(file: BinaryIO) -> Iterator[LocalLine]:
    """The whole lines from where the file is; what a power cut left of others is passed over."""
    while (raw := file.readline()).endswith(b"\n"):
        with contextlib.suppress(ValueError, KeyError, TypeError):
            yield _line(json.loads(raw))
    file.seek(-len(raw), os.SEEK_CUR)


def _line(entry: Mapping[str, Any]) -> LocalLine:
    level = entry["level"] if entry["level"] in LEVELS else "info"
    texts = str(entry["run"]), int(entry["round"]), str(entry["kind"]), str(entry["text"])
    return LocalLine(float(entry["at"]), level, *texts, name=str(entry.get("name", "")))
