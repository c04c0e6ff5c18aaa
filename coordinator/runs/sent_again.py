"""What went over links twice because transfers broke: counted while a round is open, put on record with its end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from covey.storage.record.contract import EventRecord

SENT_AGAIN = "sent-again"
"""Kind of the event; its detail is `{"round": N, "up": BYTES, "down": BYTES}`."""
MOST_ROUNDS = 1000
"""Open at once: an asynchronous run has one a node."""


@dataclass(frozen=True)
class Resent:
    """Bytes that were sent before: of updates by nodes (as these say), of models by the coordinator."""

    up: int = 0
    down: int = 0

    def __add__(self, other: Resent) -> Resent:
        return Resent(self.up + other.up, self.down + other.down)


class SentAgain:
    """Of one run's open rounds."""

    def __init__(self) -> None:
        self._open: dict[int, Resent] = {}

    def note(self, number: int, resent: Resent) -> None:
        """So much went twice for a round."""
        if number in self._open or len(self._open) < MOST_ROUNDS:
            self._open[number] = self.of(number) + resent

    def of(self, number: int) -> Resent:
        """What is known of an open round."""
        return self._open.get(number, Resent())

    def ended(self, number: int, run: str, at: float) -> EventRecord | None:
        """A round has ended: what is to be put on record; None: nothing went twice."""
        resent = self._open.pop(number, None)
        if resent is None:
            return None
        return EventRecord(at, SENT_AGAIN, run, detail={"round": number, "up": resent.up, "down": resent.down})


def on_record(events: Iterable[EventRecord], number: int) -> Resent:
    """What the events of a run say of a round that has ended."""
    of_round = (event.detail for event in events if event.kind == SENT_AGAIN and event.detail.get("round") == number)
    return sum((Resent(_count(detail, "up"), _count(detail, "down")) for detail in of_round), Resent())


def _count(detail: Mapping[str, object], name: str) -> int:
    count = detail.get(name)
    return count if isinstance(count, int) else 0
