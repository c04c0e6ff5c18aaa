"""What nodes share of their logs about a run: values, and how they are read and followed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from covey.client.reading.record import Record

EVERY_S = 1.0
"""How often it is looked for new lines."""


@dataclass(frozen=True)
class SiteLine:
    """A line of a node's log that its operator shares."""

    node: str
    number: int
    """From 1, in the order in which the node's lines of this run came."""
    at: float
    """Unix time, by the node's clock."""
    round: int
    """0: it is not about a round."""
    kind: str
    """`failure`, `traceback`, `output` (of the worker), `node` (the node's own log)."""
    text: str


@dataclass(frozen=True)
class SiteLog:
    """What is here of a node's log about a run."""

    node: str
    sharing: str
    """`none`, `failures` or `all`, as the node said; empty: it has said nothing of this run."""
    lines: tuple[SiteLine, ...] = ()

    @property
    def explanation(self) -> str:
        """Why there are no lines, or not all, and who can change that; empty: everything is shared."""
        how = 'its operator can, with share_logs = "failures" (or "all") under [policy] in its node.toml'
        return {
            "all": "",
            "failures": f"{self.node} shares what failed, and nothing else of its log",
            "none": f"{self.node} does not share its log: {how}",
        }.get(
            self.sharing,
            f"{self.node} has said nothing of its log in this run: it had no work in it yet, or its Covey is older",
        )


async def read(record: Record, run: str, node: str, after: int) -> SiteLog:
    """What a node shares, after a line's number."""
    lines: list[SiteLine] = []
    while True:
        reply = await record.site_log(run, node, after)
        lines += [SiteLine(node, line.number, line.at, line.round, line.kind, line.text) for line in reply.lines]
        if not reply.next:
            return SiteLog(node, reply.sharing, tuple(lines))
        after = reply.next


def followed(look: Callable[[int], SiteLog], has_ended: Callable[[], bool]) -> Iterator[SiteLog]:
    """What a node shares, and then what is new, until the run has ended; the first one also where there is nothing.

    Args:
        look: Reads the lines after a number.
        has_ended: Whether the run has.
    """
    after, is_first = 0, True
    while True:
        ended = has_ended()
        log = look(after)
        if log.lines or is_first:
            yield log
        after, is_first = (log.lines[-1].number if log.lines else after), False
        if ended:
            return
        time.sleep(EVERY_S)
