"""Writes a machine's event log into a folder: in a thread of its own, bounded in memory and on disk, never in the way.

`NAME.jsonl` is the newest file; `NAME.1.jsonl` is the one before it, and so on. A disk error ends the log, which is
said once; the machine goes on.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import structlog
from typing_extensions import override

from covey.driver.driver import Recorder
from covey.machines.log import entry_line, opening_line
from covey.machines.values import ValueTable

log = structlog.get_logger(room="driver")
MEBIBYTE = 1 << 20
PAUSE_S = 0.2
"""How long the thread pauses when it has written all there is: if it woke for each event, the run would wait for it.

What came in this time is lost where the process is killed."""


@dataclass(frozen=True)
class LogLimits:
    """What a log may take."""

    file_bytes: int = 8 * MEBIBYTE
    """A new file is begun when one has become so large."""
    files: int = 4
    """Of one log; the oldest go."""
    waiting_bytes: int = 4 * MEBIBYTE
    """In memory; what comes while so much waits is left out, and the log goes on with a new opening later."""
    logs: int = 32
    """In the folder; those that were written longest ago go."""


@dataclass(frozen=True)
class _Line:
    content: bytes
    is_opening: bool = False


class EventLog(Recorder):
    """One machine's log (`covey.driver.driver.Recorder`). Its methods are called in one thread.

    Args:
        folder: Where the files are; it is made.
        kind: Which table reads it: the machine's mode.
        name: The machine's: the run's id.
        table: The machine's classes.
        clock: The time in seconds, on the machine's clock.
        limits: What it may take.
    """

    def __init__(
        self,
        folder: Path,
        kind: str,
        name: str,
        table: ValueTable,
        clock: Callable[[], float],
        limits: LogLimits = LogLimits(),
    ) -> None:
        self._kind, self._name, self._table, self._clock, self._limits = kind, name, table, clock, limits
        self._lines: queue.SimpleQueue[_Line | None] = queue.SimpleQueue()
        self._writer = _Writer(folder, name, self._lines, limits)
        self._queued_bytes = 0
        self._thread = threading.Thread(target=self._writer.run, name=f"event-log-{name}", daemon=True)
        self._has_gap = False
        self._is_given_up = False

    # -- the recorder ---------------------------------------------------------------------------------------------

    @override
    def opened(self, machine: object) -> None:
        try:
            self._thread.start()
        except RuntimeError as error:
            self._is_given_up = True
            say_end(self._name, "no thread can be started", error)
        self._open(machine)

    @override
    def took(self, machine: object, event: object, actions: Sequence[object]) -> None:
        if self._has_ended:
            return
        if self._has_gap:
            if self._waiting_bytes <= self._limits.waiting_bytes // 2:
                self._has_gap = False
                self._open(machine)
            return
        self._add(lambda: entry_line(self._clock(), event, actions, self._table))
        if self._writer.is_full.is_set():
            self._writer.is_full.clear()
            self._open(machine)

    @override
    def failed(self, event: object, error: Exception) -> None:
        if self.is_recording:
            self._add(lambda: entry_line(self._clock(), event, (), self._table, repr(error)))

    @property
    def is_recording(self) -> bool:
        """Whether the next event will be recorded, as far as is known."""
        return not self._has_gap and not self._has_ended

    @property
    def _has_ended(self) -> bool:
        return self._is_given_up or self._writer.is_stopped.is_set()

    @override
    def closed(self) -> None:
        self._lines.put(None)

    def join(self, timeout_s: float) -> bool:
        """Wait until all is written after `closed`; whether it is. Blocking."""
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    # -- lines ----------------------------------------------------------------------------------------------------

    def _open(self, machine: object) -> None:
        def line() -> bytes:
            return opening_line(self._clock(), self._kind, self._name, machine, self._table)

        self._add(line, is_opening=True)

    def _add(self, make: Callable[[], bytes], *, is_opening: bool = False) -> None:
        if self._has_ended:
            return
        try:
            content = make()
        except Exception as error:  # whatever it is, the run does not depend on it
            self._is_given_up = True
            say_end(self._name, "an event cannot be written as JSON", error)
            return
        if self._waiting_bytes + len(content) > self._limits.waiting_bytes:
            self._has_gap = True
            return
        self._queued_bytes += len(content)
        self._lines.put(_Line(content, is_opening))

    @property
    def _waiting_bytes(self) -> int:
        return self._queued_bytes - self._writer.taken_bytes


class _Writer:
    """The thread's part: takes lines, and writes them."""

    def __init__(self, folder: Path, name: str, lines: queue.SimpleQueue[_Line | None], limits: LogLimits) -> None:
        self._folder, self._name, self._lines, self._limits = folder, name, lines, limits
        self._file: BinaryIO | None = None
        self._is_full = False
        self.taken_bytes = 0
        """Of lines that were taken from the queue; only the thread changes it."""
        self.is_full = threading.Event()
        """The file is as large as one may be: a new one begins with the next opening."""
        self.is_stopped = threading.Event()
        """The disk took no more."""

    def run(self) -> None:
        """Write until None comes."""
        while (line := self._lines.get()) is not None:
            self._take(line)
            if self._lines.empty():
                self._flush()
                time.sleep(PAUSE_S)
        self._close()

    def _take(self, line: _Line) -> None:
        self.taken_bytes += len(line.content)
        if not self.is_stopped.is_set():
            try:
                self._write(line)
            except OSError as error:
                self._give_up(error)

    def _flush(self) -> None:
        if self._file is not None and not self.is_stopped.is_set():
            try:
                self._file.flush()
            except OSError as error:
                self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        self.is_stopped.set()
        say_end(self._name, "the disk does not take it", error)

    def _write(self, line: _Line) -> None:
        if line.is_opening:
            self._begin_part()
        if self._file is None:
            raise OSError("there is no file")
        self._file.write(line.content)
        if not self._is_full and self._file.tell() >= self._limits.file_bytes:
            self._is_full = True
            self.is_full.set()

    def _begin_part(self) -> None:
        if self._file is None:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._drop_oldest_logs()
            self._file = self._opened()
        if self._file.tell() >= self._limits.file_bytes:
            self._close()
            self._rotate()
            self._file, self._is_full = self._opened(), False

    def _opened(self) -> BinaryIO:
        path = self._path(0)
        file: BinaryIO = open(path, "ab", opener=_private)  # noqa: SIM115
        if file.tell():
            with path.open("rb") as written:
                written.seek(-1, os.SEEK_END)
                if written.read(1) != b"\n":  # a crash left a line unfinished
                    file.write(b"\n")
        return file

    def _rotate(self) -> None:
        for number in range(self._limits.files - 1, 0, -1):
            with contextlib.suppress(FileNotFoundError):
                self._path(number - 1).replace(self._path(number))

    def _path(self, number: int) -> Path:
        return self._folder / (f"{self._name}.{number}.jsonl" if number else f"{self._name}.jsonl")

    def _drop_oldest_logs(self) -> None:
        written_at: dict[str, float] = {}
        for path in self._folder.glob("*.jsonl"):
            name = path.name.partition(".")[0]
            with contextlib.suppress(FileNotFoundError):  # another log's thread may have dropped it
                written_at[name] = max(written_at.get(name, 0.0), path.stat().st_mtime)
        written_at.pop(self._name, None)
        for name in sorted(written_at, key=written_at.__getitem__, reverse=True)[self._limits.logs - 1 :]:
            for path in self._folder.glob(f"{name}.*"):
                path.unlink(missing_ok=True)

    def _close(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def say_end(name: str, reason: str, error: Exception) -> None:
    """Say why nothing more is recorded."""
    log.warning("the event log ends here; the run goes on", name=name, reason=reason, error=repr(error))
