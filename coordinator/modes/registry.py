"""Finds a mode's room by the mode's name: the only place where it is looked up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from covey.coordinator.modes.asynchronous import events as async_events
from covey.coordinator.modes.asynchronous import machine as async_machine
from covey.coordinator.modes.asynchronous.mode import AsyncMode
from covey.coordinator.modes.asynchronous.replay import Replay as AsyncReplay
from covey.coordinator.modes.contract import ModeRoom, Replaying, ReplayInputs
from covey.coordinator.modes.gossip import events as gossip_events
from covey.coordinator.modes.gossip import machine as gossip_machine
from covey.coordinator.modes.gossip.mode import GossipMode
from covey.coordinator.modes.gossip.replay import refuse_replay
from covey.coordinator.modes.rounds import deadline as rounds_deadline
from covey.coordinator.modes.rounds import events as rounds_events
from covey.coordinator.modes.rounds import machine as rounds_machine
from covey.coordinator.modes.rounds.mode import RoundsMode
from covey.coordinator.modes.rounds.replay import RoundsReplay
from covey.coordinator.runs.active_run import ActiveRun
from covey.coordinator.runs.ports import RunServices
from covey.driver.event_log import EventLog
from covey.errors import SpecError
from covey.machines import attendance, evaluation, membership, protocol, stopping
from covey.machines.values import ValueTable
from covey.storage.record.contract import RunRecord

SHARED = protocol, membership, evaluation, attendance, stopping
"""Where the values of all modes' machines are defined."""
ROUNDS = ValueTable(*SHARED, rounds_events, rounds_deadline, rounds_machine)
ASYNC = ValueTable(*SHARED, async_events, async_machine)
GOSSIP = ValueTable(*SHARED, gossip_events, gossip_machine)
ROOMS = {
    room.name: room
    for room in (
        ModeRoom("rounds", "rounds", ("rounds", "count"), RoundsMode, ROUNDS, RoundsReplay),
        ModeRoom("async", "updates", ("async", "updates"), AsyncMode, ASYNC, AsyncReplay),
        ModeRoom("gossip", "steps", ("gossip", "steps"), GossipMode, GOSSIP, refuse_replay),
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


def event_log(folder: Path, clock: Callable[[], float], run: RunRecord) -> EventLog:
    """The event log of a recorded run.

    Raises:
        SpecError: Its mode is not known here.
    """
    return EventLog(folder, run.mode, run.run, room_of(run.mode).values, clock)


def replay_of(given: ReplayInputs) -> Replaying:
    """A replay of a recorded run.

    Raises:
        SpecError: Its mode is not known here.
    """
    return room_of(given.run.mode).replay(given)
