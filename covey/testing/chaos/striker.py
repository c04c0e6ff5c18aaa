"""Does one strike after the other, each when it is due, and undoes what was done."""

from __future__ import annotations

from collections.abc import Iterator

from covey.testing.chaos.faults import DOERS, Place, Undo
from covey.testing.chaos.schedule import EVERYBODY, Strike


class Striker:
    """The strikes of a chase.

    Args:
        place: What is struck.
        planned: The strikes, in order.
    """

    def __init__(self, place: Place, planned: Iterator[Strike]) -> None:
        self._place, self._planned = place, planned
        self._next, self._at = next(planned), 0.0
        self._undo: list[tuple[float, Strike, Undo]] = []

    def begin(self, now: float) -> None:
        """The pause before the next strike begins."""
        self._at = now + self._next.pause_s

    def strike(self, now: float) -> Strike | None:
        """Strike, if it is time for that, and whoever would be struck is well; what was done."""
        if now < self._at:
            return None
        strike, self._next = self._next, next(self._planned)
        self._at = now + self._next.pause_s
        if self.afflicts(strike.target):
            return None
        undo = DOERS[strike.kind](self._place, strike)
        if undo is not None:
            self._undo.append((now + strike.lasts_s, strike, undo))
        return strike

    def afflicts(self, target: str) -> bool:
        """Whether something that was done to somebody is not undone yet."""
        struck = {strike.target for _, strike, _ in self._undo}
        return bool(struck) if target == EVERYBODY else target in struck or EVERYBODY in struck

    def undo_due(self, now: float) -> None:
        """Undo what has lasted for as long as it should."""
        due = sorted((item for item in self._undo if item[0] <= now), key=lambda item: item[0])
        self._undo = [item for item in self._undo if item[0] > now]
        for _, _, undo in due:
            undo()
