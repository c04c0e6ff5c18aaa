"""Finds a mode's room by the mode's name: the only place where it is looked up."""

from __future__ import annotations

from pathlib import Path

from covey.coordinator.modes.asynchronous.mode import AsyncMode
from covey.coordinator.modes.asynchronous.replay import Replay
from covey.coordinator.modes.contract import ModeRoom, Replaying
from covey.coordinator.modes.rounds.mode import RoundsMode
from covey.coordinator.runs.active_run import ActiveRun
from covey.coordinator.runs.ports import RunServices
from covey.errors import SpecError
from covey.storage.record.contract import RunRecord, Store
from covey.worker.client.client import Worker

ROOMS = {
    room.name: room
    for room in (
        ModeRoom("rounds", "rounds", ("rounds", "count"), RoundsMode),
        ModeRoom("async", "updates", ("async", "updates"), AsyncMode, Replay),
    )
}


def room_of(mode: str) -> ModeRoom:
    """A mode's room.

    Raises:
        SpecError: There is no such mode here.
    """
    if mode not in ROOMS:
        raise SpecError(f"mode {mode!r} is not known to this coordinator; choose one of {', '.join(ROOMS)}")
    return ROOMS[mode]


def take_up(services: RunServices, run: RunRecord) -> ActiveRun:
    """A recorded run, taken care of in its mode.

    Raises:
        SpecError: Its mode is not known here.
    """
    return ActiveRun(services, run, room_of(run.mode).begin)


def replay_of(
    store: Store, run: RunRecord, artifacts: Path, worker: Worker, folder: Path, *, allow_path: bool = False
) -> Replaying:
    """A replay of a recorded run (`ReplayOf`).

    Raises:
        SpecError: Its mode has no decisions to replay.
    """
    replay = room_of(run.mode).replay
    if replay is None:
        modes = " or ".join(repr(room.name) for room in ROOMS.values() if room.replay is not None)
        raise SpecError(f"run {run.run} has mode {run.mode!r}; only a run of mode {modes} has decisions to replay")
    return replay(store, run, artifacts, worker, folder, allow_path=allow_path)
