"""Which part of experiment data ([data] partition) a node has that came when all parts were dealt.

It is on record with the assignment: sent again, over a restart too, it names the same part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from covey.machines.membership import Membership
from covey.storage.record.contract import RunRecord, Store

PAGE = 1000
"""Assignments, from the newest on, in which those of the nodes that are at work are found."""


class DataParts:
    """The parts that newcomers have taken: a node among the first has the part of its place, and is not in here.

    Args:
        taken: Newcomer to the part of its newest assignment.
    """

    def __init__(self, taken: Mapping[str, int] | None = None) -> None:
        self._taken = dict(taken or {})

    def of(self, node: str) -> int | None:
        """The part that a newcomer's newest assignment names; None: it names none."""
        return self._taken.get(node)

    def take(self, node: str, roster: Sequence[str], parts: int, members: Membership) -> int | None:
        """The part for a node's next assignment.

        A newcomer keeps what it has until the owner is connected again. Else it takes the first part whose owner is
        neither connected nor expected back, and which no other newcomer has that is.

        Args:
            node: Of the roster.
            roster: The run's nodes in the order in which they came.
            parts: Into how many parts the data are cut: as many as the first nodes of the roster have one each.
            members: Who is here, and who is expected back.

        Returns:
            None: the part of its place in the roster; a newcomer then has none, and will say so.
        """
        if roster.index(node) < parts:
            return None
        own = self._taken.pop(node, None)
        if own is None or roster[own] in members.present:
            others = {part for taker, part in self._taken.items() if not members.why_gone(taker)}
            free = (part for part in range(parts) if members.why_gone(roster[part]) and part not in others)
            own = next(free, None)
        if own is not None:
            self._taken = {taker: part for taker, part in self._taken.items() if part != own} | {node: own}
        return own

    @classmethod
    def load(cls, store: Store, run: RunRecord) -> DataParts:
        """What the record says of the newest assignments. Blocking."""
        if len(run.roster) <= run.parts:
            return cls()
        newest = {row.invited[0]: row.part for row in store.rounds(run.run, limit=PAGE, newest=True)}
        return cls({node: part for node, part in newest.items() if part is not None})
