"""How a model spreads over the nodes: who has it already, and who waits for one that is to have it soon. Pure.

The first node that asks has it from the coordinator. The others wait for that node, and have it from there: two at a
time for each node that has it, so their number grows with each wave. Who has waited for too long has it from the
coordinator.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Literal

WAIT_S = 20.0
"""So long a node waits for others; then it has the file from the coordinator."""
FED = 2
"""So many nodes at a time are sent to the nodes that have a file, for each of those."""
MOST_HOLDERS = 8
"""So many are named to one node."""
REMEMBERED = 64
"""Files that are kept in mind, those that were asked for last."""


@dataclass
class _File:
    run: str
    holders: dict[str, None] = field(default_factory=dict)
    seeders: set[str] = field(default_factory=set)
    """Who has it from the coordinator just now, and can give it on."""
    waiting: dict[str, float] = field(default_factory=dict)
    """Since when."""
    told: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Who was sent to whom, and has not said what became of it."""
    turns: int = 0


class Spread:
    """All files of runs whose nodes have models from each other. Times are seconds of the caller's clock."""

    def __init__(self) -> None:
        self._files: OrderedDict[str, _File] = OrderedDict()
        self._liars: OrderedDict[str, set[str]] = OrderedDict()
        self._slow: set[str] = set()
        """Whom others waited for in vain, until it reports something: nobody waits for it any more."""

    def asked(
        self, run: str, digest: str, node: str, now: float, *, lends: bool, reachable: Collection[str]
    ) -> tuple[str, ...] | Literal["grant", "wait"]:
        """A node asks for a file.

        Args:
            run: Whose file it is.
            digest: Of the file.
            node: Who asks.
            now: The time.
            lends: Whether the node can give it on to others.
            reachable: The nodes that can be called now.

        Returns:
            Whom the node is to have it from; `grant`: from the coordinator; `wait`: it is to ask again, or is answered
            when others report.
        """
        file = self._file(run, digest)
        since = file.waiting.setdefault(node, now)
        liars = self._liars.get(run, set())
        able = [name for name in file.holders if name != node and name in reachable and name not in liars]
        is_patient = now - since < WAIT_S
        if not is_patient:
            self._slow |= file.seeders | file.told.keys()
        fed, seeders = file.told.keys() - self._slow - {node}, file.seeders - self._slow - {node}
        if able and (not is_patient or len(fed) < FED * len(able)):
            del file.waiting[node]
            file.turns += 1
            start = file.turns % len(able)
            file.told[node] = tuple([*able[start:], *able[:start]][:MOST_HOLDERS])
            return file.told[node]
        if is_patient and (able or seeders or fed):
            return "wait"
        self._from_coordinator(file, node, lends=lends)
        return "grant"

    def gave_up(self, run: str, digest: str, node: str, *, lends: bool) -> None:
        """A node asks for a file of the coordinator's alone: the others did not give it."""
        self._from_coordinator(self._file(run, digest), node, lends=lends)

    def _from_coordinator(self, file: _File, node: str, *, lends: bool) -> None:
        file.waiting.pop(node, None)
        file.told.pop(node, None)
        if lends:
            file.seeders.add(node)

    def _file(self, run: str, digest: str) -> _File:
        file = self._files.pop(digest, None) or _File(run)
        self._files[digest] = file
        if len(self._files) > REMEMBERED:
            self._files.popitem(last=False)
        return file

    def reported(self, digest: str, node: str, liars: Collection[str], *, is_lent: bool) -> tuple[list[str], list[str]]:
        """A node says what became of a file.

        Args:
            digest: Of the file.
            node: Who says so.
            liars: Who gave it wrong bytes, as it says; only nodes that it was sent to count.
            is_lent: Whether others can have the file from it.

        Returns:
            Who is not used again in this run from now on; and who waits, and is to be answered now.
        """
        file = self._files.get(digest)
        if file is None:
            return [], []
        told = file.told.pop(node, ())
        file.seeders.discard(node)
        self._slow.discard(node)
        if is_lent:
            file.holders[node] = None
        known = self._liars.setdefault(file.run, set())
        if len(self._liars) > REMEMBERED:
            self._liars.popitem(last=False)
        new = [name for name in told if name in liars and name not in known]
        known.update(new)
        return new, list(file.waiting)

    def lost(self, node: str) -> list[tuple[str, str]]:
        """A node is gone; which (node, digest) are to be answered now, because they waited for it."""
        self._slow.discard(node)
        again = []
        for digest, file in self._files.items():
            was_needed = node in file.seeders or node in file.told
            file.seeders.discard(node)
            file.holders.pop(node, None)
            file.waiting.pop(node, None)
            file.told.pop(node, None)
            again += [(waiting, digest) for waiting in file.waiting] if was_needed else []
        return again
