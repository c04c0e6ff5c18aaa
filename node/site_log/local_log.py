"""What a node logs, once more in files of a bounded size on its own machine: for its operator, `covey node logs`.

A daemon's log goes to its standard error, and from there to wherever the system puts it: systemd's journal, a
container's log, a Slurm file, a terminal. Here the same lines are with the run that they are about, whatever started
the daemon. Nothing of it leaves the machine.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from covey.node.site_log.works import Work
from covey.texts import printable

FOLDER, NEWEST, OLDER = "log", "node.jsonl", "node.1.jsonl"
"""In a node's data directory. A file that is full takes the place of the older one."""
FILE_BYTES = 8 << 20
MAX_TEXT, MAX_NAME = 4000, 200
"""Characters of a line, and of a run; the rest is left out."""
LEVELS = ("debug", "info", "warning", "error")
OWN_KEYS = frozenset({"event", "timestamp", "level", "room", "run", "round", "exception"})
_LEVEL = re.compile(r"""^(?:\S+ \[|\{.*?"level": ")(debug|info|warning|error|critical)\b""")
"""Of a line that the worker's own log printed, for people or for machines."""


class LocalLog:
    """One node's. A disk that takes nothing costs the lines.

    Args:
        data_dir: The node's data directory.
        run: What all of it is about; empty: each line says it.
        now: Unix time in seconds.
        file_bytes: Of a file, at most, but for one line.
    """

    def __init__(
        self, data_dir: Path, run: str = "", now: Callable[[], float] = time.time, file_bytes: int = FILE_BYTES
    ) -> None:
        self._folder, self._run, self._now, self._file_bytes = data_dir / FOLDER, run, now, file_bytes
        self._lock, self._descriptor, self._bytes = threading.Lock(), -1, 0
        self._works: dict[str, Work] = {}
        self._names: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._lock:
            self._close()

    def named(self, run: str, name: str) -> None:
        """What people call a run: said in the log when the node first works for it, and beside each line about it."""
        if self._names.get(run) != name:
            self._names = {**dict(list(self._names.items())[-99:]), run: name}
            self._add(run, 0, "node", "info", [f"works for run {name}"])

    def began(self, run: str, number: int, worker: str = "") -> None:
        """One of the node's workers works for a round of a run now."""
        self._works[worker] = Work(run, number)

    def printed(self, data: bytes, worker: str = "") -> None:
        """A worker printed something."""
        work = self._works.setdefault(worker, Work(self._run, 0))
        for text in work.lines(data):
            level = _LEVEL.match(text)
            self._add(work.run, work.round, "output", level[1] if level else "info", [text])

    def heard(self, event: Mapping[str, Any]) -> None:
        """The node logs something; in any thread."""
        run, number = event.get("run"), event.get("round")
        self._add(
            run if isinstance(run, str) else self._run,
            number if isinstance(number, int) else 0,
            "node",
            str(event.get("level", "info")),
            [in_words(event), *str(event.get("exception", "")).splitlines()],
        )

    def failed(self, run: str, number: int, text: str, traceback: str) -> None:
        """Work for a run failed."""
        self._add(run, number, "failure", "error", [text])
        self._add(run, number, "traceback", "error", traceback.splitlines())

    def _add(self, run: str, number: int, kind: str, level: str, texts: list[str]) -> None:
        level = level if level in LEVELS else "error"
        entry = {"at": self._now(), "level": level, "run": run[:MAX_NAME], "round": number, "kind": kind}
        extra = {"name": self._names[run]} if run in self._names else {}
        lines = [json.dumps({**entry, "text": printable(text[:MAX_TEXT]), **extra}) for text in texts]
        with self._lock, contextlib.suppress(OSError):
            for line in lines:
                self._write(line.encode() + b"\n")

    def _write(self, raw: bytes) -> None:
        path = self._folder / NEWEST
        if self._descriptor >= 0 and self._bytes + len(raw) > self._file_bytes:
            self._close()
            path.replace(self._folder / OLDER)
        if self._descriptor < 0:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            self._bytes = os.fstat(self._descriptor).st_size
        os.write(self._descriptor, raw)
        self._bytes += len(raw)

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def in_words(event: Mapping[str, Any]) -> str:
    """What a log event says beside its run, on one line."""
    return f"{event.get('event')}{''.join(f' {key}={value}' for key, value in event.items() if key not in OWN_KEYS)}"
