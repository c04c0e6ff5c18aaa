"""Replaying the event log of a run's machine on a developer's desk: it needs the log alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from covey import __version__
from covey.coordinator.modes.registry import ROOMS
from covey.errors import NotFound, StoreError
from covey.machines.log import Entry, Opening, Replayed, machine_of, parts, read_log, replay, tables_by_kind
from covey.machines.values import ValueTable
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

    A part that cannot be replayed ends where it cannot, and the next one begins; the first such error is raised last.

    Raises:
        NotFound: There is no such file.
        StoreError: It is no event log, or one of a machine that is not known here, or another version's.
    """
    failed: list[StoreError] = []
    for opening, entries in _parts(path):
        table = tables_by_kind(TABLES, opening)
        if opening.code == table.code_sha256:
            yield from _replayed(opening, entries, table)
        else:
            try:
                yield from _of_another_version(opening, entries, table)
            except StoreError as error:
                failed.append(error)
    if failed:
        raise failed[0]


def _replayed(opening: Opening, entries: list[Entry], table: ValueTable) -> Iterator[Opening | Replayed | MachineState]:
    machine = machine_of(opening, table)
    yield opening
    yield from replay(machine, entries, table)
    yield MachineState(table.to_json(machine))


def _of_another_version(
    opening: Opening, entries: list[Entry], table: ValueTable
) -> Iterator[Opening | Replayed | MachineState]:
    """The same, as far as this version's machine does what that one did: a difference says nothing about the run."""
    try:
        for item in _replayed(opening, entries, table):
            if isinstance(item, Replayed) and item.difference:
                raise StoreError(f"at {item.entry.at:.3f} {item.difference}")
            yield item
    except (StoreError, TypeError) as error:
        by = f"covey {opening.version}" if opening.version else "a version of covey that did not note which one it was"
        code = f" (code {opening.code})" if opening.code else ""
        raise StoreError(
            f"this log was written by {by}{code}, whose machine of mode {opening.kind!r} is another one than that of "
            f"covey {__version__} (code {table.code_sha256}), and cannot be replayed by it: {error}; replay it with "
            "the version that wrote it"
        ) from error


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
