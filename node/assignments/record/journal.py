"""What this node has finished but perhaps not delivered: one small file a run, written before the update is offered.

After a crash a finished update is offered again without training again.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import structlog

from covey.artifact import Artifact
from covey.errors import StoreError
from covey.node.assignments.record.durable import replace_file, write_durably
from covey.node.updates import FinishedUpdate, HeldPart
from covey.parts import PartFile

log = structlog.get_logger(room="node")


class Journal:
    """The newest finished update of each run, durable."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._newest = {update.run: update for update in self._on_disk()}

    def find(self, run: str, number: int, phase: int, base: str) -> FinishedUpdate | None:
        """The finished update of this round, phase and base, if there is one."""
        update = self._newest.get(run)
        wanted = (number, phase, base)
        return update if update and (update.round, update.phase, update.base) == wanted else None

    def holding(self, run: str, number: int, phase: int, base: str) -> FinishedUpdate | None:
        """The finished update of this round and base that holds parts back for this phase, if there is one."""
        update = self._newest.get(run)
        is_same = update is not None and (update.round, update.base) == (number, base) and update.promises(phase)
        return update if is_same else None

    def save(self, update: FinishedUpdate) -> None:
        """Write it durably; replaces what was there for this run. Blocking."""
        write_durably(self._path(update.run), _to_json(update))
        self._newest[update.run] = update

    def delivered(self, update: FinishedUpdate) -> None:
        """Note that the coordinator has it. Not synced: if the note is lost, the update is offered once more."""
        noted = self._newest[update.run] = replace(update, delivered=True)
        replace_file(self._path(update.run), _to_json(noted))

    def forget(self, run: str) -> None:
        """Drop what is known of a run."""
        self._path(run).unlink(missing_ok=True)
        self._newest.pop(run, None)

    def run_ended(self, run: str) -> None:
        """Drop a run's update; a private one stays, as it must never be made again."""
        update = self._newest.get(run)
        if update is not None and not update.private:
            self.forget(run)

    def referenced(self) -> set[str]:
        """Digests of the files that undelivered updates need, and of those that are held back."""
        updates = list(self._newest.values())  # at once: another thread may be saving one
        return {digest for update in updates for digest in update.needed}

    def _on_disk(self) -> Iterator[FinishedUpdate]:
        for path in self._folder.glob("*.json"):
            try:
                yield _from_json(path.read_text())
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                log.warning("a damaged entry of the journal is passed over", path=str(path), error=repr(error))

    def _path(self, run: str) -> Path:
        if not run or len(run) > 64 or not all(c.isalnum() or c in "-_" for c in run):
            raise StoreError(f"{run[:64]!r} is not a run id")
        return self._folder / f"{run}.json"


def _to_json(update: FinishedUpdate) -> str:
    return json.dumps(
        {
            "run": update.run,
            "round": update.round,
            "base": update.base,
            "digest": update.digest,
            "statement": base64.b64encode(update.statement).decode(),
            "signature": base64.b64encode(update.signature).decode(),
            "parts": [_part_to_json(part) for part in update.parts],
            "delivered": update.delivered,
            "private": update.private,
            "phase": update.phase,
            "held": [{"phase": h.phase, "layout": h.layout, **_part_to_json(h.part)} for h in update.held],
        }
    )


def _part_to_json(part: PartFile) -> dict[str, Any]:
    return {
        "name": part.name,
        "codec": part.codec,
        "digest": part.artifact.digest,
        "bytes": part.artifact.size_bytes,
        "chunks": base64.b64encode(part.artifact.chunk_sha256).decode(),
    }


def _part_from_json(data: Mapping[str, Any]) -> PartFile:
    artifact = Artifact(data["digest"], data["bytes"], base64.b64decode(data["chunks"]))
    return PartFile(data["name"], data["codec"], artifact)


def _from_json(text: str) -> FinishedUpdate:
    data = json.loads(text)
    parts = tuple(map(_part_from_json, data["parts"]))
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
        data.get("phase", 1),
        tuple(HeldPart(h["phase"], _part_from_json(h), h["layout"]) for h in data.get("held", ())),
    )
