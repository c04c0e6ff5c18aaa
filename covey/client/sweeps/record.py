"""The record of a sweep: what it is, and every event, a JSON object a line, on the disk before it takes effect."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from covey.client.sweeps.events import Event, from_json, to_json
from covey.errors import Conflict, NotFound, StoreError
from covey.storage.files.spool import sync_folder

FILE = "sweep.jsonl"
FORMAT = 1


class SweepRecord:
    """A record that is written to, by one process at a time.

    Args:
        folder: Where it is; made if it is missing.
        head: What the sweep is: its first line. A record that begins with another `digest` is refused.

    Raises:
        Conflict: Another process runs the sweep, or the folder has another sweep's record.
        StoreError: It cannot be written, or is damaged.
    """

    def __init__(self, folder: Path, head: Mapping[str, Any]) -> None:
        self.path = folder / FILE
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("a+b")
        except OSError as error:
            raise StoreError(f"{self.path} cannot be written: {error.strerror}") from error
        try:
            self._open(folder, head)
        except BaseException:
            self._file.close()
            raise

    def _open(self, folder: Path, head: Mapping[str, Any]) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(f"{folder}: another process runs this sweep; wait for it, or end it first") from None
        whole = _whole_lines(self.path.read_bytes())
        first, self.events = _parsed(self.path, whole) if whole else ({}, [])
        if not self.events:  # nothing has been decided: it may still become any sweep
            self._file.truncate(0)
            self._write({"format": FORMAT, **head})
            sync_folder(folder)
            return
        if first.get("digest") != head["digest"]:
            text = "has the record of another sweep, or of this one before its file was changed; name another folder"
            raise Conflict(f"{folder} {text}")
        if first.get("where") != head["where"]:
            raise Conflict(f"{folder}: the sweep was begun with {_shown(first)}; it cannot go on with {_shown(head)}")
        self._file.truncate(len(whole))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def append(self, event: Event) -> None:
        """Write an event; it is on the disk when this returns."""
        self._write(to_json(event))

    def _write(self, data: Mapping[str, Any]) -> None:
        try:
            self._file.write(json.dumps(data, separators=(",", ":")).encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise StoreError(f"{self.path} cannot be written: {error.strerror}") from error


def read_record(folder: Path) -> tuple[dict[str, Any], list[Event]]:
    """The first line and the events of a record, also while its sweep runs.

    Raises:
        NotFound: There is none.
        StoreError: It is damaged.
    """
    path = folder / FILE
    try:
        whole = _whole_lines(path.read_bytes())
    except OSError as error:
        raise NotFound(f"{folder} has no record of a sweep ({FILE}): {error.strerror}") from error
    if not whole:
        raise NotFound(f"{path} is empty: the sweep has not begun")
    return _parsed(path, whole)


def _whole_lines(text: bytes) -> bytes:
    """Without a line that was not finished: whoever wrote it was killed before it took effect."""
    return text[: text.rfind(b"\n") + 1]


def _parsed(path: Path, whole: bytes) -> tuple[dict[str, Any], list[Event]]:
    head, *events = list(_objects(path, whole))
    if head.get("format") != FORMAT:
        raise StoreError(f"{path} is no record that this version of Covey reads (format {head.get('format')!r})")
    return head, [from_json(data) for data in events]


def _objects(path: Path, whole: bytes) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(whole.splitlines(), start=1):
        try:
            data = json.loads(line)
        except ValueError as error:
            raise StoreError(f"{path}, line {number}: damaged ({error})") from error
        if not isinstance(data, dict):
            raise StoreError(f"{path}, line {number}: damaged")
        yield data


def _shown(head: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in head.get("where", {}).items()) or "nothing"
