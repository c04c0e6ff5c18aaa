"""Events that repeat, as when bytes come in: a machine hears of them once a second, and before it would be too late."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

E = TypeVar("E")
APART_S = 1.0


class Coalescing(Generic[E]):
    """Of events with the same key, those that a machine is told: one in `APART_S`; of the others, the last is held.

    A machine goes by such an event, and by the time in it, only when it wants a tick: what is held is released before.
    """

    def __init__(self) -> None:
        self._told_at: dict[Hashable, float] = {}
        self._held: dict[Hashable, E] = {}

    @property
    def holds(self) -> bool:
        """Whether an event is held."""
        return bool(self._held)

    def is_due(self, key: Hashable, event: E, now: float) -> bool:
        """Whether the machine is to be told of this event now; else it is held, in place of the one held before."""
        if now - self._told_at.get(key, -APART_S) < APART_S:
            self._held[key] = event
            return False
        self._told_at[key] = now
        self._held.pop(key, None)
        return True

    def release(self, now: float) -> list[E]:
        """The events that are held, in the order in which their keys came first; none is held afterwards."""
        held, self._held = self._held, {}
        self._told_at.update(dict.fromkeys(held, now))
        return list(held.values())
