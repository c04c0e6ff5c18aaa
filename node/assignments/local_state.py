"""What this node keeps of its runs from update to update (what a codec lost, worker momentum), durable.

A finished update brings new state, which is staged beside the old. It takes the old one's place when the coordinator
says that just this update was accepted; whatever else became of it, the old state stays.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from covey import messages as msg
from covey.artifact import Artifact, artifact_from_json, artifact_to_json
from covey.node.assignments.durable import write_durably
from covey.node.updates import State

MAX_RUNS = 16
"""Of so many runs state is kept: the end of a run may go unheard while the node is away."""


@dataclass(frozen=True)
class RunState:
    """Of one run: the state after the last accepted update, and the one that the newest update would bring.

    Attributes:
        run: The run's id.
        accepted: The files that count.
        update: Digest of the newest update's statement.
        staged: The files that count once that update is accepted.
    """

    run: str
    accepted: State = field(default_factory=dict)
    update: str = ""
    staged: State = field(default_factory=dict)


class RunStates:
    """The states of the newest runs, in memory."""

    def __init__(self, states: Iterable[RunState] = ()) -> None:
        self._states = {state.run: state for state in states}
        self._bound()

    def settle(self, run: str, feedback: msg.Feedback) -> State:
        """The state to train from, now that the run has decided on an update."""
        now = self._states.get(run, RunState(run))
        is_accepted = feedback.accepted and bool(feedback.update) and feedback.update == now.update
        self._put(RunState(run, now.staged if is_accepted else now.accepted))
        return self._states[run].accepted

    def stage(self, run: str, update: str, state: State) -> None:
        """Note what a finished update brings."""
        now = self._states.get(run, RunState(run))
        self._put(RunState(run, now.accepted, update, state))

    def forget(self, run: str) -> None:
        """The run has ended."""
        self._states.pop(run, None)

    def digests(self) -> set[str]:
        """Of the files that are needed."""
        states = (files for state in self.newest_last() for files in (state.accepted, state.staged))
        return {artifact.digest for files in states for artifact in files.values()}

    def newest_last(self) -> tuple[RunState, ...]:
        """All of them; the run that was worked for last comes last."""
        return tuple(self._states.values())

    def _put(self, state: RunState) -> None:
        self._states.pop(state.run, None)
        self._states[state.run] = state
        self._bound()

    def _bound(self) -> None:
        while len(self._states) > MAX_RUNS:
            del self._states[next(iter(self._states))]


class LocalState:
    """The states of the newest runs, in a file that is written whenever they change.

    Methods block, and may be called from any thread.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "carried.json"
        folder.mkdir(parents=True, exist_ok=True)
        self._states = RunStates(_read(self._path))
        self._written = self._states.newest_last()
        self._lock = threading.Lock()

    def settle(self, run: str, feedback: msg.Feedback) -> State:
        """As `RunStates.settle`."""
        with self._lock:
            state = self._states.settle(run, feedback)
            self._write()
            return state

    def stage(self, run: str, update: str, state: State) -> None:
        """As `RunStates.stage`."""
        with self._lock:
            self._states.stage(run, update, state)
            self._write()

    def forget(self, run: str) -> None:
        """As `RunStates.forget`."""
        with self._lock:
            self._states.forget(run)
            self._write()

    def digests(self) -> set[str]:
        """As `RunStates.digests`. Does not block."""
        return self._states.digests()

    def _write(self) -> None:
        now = self._states.newest_last()
        if now != self._written:
            write_durably(self._path, json.dumps({"runs": [_to_json(state) for state in now]}))
            self._written = now


def _read(path: Path) -> list[RunState]:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        data = json.loads(path.read_text())
        # A file of an earlier version holds the state of one run.
        return [_from_json(item) for item in data.get("runs", [data]) if item["run"]]
    return []


def _to_json(state: RunState) -> dict[str, Any]:
    def files(of: State) -> dict[str, Any]:
        return {name: artifact_to_json(artifact) for name, artifact in of.items()}

    return {"run": state.run, "accepted": files(state.accepted), "update": state.update, "staged": files(state.staged)}


def _from_json(data: Mapping[str, Any]) -> RunState:
    def files(values: Mapping[str, Any]) -> dict[str, Artifact]:
        return {name: artifact_from_json(value) for name, value in values.items()}

    return RunState(data["run"], files(data["accepted"]), data["update"], files(data["staged"]))
