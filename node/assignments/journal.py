"""What this node has finished but perhaps not delivered: one small file a run, written before the update is offered.

After a crash a finished update is offered again without training again.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from covey.artifact import Artifact
from covey.errors import StoreError
from covey.parts import PartFile


@dataclass(frozen=True)
class FinishedUpdate:
    """A trained, encoded, signed update."""

    run: str
    round: int
    base: str
    """model_sha256 of the version it was trained from."""
    digest: str
    statement: bytes
    signature: bytes
    parts: tuple[PartFile, ...]
    delivered: bool = False
    private: bool = False
    """Whether it must never be made again."""


class Journal:
    """The newest finished update of each run, durable."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._newest = {update.run: update for update in self._on_disk()}

    def find(self, run: str, number: int, base: str) -> FinishedUpdate | None:
        """The finished update of this round and base, if there is one."""
        update = self._newest.get(run)
        return update if update and (update.round, update.base) == (number, base) else None

    def save(self, update: FinishedUpdate) -> None:
        """Write it durably; replaces what was there for this run. Blocking."""
        write_durably(self._path(update.run), _to_json(update))
        self._newest[update.run] = update

    def delivered(self, update: FinishedUpdate) -> None:
        """Note that the coordinator has it. Not synced: if the note is lost, the update is offered once more."""
        noted = replace(update, delivered=True)
        _replace(self._path(update.run), _to_json(noted), durable=False)
        self._newest[update.run] = noted

    def forget(self, run: str) -> None:
        """Drop what is known of a run."""
        self._path(run).unlink(missing_ok=True)
        self._newest.pop(run, None)

    def referenced(self) -> set[str]:
        """Digests of the files that undelivered updates need."""
        waiting = [update for update in self._newest.values() if not update.delivered]
        return {part.artifact.digest for update in waiting for part in update.parts}

    def _on_disk(self) -> Iterator[FinishedUpdate]:
        for path in self._folder.glob("*.json"):
            with contextlib.suppress(ValueError, KeyError):
                yield _from_json(path.read_text())

    def _path(self, run: str) -> Path:
        if not run or len(run) > 64 or not all(c.isalnum() or c in "-_" for c in run):
            raise StoreError(f"{run[:64]!r} is not a run id")
        return self._folder / f"{run}.json"


def write_durably(path: Path, text: str) -> None:
    """Replace a small file: all of it is there after a power cut, or what was there before. Blocking."""
    _replace(path, text, durable=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _replace(path: Path, text: str, *, durable: bool) -> None:
    temporary = path.with_suffix(".tmp")
    with temporary.open("w") as file:
        file.write(text)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    temporary.replace(path)


def _to_json(update: FinishedUpdate) -> str:
    parts = [
        {
            "name": part.name,
            "codec": part.codec,
            "digest": part.artifact.digest,
            "bytes": part.artifact.size_bytes,
            "chunks": base64.b64encode(part.artifact.chunk_sha256).decode(),
        }
        for part in update.parts
    ]
    return json.dumps(
        {
            "run": update.run,
            "round": update.round,
            "base": update.base,
            "digest": update.digest,
            "statement": base64.b64encode(update.statement).decode(),
            "signature": base64.b64encode(update.signature).decode(),
            "parts": parts,
            "delivered": update.delivered,
            "private": update.private,
        }
    )


def _from_json(text: str) -> FinishedUpdate:
    data = json.loads(text)
    parts = tuple(
        PartFile(p["name"], p["codec"], Artifact(p["digest"], p["bytes"], base64.b64decode(p["chunks"])))
        for p in data["parts"]
    )
    return FinishedUpdate(
        data["run"],
        data["round"],
        data["base"],
        data["digest"],
        base64.b64decode(data["statement"]),
        base64.b64decode(data["signature"]),
        parts,
        data["delivered"],
        data.get("private", False),
    )
