"""The points of a run's curves in the order in which trackers are told them, whenever they become known.

Within a name the order, and what is told, depend on the record only: a run that is followed live and one that is read
when it has ended give the same points. Pure; `tracking.py` reads and writes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field

from covey.client.reading.gossip_steps import GossipStep
from covey.client.values import Round, Update
from covey.errors import Conflict
from covey.metrics import NODES, ratios
from covey.texts import printable
from covey.trackers.folders import Point

SETTLED = ("committed", "decided")
COUNTS = ("seconds", "accepted", "rejected", "declined", "lost", "late", "bytes_received", "bytes_sent")
"""Of a round, as it has them."""
MAX_NAME, MAX_NAMES = 200, 100
"""Characters of a name; names of metrics that nodes choose."""
RECENT = 1000
"""Rounds that are looked at once more: a version may be evaluated later."""


@dataclass
class Cursor:
    """How far a tracker was told.

    Attributes:
        rounds: All rounds until this one.
        bytes: What they took, in both directions.
        metrics: Of each metric of versions, the last version.
        names: Metrics of the nodes' training that have a curve.
        steps: Of each node of a gossip run, the last incarnation and step.
    """

    rounds: int = 0
    bytes: int = 0
    metrics: dict[str, int] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    steps: dict[str, tuple[int, int]] = field(default_factory=dict)

    @classmethod
    def read(cls, text: str) -> Cursor:
        """As `write` wrote it; empty: nothing was told yet.

        Raises:
            Conflict: It is something else.
        """
        try:
            cursor = cls(**json.loads(text or "{}"))
            cursor.steps = {node: (int(life), int(step)) for node, (life, step) in cursor.steps.items()}
        except (ValueError, TypeError, AttributeError) as error:
            raise Conflict(
                "how far this run was told cannot be read there any more: delete there what was told of it, or name "
                "another place, and it is told from the beginning"
            ) from error
        return cursor

    def write(self) -> str:
        """As text."""
        return json.dumps(asdict(self))


class TrackedPoints:
    """Which points are to be told next.

    Args:
        cursor: How far they were told; it moves on.
    """

    def __init__(self, cursor: Cursor) -> None:
        self.cursor = cursor
        self._rounds: dict[int, Round] = {}

    def add(self, rounds: Iterable[Round]) -> None:
        """Take in rounds as they are now. Those that were told long ago are forgotten, until they come once more."""
        known = self._rounds if len(self._rounds) < 2 * RECENT else dict(sorted(self._rounds.items())[-RECENT:])
        kept = {number: item for number, item in self._rounds.items() if number > self.cursor.rounds}
        self._rounds = known | kept | {item.round: item for item in rounds}

    def rounds(self, ended: bool) -> list[Round]:
        """The rounds whose counts are next, in order: until the first that is open, or, when the run has ended, all."""
        numbers = sorted(number for number in self._rounds if number > self.cursor.rounds)
        settled = list[Round]()
        for number in numbers:
            item = self._rounds[number]
            if item.state in SETTLED or (item.state == "failed" and (ended or number < numbers[-1])):
                settled.append(item)
            elif not ended:
                break
        return settled

    def of_round(self, item: Round, updates: Iterable[Update]) -> Iterator[Point]:
        """A round's counts and bytes, and what its nodes measured in training; the cursor moves behind it."""
        at, cursor = item.committed_at or item.started_at or 0.0, self.cursor
        cursor.rounds = item.round
        cursor.bytes += item.bytes_received + item.bytes_sent
        for name in COUNTS:
            yield Point(f"round/{name}", item.round, float(getattr(item, name)), at)
        yield Point("bytes", item.round, float(cursor.bytes), at)
        for update in updates:
            for name, value in sorted(_numbers(ratios(update.metrics))):
                if self._has_room(name):
                    yield Point(clean(f"node/{update.node}/{name}"), item.round, value, update.received_at or at)

    def _has_room(self, name: str) -> bool:
        """Whether a metric that a node named has a curve: the first ones do."""
        names = self.cursor.names
        if name not in names and len(names) < MAX_NAMES:
            names.append(name)
        return name in names

    def of_versions(self, ended: bool) -> Iterator[Point]:
        """The versions' metrics that are next; the cursor moves behind them. A metric may come after its version."""
        versions = {item.version: item for _, item in sorted(self._rounds.items(), reverse=True) if item.version}
        last = max(versions, default=0)
        for version, item in sorted(versions.items()):
            for name, value in sorted(_numbers(item.metrics)):
                of_nodes = name.startswith(NODES)
                if version <= self.cursor.metrics.get(name, 0) or item.state not in SETTLED:
                    continue
                if not of_nodes or (self._has_room(name) and (ended or version < last)):
                    self.cursor.metrics[name] = version
                    yield Point(name, version, value, item.committed_at or 0.0)

    def of_steps(self, steps: Sequence[GossipStep]) -> Iterator[Point]:
        """The steps of a gossip run's nodes that are next, by node; the cursor moves behind them."""
        for step in steps:
            place = step.incarnation, step.step
            if place <= self.cursor.steps.get(step.node, (-1, -1)):
                continue
            self.cursor.steps[step.node] = place
            own = {"mass": step.weight, "trained_s": step.trained_s, "blocked_s": step.blocked_s}
            measured = [pair for pair in sorted(_numbers(step.metrics)) if self._has_room(pair[0])]
            for name, value in [*_numbers(own), *measured]:
                yield Point(clean(f"node/{step.node}/{name}"), step.step, value, step.at)


def _numbers(values: Mapping[str, object]) -> Iterator[tuple[str, float]]:
    """What can be a point: names that are cut to what trackers take, and finite numbers."""
    for name, value in values.items():
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            yield clean(name), float(value)


def clean(name: str) -> str:
    """A name that others chose, as trackers take it."""
    return printable(name).replace("\n", " ").replace("\t", " ")[:MAX_NAME] or "?"
