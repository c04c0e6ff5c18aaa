"""What became of each node's last answers in a run: a strip of verdicts, the newest last."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence

from covey.client.connection import Connection
from covey.client.values import Round, Run
from covey.ui.history import SETTLED

STRIP = 16
"""Rounds that a strip goes back."""
ASSIGNMENTS = 200
"""Of an asynchronous run, whose rounds have one node each, it goes back so far."""
KEPT = 500
"""Rounds whose verdicts are kept: those that are settled are not asked for again."""
COUNTED = ("accepted", "rejected", "declined", "lost", "late", "received")

Strips = dict[str, list[tuple[int, str]]]
"""By node: rounds and verdicts, in the order of rounds."""


class Verdicts:
    """Verdicts of the rounds that were looked at last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, int], Mapping[str, str]] = OrderedDict()

    def of(self, connection: Connection, run: Run) -> Strips:
        """The strips of a run's nodes: of its newest rounds."""
        is_single = run.unit == "updates"
        newest = connection.rounds(run, limit=ASSIGNMENTS if is_single else STRIP, newest=True)
        strips: Strips = {}
        for item in newest:
            verdicts = counted(item) if is_single else self._of_round(connection, run, item)
            for node, verdict in verdicts.items():
                strips.setdefault(node, []).append((item.round, verdict))
        return {node: strip[-STRIP:] for node, strip in strips.items()}

    def _of_round(self, connection: Connection, run: Run, item: Round) -> Mapping[str, str]:
        key = run.run, item.round
        with self._lock:
            known = self._kept.get(key)
        if known is not None:
            return known
        verdicts = {update.node: update.verdict for update in connection.round(run, item.round).updates}
        if item.state in SETTLED:
            with self._lock:
                self._kept[key] = verdicts
                while len(self._kept) > KEPT:
                    self._kept.popitem(last=False)
        return verdicts


def counted(item: Round) -> Mapping[str, str]:
    """The verdict of a round with one node, by its counts; there may be none yet."""
    verdicts: Sequence[str] = [name for name in COUNTED if getattr(item, name)]
    return {item.invited[0]: verdicts[0]} if verdicts and item.invited else {}
