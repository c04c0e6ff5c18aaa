"""Replaying the event log of a run's machine on a developer's desk: it needs the log alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from covey.coordinator.modes.registry import ROOMS
from covey.errors import NotFound
from covey.machines.log import Entry, Opening, Replayed, machine_of, parts, read_log, replay, tables_by_kind
from covey.node.assignments.recording import KIND, VALUES

TABLES = {room.name: room.values for room in ROOMS.values()} | {KIND: VALUES}


@dataclass(frozen=True)
class MachineState:
    """A machine as it is at the end of a part of a log, as JSON."""

    state: Any

    def text(self) -> str:
        """For people."""
        return json.dumps(self.state, indent=2)


def debug_log(path: Path) -> Iterator[Opening | Replayed | MachineState]:
    """Replay a log's parts in order: each opening, every event with its actions, and the machine's state after them.

    Raises:
        NotFound: There is no such file.
        StoreError: It is no event log, or one of a machine that is not known here.
    """
    for opening, entries in _parts(path):
        table = tables_by_kind(TABLES, opening)
        machine = machine_of(opening, table)
        yield opening
        yield from replay(machine, entries, table)
        yield MachineState(table.to_json(machine))


def unfinished_lines(path: Path) -> list[int]:
    """The numbers, from 1, of the lines of a log that a crash left unfinished; a replay leaves them out."""
    with path.open("rb") as file:
        return [number for number, line in enumerate(file, start=1) if not _is_whole(line)]


def _is_whole(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def _parts(path: Path) -> Iterator[tuple[Opening, list[Entry]]]:
    try:
        with path.open("rb") as file:
            yield from parts(read_log(file))
    except FileNotFoundError as error:
        raise NotFound(
            f"there is no event log {path}; they are in `events` of a coordinator's data directory"
        ) from error
