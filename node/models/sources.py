"""Of which node which chunks of a file are asked next, where several have it. Pure: no clock, no I/O.

Each source is asked for a few chunks in a row, the next free ones within a window from what is written on: chunks are
written in order, and what came before its turn waits in memory. A source that holds the others up is overtaken: what it
was asked for is asked of another one as well.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Literal

WINDOW_CHUNKS = 16
"""From the next chunk to be written on so many are asked for: at most as many wait in memory."""
ROW_CHUNKS = 4
"""So many are asked of a source at once."""
MOST_AT_ONCE = 4
"""Sources that are asked at the same time."""
TRIES = 3
"""How often a source may fail, without a chunk in between, until it is not asked any more."""
OVERTAKEN_CHUNKS = 4
"""Came from others since a source gave its last: what it was asked for is then asked of another one, too."""
NEW_PART = 0.3
"""Of a measured rate in the mean."""
Failure = Literal["unreachable", "broke", "lied"]
"""unreachable: it could not be asked, or has nothing of the file; broke: it gave something, and then no more (or too
slowly); lied: it gave other bytes than the file's."""


@dataclass(frozen=True)
class Candidate:
    """A node that may have the file.

    Attributes:
        name: The node.
        bytes_per_s: What was measured of transfers with it before; 0: nothing.
        round_trip_s: Of small messages to it and back; 0: not measured.
    """

    name: str
    bytes_per_s: float = 0.0
    round_trip_s: float = 0.0

    @property
    def rank(self) -> tuple[bool, float, float, str]:
        """Measured ones first, the fastest ahead; then near ones."""
        return not self.bytes_per_s, -self.bytes_per_s, self.round_trip_s or math.inf, self.name


@dataclass(frozen=True)
class Ask:
    """What one source is asked for: chunks `first` to `first + count - 1`."""

    source: str
    first: int
    count: int


@dataclass
class _Source:
    candidate: Candidate
    bytes_per_s: float
    open: list[int] = field(default_factory=list)
    """The chunks that it was asked for and has not given."""
    row: list[int] = field(default_factory=list)
    """All chunks of the present question."""
    passed_over: int = 0
    """Chunks that came from others since its last one, or since it was asked."""
    failures: int = 0
    """In a row."""
    is_out: bool = False

    @property
    def rank(self) -> tuple[bool, tuple[bool, float, float, str]]:
        """As the candidate's, by the rate of now; those that failed come last."""
        return self.failures > 0, replace(self.candidate, bytes_per_s=self.bytes_per_s).rank


class Sources:
    """One file on its way from several nodes.

    Args:
        chunks: How many the file has.
        first: The first one that is not here.
        candidates: Who may have it.
        window: As `WINDOW_CHUNKS`.

    Attributes:
        written: Chunks before this one are in the file.
        failures: How often what went wrong, by source and kind.
    """

    def __init__(self, chunks: int, first: int, candidates: Iterable[Candidate], window: int = WINDOW_CHUNKS) -> None:
        self._chunks, self.written, self._window = chunks, first, window
        self._sources = {item.name: _Source(item, item.bytes_per_s) for item in candidates}
        self._came: set[int] = set()
        self.failures: Counter[tuple[str, Failure]] = Counter()

    @property
    def is_whole(self) -> bool:
        """Whether all of it is written."""
        return self.written >= self._chunks

    @property
    def is_lost(self) -> bool:
        """Whether nobody is left who could be asked, and something is missing."""
        return not self.is_whole and all(source.is_out for source in self._sources.values())

    def next(self) -> Ask | None:
        """What is to be asked now; None: nothing, before something comes or fails."""
        if sum(bool(source.row) for source in self._sources.values()) >= MOST_AT_ONCE:
            return None
        idle = [source for source in self._sources.values() if not source.row and not source.is_out]
        for source in sorted(idle, key=lambda source: source.rank):
            if row := self._free() or self._overdue():
                source.row, source.open, source.passed_over = row, list(row), 0
                return Ask(source.candidate.name, row[0], len(row))
        return None

    def _missing(self) -> list[int]:
        until = min(self.written + self._window, self._chunks)
        return [index for index in range(self.written, until) if index not in self._came]

    def _free(self) -> list[int]:
        """The next chunks in a row that nobody was asked for."""
        asked = {index for source in self._sources.values() for index in source.open}
        free = [index for index in self._missing() if index not in asked]
        return [index for place, index in enumerate(free[:ROW_CHUNKS]) if index == free[0] + place]

    def _overdue(self) -> list[int]:
        """The first chunk that one source alone was asked for, which the others have overtaken."""
        askers = Counter(index for source in self._sources.values() for index in source.open)
        late = {
            index
            for source in self._sources.values()
            if source.passed_over >= OVERTAKEN_CHUNKS
            for index in source.open
            if askers[index] == 1
        }
        return [index for index in self._missing() if index in late][:1]

    # -- what becomes of it -----------------------------------------------------------------------------------------

    def came(self, name: str, index: int, bytes_per_s: float) -> bool:
        """A source gave a chunk, and it is the file's; whether it was still missing."""
        source = self._sources[name]
        source.failures = source.passed_over = 0
        before = source.bytes_per_s
        source.bytes_per_s = before + NEW_PART * (bytes_per_s - before) if before else bytes_per_s
        if index in source.open:
            source.open.remove(index)
        for other in self._sources.values():
            if other is not source and other.row:
                other.passed_over += 1
        is_new = index >= self.written and index not in self._came
        if is_new:
            self._came.add(index)
        return is_new

    def wrote(self, index: int) -> None:
        """The next chunk is in the file."""
        self._came.discard(index)
        self.written = index + 1

    def answered(self, name: str) -> None:
        """A source gave all that it was asked for."""
        self._sources[name].row = []
        self._sources[name].open = []

    def failed(self, name: str, kind: Failure) -> None:
        """A source did not; who lied is not asked again."""
        source = self._sources[name]
        source.row, source.open = [], []
        source.failures += 1
        self.failures[name, kind] += 1
        source.is_out = source.is_out or kind == "lied" or source.failures >= TRIES

    @property
    def rates(self) -> dict[str, float]:
        """Bytes a second of each source of which something was measured."""
        return {name: round(source.bytes_per_s) for name, source in self._sources.items() if source.bytes_per_s}

    @property
    def liars(self) -> tuple[str, ...]:
        """Who gave other bytes than the file's."""
        return tuple(sorted({name for name, kind in self.failures if kind == "lied"}))

    def tell(self) -> str:
        """Who failed how often and how, for people."""
        texts = {"unreachable": "could not be asked", "broke": "broke off", "lied": "gave wrong bytes"}
        parts = [f"{name} {texts[kind]} ({times})" for (name, kind), times in sorted(self.failures.items())]
        return ", ".join(parts) or "there was nobody to ask"
