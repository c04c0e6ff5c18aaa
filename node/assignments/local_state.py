"""What this node keeps of a run from update to update (what a codec lost, worker momentum), durable.

A finished update brings new state, which is staged beside the old. It takes the old one's place when the coordinator
says that just this update was accepted; whatever else became of it, the old state stays.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from covey.artifact import Artifact, artifact_from_json, artifact_to_json
from covey.node.assignments.journal import write_durably

State = Mapping[str, Artifact]
"""Name to file."""


@dataclass(frozen=True)
class Carried:
    """Of one run: the state after the last accepted update, and the one that the newest update would bring."""

    run: str
    accepted: State = field(default_factory=dict)
    update: str = ""
    """Digest of the newest update's statement."""
    staged: State = field(default_factory=dict)


class CarriedState:
    """The state of the run that this node works for; that of any other run is dropped."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "carried.json"
        folder.mkdir(parents=True, exist_ok=True)
        self._now = _read(self._path)

    def settle(self, run: str, update: str, *, accepted: bool) -> State:
        """The state to train from, now that the run has decided on `update`. Blocking."""
        now = self._now if self._now.run == run else Carried(run)
        taken = accepted and bool(update) and update == now.update
        self._write(Carried(run, now.staged if taken else now.accepted))
        return self._now.accepted

    def stage(self, run: str, update: str, state: State) -> None:
        """Note what a finished update brings. Blocking."""
        now = self._now if self._now.run == run else Carried(run)
        self._write(Carried(run, now.accepted, update, state))

    def referenced(self) -> set[str]:
        """Digests of the files that are needed."""
        return {artifact.digest for state in (self._now.accepted, self._now.staged) for artifact in state.values()}

    def _write(self, carried: Carried) -> None:
        if carried != self._now:
            write_durably(self._path, json.dumps(_to_json(carried)))
            self._now = carried


def _read(path: Path) -> Carried:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return _from_json(json.loads(path.read_text()))
    return Carried("")


def _to_json(carried: Carried) -> dict[str, Any]:
    def files(state: State) -> dict[str, Any]:
        return {name: artifact_to_json(artifact) for name, artifact in state.items()}

    return {
        "run": carried.run,
        "accepted": files(carried.accepted),
        "update": carried.update,
        "staged": files(carried.staged),
    }


def _from_json(data: Mapping[str, Any]) -> Carried:
    def pairs(values: Mapping[str, Any]) -> Iterator[tuple[str, Artifact]]:
        return ((name, artifact_from_json(value)) for name, value in values.items())

    return Carried(data["run"], dict(pairs(data["accepted"])), data["update"], dict(pairs(data["staged"])))
