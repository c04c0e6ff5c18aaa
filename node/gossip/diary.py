"""What a node did and when, between two writes of its record: its work, and each batch on its way.

It is history, for `covey gossip trace`. It costs no write of its own: the record takes it along with the next
publication. Beginnings are Unix seconds by this machine's clock; durations do not follow a clock that is set.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

from covey.gossip.ledger import Incarnation

SpanKind = Literal["started", "train", "apply", "publish", "mix", "forge", "send", "take"]
"""`started`: this process began, of no length. `apply`: what training did becomes a model that can be sent. `send`: a
batch, from the first try until its peer has it. `take`: a batch that came, from its last byte until it is on record."""
REASON_CHARS = 200
UNANSWERED = "not acknowledged when this node stopped"
Batch = tuple[Incarnation, int]
"""A peer, and the number of a batch on the edge."""


@dataclass(frozen=True)
class Span:
    """Something that took time.

    Attributes:
        kind: What.
        step: This node's; of a batch, the sender's.
        began: Unix seconds.
        ended: Likewise; never before `began`.
        peer: Whose batch; None: it is work.
        sequence: The batch's number on its edge.
        tries: How often it was sent.
        outcome: Of what was not done: why.
    """

    kind: SpanKind
    step: int
    began: float
    ended: float
    peer: Incarnation | None = None
    sequence: int = 0
    tries: int = 0
    outcome: str = ""


@dataclass(frozen=True)
class _Begun:
    span: Span
    at: float
    """By the clock that is never set."""


class Diary:
    """Holds spans until the record takes them. A batch is held once, however often it is sent or comes again.

    Args:
        step: Asked for the node's step.
    """

    def __init__(self, step: Callable[[], int] = lambda: 0) -> None:
        self._step = step
        self._done: list[Span] = [_now("started", 0)]
        self._taken: dict[Batch, Span] = {}
        self._sending: dict[Batch, _Begun] = {}
        self._had: dict[Incarnation, int] = {}

    def begin(self, kind: SpanKind, step: int | None = None) -> Callable[[], None]:
        """Work begins; what is returned is to be called when it is done."""
        begun = _Begun(_now(kind, self._step() if step is None else step), time.monotonic())
        return lambda: self._done.append(_ended(begun))

    @contextmanager
    def work(self, kind: SpanKind) -> Iterator[None]:
        """Work, from here to the end of the block; what fails leaves no span."""
        end = self.begin(kind)
        yield
        end()

    @contextmanager
    def taking(self, peer: Incarnation, sequence: int, step: int) -> Iterator[None]:
        """A batch that came, until it is on record; one that is refused leaves no span."""
        begun = _Begun(replace(_now("take", step), peer=peer, sequence=sequence), time.monotonic())
        yield
        self._taken[peer, sequence] = _ended(begun)

    def sending(self, peer: Incarnation, sequence: int, step: int) -> None:
        """A batch is sent, perhaps once more; a try that begins when the peer is known to have it does not count."""
        if sequence <= self._had.get(peer, 0):
            return
        new = _Begun(replace(_now("send", step), peer=peer, sequence=sequence), time.monotonic())
        begun = self._sending.get((peer, sequence), new)
        span = replace(begun.span, tries=begun.span.tries + 1, outcome=UNANSWERED)
        self._sending[peer, sequence] = replace(begun, span=span)

    def not_sent(self, peer: Incarnation, sequence: int, reason: str) -> None:
        """A try failed."""
        if (begun := self._sending.get((peer, sequence))) is not None:  # else the peer said meanwhile that it has it
            self._sending[peer, sequence] = replace(begun, span=replace(begun.span, outcome=reason[:REASON_CHARS]))

    def sent(self, peer: Incarnation, sequence: int) -> None:
        """The peer has all batches up to this one, whether by its answer or by what it said of itself."""
        self._had[peer] = max(sequence, self._had.get(peer, 0))
        for batch in [(who, number) for who, number in self._sending if who == peer and number <= sequence]:
            self._done.append(replace(_ended(self._sending.pop(batch)), outcome=""))

    @property
    def under_way(self) -> list[Span]:
        """Batches that are being sent: since when, the tries so far, and what came of the last one that failed."""
        spans = [begun.span for begun in self._sending.values()]
        return [replace(span, outcome="" if span.outcome == UNANSWERED else span.outcome) for span in spans]

    def taken_out(self, *, all_of_it: bool = False) -> list[Span]:
        """What is done, handed over.

        Args:
            all_of_it: Whether also batches that are still being sent: the node stops.
        """
        spans = [*self._done, *self._taken.values()]
        self._done, self._taken = [], {}
        if all_of_it:
            spans += map(_ended, self._sending.values())
            self._sending = {}
        return spans


def _now(kind: SpanKind, step: int) -> Span:
    at = time.time()
    return Span(kind, step, at, at)


def _ended(begun: _Begun) -> Span:
    return replace(begun.span, ended=begun.span.began + time.monotonic() - begun.at)
