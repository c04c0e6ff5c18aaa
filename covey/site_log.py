"""What a node shares of its log, as a message (`covey.messages`)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SiteLogLine:
    """A line that a node shares; `kind`: `failure`, `traceback`, `output` (of its worker) or `node` (its own log)."""

    at: float
    round: int
    kind: str
    text: str


@dataclass(frozen=True)
class SiteLog:
    """What a node shares of its log about a run; `sharing`: `none`, `failures` or `all`, as its operator decided."""

    run: str
    sharing: str
    lines: tuple[SiteLogLine, ...] = ()
