"""What this node keeps of its runs from update to update (what a codec lost, worker momentum), durable.

A finished update brings new state, which is staged beside the old. It takes the old one's place when the coordinator
says that just this update was accepted; whatever else became of it, the old state stays.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog

from covey import messages as msg
from covey.artifact import artifact_from_json, artifact_to_json
from covey.errors import StoreError
from covey.node.assignments.record.durable import replace_file, write_durably
from covey.node.updates import FinishedUpdate, State
from covey.parts import LOCAL, slot

log = structlog.get_logger(room="node")
MAX_RUNS = 16
"""Of so many runs state is kept: the end of a run may go unheard while the node is away. And of so many that ended."""


@dataclass(frozen=True)
class RunState:
    """Of one run: the state after the last accepted update, and the one that the newest update would bring.

    Attributes:
        run: The run's id.
        accepted: The files that count.
        update: Digest of the newest update's statement.
        staged: The files that count once that update is accepted.
        round: The newest update's.
        own: The files that count whatever became of the updates.
        staged_own: Those that the newest update brings; they count from the next round on.
        lost_before: The round before whose training all of this was found to be gone; 0: not in its newest.
    """

    run: str
    accepted: State = field(default_factory=dict)
    update: str = ""
    staged: State = field(default_factory=dict)
    round: int = 0
    own: State = field(default_factory=dict)
    staged_own: State = field(default_factory=dict)
    lost_before: int = 0

    @property
    def files(self) -> tuple[State, ...]:
        """All that is needed."""
        return self.accepted, self.staged, self.own, self.staged_own


class RunStates:
    """The states of the newest runs, in memory."""

    def __init__(self, states: Iterable[RunState] = (), ended: Iterable[tuple[str, State]] = ()) -> None:
        self._states = {state.run: state for state in states}
        self._ended = dict(ended)
        self._bound()

    def settle(self, run: str, feedback: msg.Feedback, number: int) -> State:
        """The state to train from in round `number`, now that the run has decided on an update."""
        is_lost = bool(feedback.update) and run not in self._states
        if is_lost:
            log.warning(
                "what this node kept of a run is gone: it trains on as if it had just come", run=run, round=number
            )
        now = self._states.get(run, RunState(run))
        is_accepted = feedback.accepted and bool(feedback.update) and feedback.update == now.update
        accepted = now.staged if is_accepted else now.accepted
        # A training of this very round that is done again was not finished: it starts from where it started.
        own = now.staged_own if now.update and now.round != number else now.own
        was_lost = number if is_lost or now.lost_before == number else 0  # also when that training is done again
        self._put(RunState(run, accepted, own=own, lost_before=was_lost))
        return {**accepted, **own}

    def stage(self, update: FinishedUpdate, state: State, own: State) -> None:
        """Note what a finished update brings, if it is accepted, and in any case."""
        now = self._states.get(update.run, RunState(update.run))
        self._put(RunState(update.run, now.accepted, update.digest, state, update.round, now.own, own, now.lost_before))

    def own_state(self, run: str) -> State:
        """The newest state that counts whatever became of the updates; of a run that has ended: what stays."""
        if run not in self._states:
            return self._ended.get(run, {})
        now = self._states[run]
        return now.staged_own if now.update else now.own

    def lost_before(self, run: str) -> int:
        """The round before whose training what was kept of the run was found to be gone; 0: not in its newest round."""
        return self._states.get(run, RunState(run)).lost_before

    def forget(self, run: str) -> None:
        """The run has ended. What of its model is on this node only is kept: with the rest it can be evaluated."""
        stays = {name: artifact for name, artifact in self.own_state(run).items() if name == slot(LOCAL)}
        self._states.pop(run, None)
        if stays:
            self._ended[run] = stays
            self._bound()

    def digests(self) -> set[str]:
        """Of the files that are needed."""
        states = [files for state in self.newest_last() for files in state.files]
        states += [files for _, files in self.ended()]
        return {artifact.digest for files in states for artifact in files.values()}

    def newest_last(self) -> tuple[RunState, ...]:
        """All of them; the run that was worked for last comes last."""
        return tuple(self._states.values())

    def ended(self) -> tuple[tuple[str, State], ...]:
        """What is kept of runs that have ended; the newest last."""
        return tuple(self._ended.items())

    def _put(self, state: RunState) -> None:
        self._states.pop(state.run, None)
        self._states[state.run] = state
        self._bound()

    def _bound(self) -> None:
        while len(self._states) > MAX_RUNS:
            run = next(iter(self._states))
            del self._states[run]
            log.warning("the state kept of a run is dropped: other runs are newer", run=run, max_runs=MAX_RUNS)
        while len(self._ended) > MAX_RUNS:
            del self._ended[next(iter(self._ended))]


class LocalStates:
    """The states of the newest runs, in a file that is written whenever they change.

    Methods block, and may be called from any thread.

    Args:
        folder: Where the file is; made if it is missing.
        durable: Whether what is noted outlives a power cut, and not only this process.

    Raises:
        StoreError: There is a file, and it cannot be read.
    """

    def __init__(self, folder: Path, *, durable: bool = True) -> None:
        self._path, self._durable = folder / "carried.json", durable
        folder.mkdir(parents=True, exist_ok=True)
        self._states = RunStates(*_read(self._path))
        self._written = self._content()
        self._lock = threading.Lock()

    def settle(self, run: str, feedback: msg.Feedback, number: int) -> State:
        """The state to train from in round `number`, now that the run has decided on an update; noted durably."""
        with self._lock:
            state = self._states.settle(run, feedback, number)
            self._write()
            return state

    def stage(self, update: FinishedUpdate, state: State, own: State) -> None:
        """Note durably what a finished update brings, if it is accepted, and in any case."""
        with self._lock:
            self._states.stage(update, state, own)
            self._write()

    def own_state(self, run: str) -> State:
        """As `RunStates.own_state`. Does not block."""
        return self._states.own_state(run)

    def lost_before(self, run: str) -> int:
        """As `RunStates.lost_before`. Does not block."""
        return self._states.lost_before(run)

    def forget(self, run: str) -> None:
        """The run has ended; its state is dropped from the file, too, but for what stays."""
        with self._lock:
            self._states.forget(run)
            self._write()

    def digests(self) -> set[str]:
        """Of the files that are needed. Does not block."""
        return self._states.digests()

    def _content(self) -> tuple[object, ...]:
        return self._states.newest_last(), self._states.ended()

    def _write(self) -> None:
        now = self._content()
        if now != self._written:
            data: dict[str, Any] = {"runs": [_to_json(state) for state in self._states.newest_last()]}
            if ended := self._states.ended():
                data["ended"] = {run: _files_to_json(state) for run, state in ended}
            write = write_durably if self._durable else replace_file
            write(self._path, json.dumps(data))
            self._written = now


def _read(path: Path) -> tuple[list[RunState], list[tuple[str, State]]]:
    """Only a missing file is no state: whoever took a damaged one for that would drop the files it names."""
    try:
        data = json.loads(path.read_text())
        ended = [(run, _files_from_json(files)) for run, files in data.get("ended", {}).items()]
        # A file of an earlier version holds the state of one run.
        return [_from_json(item) for item in data.get("runs", [data]) if item["run"]], ended
    except FileNotFoundError:
        return [], []
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(
            f"{path}, which says what this node keeps of its runs, cannot be read ({error!r}); nothing was deleted. "
            "Restore it or make it readable, or move it away to begin anew without that state; then start again"
        ) from error


def _files_to_json(of: State) -> dict[str, Any]:
    return {name: artifact_to_json(artifact) for name, artifact in of.items()}


def _files_from_json(values: Mapping[str, Any]) -> State:
    return {name: artifact_from_json(value) for name, value in values.items()}


def _to_json(state: RunState) -> dict[str, Any]:
    files = _files_to_json
    return {
        "run": state.run,
        "accepted": files(state.accepted),
        "update": state.update,
        "staged": files(state.staged),
        "round": state.round,
        "own": files(state.own),
        "staged_own": files(state.staged_own),
        "lost_before": state.lost_before,
    }


def _from_json(data: Mapping[str, Any]) -> RunState:
    files = _files_from_json
    own, staged_own = files(data.get("own", {})), files(data.get("staged_own", {}))  # not in older versions' files
    accepted, staged = files(data["accepted"]), files(data["staged"])
    numbers = data.get("round", 0), data.get("lost_before", 0)
    return RunState(data["run"], accepted, data["update"], staged, numbers[0], own, staged_own, numbers[1])
