"""Who works for a run, who is away, and what became of each node's last answers."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from covey.client.connection import Connection
from covey.client.progress.history import SETTLED
from covey.client.reading.gossip_parts import GossipView
from covey.client.values import Contribution, Node, NodeWork, Round, Run

STRIP = 16
"""Rounds that a strip goes back."""
ASSIGNMENTS = 200
"""Of an asynchronous run, whose rounds have one node each, it goes back so far."""
KEPT = 500
"""Rounds whose verdicts are kept: those that are settled are not asked for again."""
COUNTED = ("accepted", "rejected", "declined", "lost", "late", "received")

Strips = Mapping[str, Sequence[tuple[int, str]]]
"""By node: rounds and verdicts, in the order of rounds."""


@dataclass(frozen=True)
class RunNodes:
    """The nodes of a run, as they are now; of very many the first ones."""

    at_work: tuple[tuple[Node, NodeWork], ...] = ()
    """Who does something for it, and what."""
    at_work_count: int = 0
    """How many there are in all."""
    away: tuple[Node, ...] = ()
    """Who is of its roster, and not connected."""
    away_count: int = 0
    contributions: tuple[Contribution, ...] = ()
    """What each node of the roster did in it."""
    verdicts: Strips = field(default_factory=dict)
    drills: Mapping[str, str] = field(default_factory=dict)
    """The adversaries of its roster, or at work for it: their attacks by name, as they are now."""
    gossip: GossipView | None = None
    """Of a gossip run, which has none of the above: what its nodes stated."""


def nodes_of(connection: Connection, run: Run, verdicts: Verdicts, most: int) -> RunNodes:
    """The nodes of a run; all of the federation are looked through for them, unless it goes by gossip.

    Args:
        connection: The federation.
        run: Its run.
        verdicts: Those that are known, of this run and of others.
        most: Entries of each list.
    """
    if not run.is_coordinated:
        return RunNodes(gossip=connection.gossip(run))
    roster = frozenset(run.roster)
    at_work, away, drills = list[tuple[Node, NodeWork]](), list[Node](), dict[str, str]()
    for node in connection.every_node():
        works = [(node, work) for work in node.work if work.run == run.run]
        at_work += works
        is_of_roster = node.node in roster
        if is_of_roster and node.state != "connected" and not run.ended:
            away.append(node)
        if node.drill and (works or is_of_roster):
            drills[node.node] = node.drill
    return RunNodes(
        tuple(at_work[:most]),
        len(at_work),
        tuple(away[:most]),
        len(away),
        tuple(islice(connection.every_contribution(run), most)),
        verdicts.of(connection, run),
        drills,
    )


class Verdicts:
    """Verdicts of the rounds that were looked at last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, int], Mapping[str, str]] = OrderedDict()

    def of(self, connection: Connection, run: Run) -> Strips:
        """The strips of a run's nodes: of its newest rounds."""
        is_single = run.unit == "updates"
        newest = connection.rounds(run, limit=ASSIGNMENTS if is_single else STRIP, newest=True)
        strips = dict[str, list[tuple[int, str]]]()
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
