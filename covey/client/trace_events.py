"""Timelines as the trace-event JSON that Perfetto (ui.perfetto.dev) and Chrome (chrome://tracing) show.

Source: "Trace Event Format", the JSON object form, with complete (`X`), instant (`i`), counter (`C`), flow (`s`, `f`)
and metadata (`M`) events. Here times are Unix seconds; in the file they are microseconds since the earliest of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Event = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """A row of a process; what is on it does not overlap."""

    pid: int
    tid: int


@dataclass(frozen=True)
class Slice:
    """Something on a row that takes time, from `began` to `ended` (Unix seconds)."""

    row: Row
    name: str
    category: str
    began: float
    ended: float
    args: Mapping[str, Any] = field(default_factory=dict)


class Trace:
    """Collects events; `to_json` makes the file's content."""

    def __init__(self) -> None:
        self.slices: list[Slice] = []
        self._heads: list[Event] = []
        self._points: list[tuple[float, Event]] = []
        self._arrows: list[tuple[Slice, Slice]] = []
        self._rows: dict[int, int] = {}

    def process(self, name: str) -> int:
        """A new process; its id."""
        pid = len(self._rows) + 1
        self._rows[pid] = 0
        self._heads.append({"ph": "M", "pid": pid, "tid": 0, "name": "process_name", "args": {"name": name}})
        return pid

    def row(self, pid: int, name: str) -> Row:
        """A new row of a process, below those that it has."""
        self._rows[pid] += 1
        row = Row(pid, self._rows[pid])
        head = {"ph": "M", "pid": pid, "tid": row.tid}
        self._heads.append({**head, "name": "thread_name", "args": {"name": name}})
        self._heads.append({**head, "name": "thread_sort_index", "args": {"sort_index": row.tid}})
        return row

    def add(self, piece: Slice) -> None:
        """Something that takes time."""
        self.slices.append(piece)

    def instant(self, row: Row, name: str, at: float, args: Mapping[str, Any]) -> None:
        """Something that takes none."""
        event = {"ph": "i", "s": "t", "pid": row.pid, "tid": row.tid, "name": name, "cat": "step", "args": dict(args)}
        self._points.append((at, event))

    def counter(self, pid: int, name: str, at: float, value: float) -> None:
        """A number that holds from a time on."""
        self._points.append((at, {"ph": "C", "pid": pid, "tid": 0, "name": name, "args": {name: value}}))

    def arrow(self, source: Slice, target: Slice) -> None:
        """From the beginning of one slice to the end of another."""
        self._arrows.append((source, target))

    @property
    def began(self) -> float:
        """Unix seconds of the file's time 0."""
        return min([*(piece.began for piece in self.slices), *(at for at, _ in self._points)], default=0.0)

    def to_json(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """The file's content.

        Args:
            facts: What else is to be in it, for people.
        """
        zero = self.began
        timed = [_slice(piece, zero) for piece in self.slices]
        timed += [{**event, "ts": _us(at - zero)} for at, event in self._points]
        for number, (source, target) in enumerate(self._arrows, 1):
            timed += _arrow(number, source, target, zero)
        timed.sort(key=lambda event: event["ts"])
        return {"traceEvents": [*self._heads, *timed], "displayTimeUnit": "ms", "otherData": {**facts, "began": zero}}


def _us(seconds: float) -> int:
    return round(seconds * 1e6)


def _slice(piece: Slice, zero: float) -> Event:
    """Both ends are rounded alike, so neighbours never overlap; none is shorter than can be seen."""
    began, ended = _us(piece.began - zero), _us(piece.ended - zero)
    where = {"pid": piece.row.pid, "tid": piece.row.tid, "name": piece.name, "cat": piece.category}
    return {"ph": "X", **where, "ts": began, "dur": max(ended - began, 1), "args": dict(piece.args)}


def _arrow(number: int, source: Slice, target: Slice, zero: float) -> list[Event]:
    common = {"name": "batch", "cat": "exchange", "id": number}
    begin = {"ph": "s", "pid": source.row.pid, "tid": source.row.tid, "ts": _us(source.began - zero)}
    end = {"ph": "f", "bp": "e", "pid": target.row.pid, "tid": target.row.tid, "ts": _us(target.ended - zero)}
    return [{**common, **begin}, {**common, **end}]
