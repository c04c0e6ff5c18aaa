"""What a mode's room offers: its part in a run (`covey.coordinator.runs.mode.Mode`), and the few facts about it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from covey.coordinator.runs.active_run import ActiveRun
from covey.coordinator.runs.facts import Counted
from covey.coordinator.runs.mode import Mode
from covey.coordinator.runs.ports import Worker
from covey.machines.values import ValueTable
from covey.storage.record.contract import RunRecord, Store


@dataclass(frozen=True)
class ReplayReport:
    """What a replay came to."""

    run: str
    decisions: int
    """How many were made again: an asynchronous run's, or rounds."""
    versions: int
    """How many versions came out the same, version 0 not counted."""
    model_sha256: str
    """Of the last version that came out."""
    problems: tuple[str, ...] = ()
    """The first decision that came out differently, and how; a replay ends there."""
    unit: str = "rounds"
    """What `decisions` counts: `rounds`, or `decisions` of an asynchronous run."""

    @property
    def ok(self) -> bool:
        """Whether everything came out as recorded."""
        return not self.problems


class Replaying(Protocol):
    """Makes every decision of a run again."""

    async def run(self, on_progress: Callable[[int, int], None] = ...) -> ReplayReport:
        """Make every decision again; `on_progress(done, whole)` is called after each."""


@dataclass(frozen=True)
class ReplayInputs:
    """A run on record, and what its decisions are made again with.

    Attributes:
        store: The record; only read.
        run: The run.
        artifacts: The folder of the coordinator's files, by digest.
        worker: Makes the decisions.
        folder: An empty folder for what comes out.
        allow_path: Whether the run may name its task, rules and codecs by import paths.
        data_paths: Where the task finds the coordinator's own data, by name.
    """

    store: Store
    run: RunRecord
    artifacts: Path
    worker: Worker
    folder: Path
    allow_path: bool = False
    data_paths: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ModeRoom:
    """A mode, as the rest of the coordinator knows it.

    Attributes:
        name: As specifications name it.
        counts: What a specification asks for so many of.
        section: Where in a specification it does: the section, and the key in it.
        begin: Makes the mode's part in a run.
        values: The classes of its machine, for event logs.
        replay: Makes a run's decisions again.
    """

    name: str
    counts: Counted
    section: tuple[str, str]
    begin: Callable[[ActiveRun], Mode]
    values: ValueTable
    replay: Callable[[ReplayInputs], Replaying]

    def asked(self, spec_json: str) -> int:
        """How many rounds or updates a stored specification asks for; 0 if it does not say."""
        section, key = self.section
        spec: Mapping[str, Any] = json.loads(spec_json) if spec_json else {}
        return int(spec.get(section, {}).get(key, 0))
