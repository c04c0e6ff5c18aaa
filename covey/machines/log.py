"""A machine's event log: what it was told, when, and what it asked for, as lines of JSON; and replaying it.

A log begins with an opening: the machine's whole state. Each line after it is an event with the class names of the
actions that it led to, and their digest. Every opening starts anew (a start of the daemon, a new file, a gap), so that
each part of a log can be replayed alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from covey import __version__
from covey.errors import StoreError
from covey.machines.values import TextWriter, ValueTable

FORMAT = 1


class Handles(Protocol):
    """A pure state machine."""

    def handle(self, event: Any) -> Sequence[Any]:
        """Take one event; what is to be done, in order."""


@dataclass(frozen=True)
class Opening:
    """Where a part of a log begins."""

    at: float
    kind: str
    """Which table reads it: the mode."""
    name: str
    """Whose log it is: the run's id."""
    state: Any
    """The machine, as JSON."""
    version: str = ""
    """Of Covey, that wrote it; empty: one that did not say so yet."""
    code: str = ""
    """Digest of the machine's source there (`ValueTable.code_sha256`)."""


@dataclass(frozen=True)
class Entry:
    """One event that the machine took."""

    at: float
    event: Any
    """As JSON."""
    actions: tuple[str, ...]
    """The class names of what it asked for, in order."""
    sha256: str
    """Digest of the actions, in JSON."""
    error: str = ""
    """What it raised instead; empty: nothing."""


@dataclass(frozen=True)
class Replayed:
    """One recorded event, taken again."""

    entry: Entry
    event: Any
    actions: tuple[Any, ...]
    difference: str = ""
    """How the actions differ from those that were recorded; empty: they do not."""


def opening_line(at: float, kind: str, name: str, machine: object, table: ValueTable) -> bytes:
    """An opening as a line of a log. Raises TypeError as `ValueTable.to_json`."""
    text = TextWriter(table).text
    written_by = f'"format":{FORMAT},"covey":{text(__version__)},"code":{text(table.code_sha256)}'
    fields = f'"at":{text(at)},"kind":{text(kind)},"name":{text(name)},"machine":{text(machine)}'
    return f"{{{written_by},{fields}}}\n".encode()


def entry_line(at: float, event: object, actions: Sequence[object], table: ValueTable, error: str = "") -> bytes:
    """An event as a line of a log. Raises TypeError as `ValueTable.to_json`."""
    writer = TextWriter(table)
    text = writer.text
    names = text(tuple(type(action).__name__ for action in actions))
    line = f'"at":{text(at)},"event":{text(event)},"actions":{names},"sha256":"{_digest(actions, writer)}"'
    ending = f',"error":{text(error)}' if error else ""
    return f"{{{line}{ending}}}\n".encode()


def digest_of(actions: Sequence[object], table: ValueTable) -> str:
    """SHA-256 (16 hex digits of it) of actions in JSON."""
    return _digest(actions, TextWriter(table))


def _digest(actions: Sequence[object], writer: TextWriter) -> str:
    return hashlib.sha256(f"{writer.text(tuple(actions))}\n".encode()).hexdigest()[:16]


def read_log(lines: Iterable[bytes]) -> Iterator[Opening | Entry]:
    """The openings and entries of a log. A line that a crash left unfinished, at an end or before an opening, is none.

    Raises:
        StoreError: It is no log; the message names the line.
    """
    unfinished = 0
    for number, line in enumerate(lines, start=1):
        try:
            value = json.loads(line)
        except ValueError:
            if unfinished or number == 1:
                raise StoreError(f"line {unfinished or number} is no line of an event log") from None
            unfinished = number
            continue
        record = _record_of(value, number)
        if isinstance(record, Entry) and (unfinished or number == 1):
            raise StoreError(f"line {number} of the event log does not come after an opening, and is no opening")
        unfinished = 0
        yield record


def _record_of(value: Any, number: int) -> Opening | Entry:
    match value:
        case {"format": int() as version} if version != FORMAT:
            raise StoreError(f"line {number}: event logs of format {version} are not known to this version of covey")
        case {"format": _, "at": float() | int() as at, "kind": str() as kind, "name": str() as name, "machine": state}:
            return Opening(at, kind, name, state, str(value.get("covey", "")), str(value.get("code", "")))
        case {"at": float() | int() as at, "event": event, "actions": list() as actions, "sha256": str() as sha256}:
            return Entry(at, event, tuple(map(str, actions)), sha256, str(value.get("error", "")))
    raise StoreError(f"line {number} is no line of an event log")


def machine_of(opening: Opening, table: ValueTable) -> Any:
    """The machine, as it was at an opening.

    Raises:
        StoreError: It is none of this version's.
    """
    try:
        machine = table.from_json(opening.state)
    except ValueError as error:
        raise StoreError(f"the machine cannot be read: {error}") from error
    if not callable(getattr(machine, "handle", None)):
        raise StoreError("what the opening holds is no machine")
    return machine


def replay(machine: Handles, entries: Iterable[Entry], table: ValueTable) -> Iterator[Replayed]:
    """Give a machine the recorded events; yields each with the actions that it leads to now.

    Args:
        machine: As it was at the opening (`machine_of`).
        entries: What follows it, up to the next opening.
        table: The machine's classes.

    Raises:
        StoreError: An event cannot be read.
    """
    for entry in entries:
        try:
            event = table.from_json(entry.event)
        except ValueError as error:
            raise StoreError(f"an event cannot be read: {error}") from error
        actions, raised = _handled(machine, event)
        yield Replayed(entry, event, actions, _difference(entry, actions, raised, table))


def _handled(machine: Handles, event: object) -> tuple[tuple[Any, ...], str]:
    try:
        return tuple(machine.handle(event)), ""
    except Exception as error:  # what was recorded may be just this
        return (), repr(error)


def _difference(entry: Entry, actions: tuple[Any, ...], raised: str, table: ValueTable) -> str:
    names = tuple(type(action).__name__ for action in actions)
    if raised != entry.error:
        return f"it raised {raised or 'nothing'}, and is recorded to have raised {entry.error or 'nothing'}"
    if names != entry.actions:
        return f"it asked for {_listed(names)}, and is recorded to have asked for {_listed(entry.actions)}"
    if digest_of(actions, table) != entry.sha256:
        return f"it asked for {_listed(names)} with other values than are recorded"
    return ""


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "nothing"


def parts(records: Iterable[Opening | Entry]) -> Iterator[tuple[Opening, list[Entry]]]:
    """Each opening of a log with the entries after it."""
    opening: Opening | None = None
    entries: list[Entry] = []
    for record in records:
        if isinstance(record, Entry):
            entries.append(record)
            continue
        if opening is not None:
            yield opening, entries
        opening, entries = record, []
    if opening is not None:
        yield opening, entries


def tables_by_kind(tables: Mapping[str, ValueTable], opening: Opening) -> ValueTable:
    """The table that reads a part of a log.

    Raises:
        StoreError: There is none for it here.
    """
    if opening.kind not in tables:
        raise StoreError(f"the log is of a {opening.kind!r} machine; known are {', '.join(sorted(tables))}")
    return tables[opening.kind]
