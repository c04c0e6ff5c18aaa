"""Who takes part: the roster, who is connected, who is away and expected back.

A node that is away for less than `rejoin_s` still counts as expected: a restart of a node, or of the coordinator,
changes nothing in who takes part.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal


class Membership:
    """The nodes of one run. Times are seconds of the machine's clock.

    Args:
        roster: Node ids in order; nodes that come later are appended.
        expected: Nodes that are not connected now but were seen recently, with the time they were last seen.
    """

    def __init__(self, roster: Iterable[str], expected: Mapping[str, float] | None = None) -> None:
        self.roster = list(roster)
        self.present: set[str] = set()
        self._away: dict[str, float] = dict(expected or {})
        self._removed: set[str] = set()

    def start(self, now: float, at_work: Iterable[str] = ()) -> None:
        """The run is taken up: the roster is expected, and whoever was `at_work` before is so from now on.

        Who was removed before is not.
        """
        for node in self.roster:
            if node not in self.present and node not in self._removed:
                self._away.setdefault(node, now)
        for node in at_work:
            if node not in self.present and node not in self._removed:
                self._away[node] = now

    def join(self, node: str) -> None:
        """A node is connected (again)."""
        self.present.add(node)
        self._removed.discard(node)
        self._away.pop(node, None)

    def leave(self, node: str, now: float) -> bool:
        """A node's connection ended; whether it had one."""
        if node not in self.present:
            return False
        self.present.discard(node)
        self._away[node] = now
        return True

    def remove(self, node: str) -> None:
        """A node is not expected any more."""
        self.present.discard(node)
        self._away.pop(node, None)
        self._removed.add(node)

    def give_up(self, now: float, rejoin_s: float) -> list[str]:
        """Expect those no more that have been away for `rejoin_s`; returns them."""
        overdue = [node for node, seen_at in self._away.items() if now - seen_at >= rejoin_s]
        for node in overdue:
            del self._away[node]
        return overdue

    def give_up_times(self, rejoin_s: float) -> list[float]:
        """When those who are away will have been so for `rejoin_s`."""
        return [seen_at + rejoin_s for seen_at in self._away.values()]

    def eligible(self) -> list[str]:
        """The nodes that are connected or expected back, in roster order; new ones come to the roster's end."""
        self.roster.extend(sorted((self.present | set(self._away)) - set(self.roster)))
        return [node for node in self.roster if node in self.present or node in self._away]

    def why_gone(self, node: str) -> Literal["", "removed", "given up"]:
        """Why a node is neither connected nor expected back; "": it is one of them."""
        if node in self.present or node in self._away:
            return ""
        return "removed" if node in self._removed else "given up"

    def connected(self) -> list[str]:
        """The nodes of the roster that are connected, in its order."""
        return [node for node in self.roster if node in self.present]

    def absent(self) -> list[str]:
        """The nodes of the roster that are not connected, but for those that were shut out."""
        return [node for node in self.roster if node not in self.present and node not in self._removed]
