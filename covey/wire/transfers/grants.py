"""Who may start a bulk transfer now: a few at a time, first come first served, and nobody for ever.

A transfer that has begun fills the buffers of gRPC whatever its handler does (16 at once: 720 MB): permission
comes before the stream. While others wait a transfer must pass so many bytes a second, and even then its slot goes
round: what is taken back resumes later. Pure: no clock, no I/O; times are seconds of one clock of the caller's.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
LEAST_BYTES_S = 256 << 10
"""While others wait who were never slow, a transfer that passes less, over `TRIAL_S`, gives its slot back."""
TRIAL_S = 10.0
TURN_S = 60.0
"""While anybody waits a transfer has its slot for so long at most."""


@dataclass
class _Slot(Generic[Key]):
    key: Key
    since: float
    """When this turn began."""
    trial_at: float
    """When the present trial began, and what has passed in it."""
    passed_bytes: int = 0


class Grants(Generic[Key]):
    """Slots for transfers in one direction: a key names a transfer, a holder who makes it, one at a time.

    Every call may be repeated without harm. A holder's new request replaces its earlier one and inherits its
    slot, or its place in the queue: who asks for something else does not go on with what it asked before.

    Args:
        slots: How many transfers may run at once.
    """

    def __init__(self, slots: int = 2) -> None:
        if slots < 1:
            raise ValueError(f"{slots} slots; at least 1 is needed for any transfer to run")
        self.slots = slots
        self._granted: dict[str, _Slot[Key]] = {}
        self._queue: dict[str, Key] = {}
        self._slow: set[str] = set()
        """Holders whose slot was taken back for being slow, until a transfer of theirs succeeds: others go first."""
        self._now = 0.0

    def request(self, key: Key, holder: str, *, small: bool = False, now: float = 0.0) -> bool:
        """Ask for a transfer.

        Args:
            key: The transfer.
            holder: Who makes it.
            small: It fits one chunk: granted always, and holds no slot.
            now: The time.

        Returns:
            Whether it may start now. If not, a later `release` or `drop` returns its key.
        """
        self._now = max(self._now, now)
        if small:
            return True
        if holder in self._granted:
            self._granted[holder].key = key
            return True
        if len(self._granted) < self.slots:
            self._begin(holder, key)
            return True
        self._queue[holder] = key
        return False

    def holds(self, key: Key) -> bool:
        """Whether a transfer has a slot."""
        return any(slot.key == key for slot in self._granted.values())

    def moved(self, key: Key, size_bytes: int, now: float) -> None:
        """Bytes of a transfer have passed."""
        self._now = max(self._now, now)
        for slot in self._granted.values():
            if slot.key == key:
                slot.passed_bytes += size_bytes

    def overdue(self, key: Key, now: float) -> bool:
        """Whether a transfer's slot is to be taken back (`take_back`): others wait, and it is slow or had its turn.

        To be asked every few seconds.
        """
        self._now = max(self._now, now)
        holder = self._holder(key)
        if holder is None:
            return False
        slot, slow = self._granted[holder], False
        if now - slot.trial_at >= TRIAL_S:
            slow = slot.passed_bytes < LEAST_BYTES_S * (now - slot.trial_at)
            slot.trial_at, slot.passed_bytes = now, 0
        if slow:
            self._slow.add(holder)
        others_first = any(other not in self._slow for other in self._queue)
        return (slow and others_first) or (bool(self._queue) and now - slot.since >= TURN_S)

    def take_back(self, key: Key) -> list[Key]:
        """Give a transfer's slot to the next one. Returns the keys that are granted by this; it may ask again."""
        holder = self._holder(key)
        if holder is not None:
            del self._granted[holder]
        return self._next()

    def succeeded(self, holder: str) -> None:
        """A holder's transfer has come to its end: it is taken for slow no more."""
        self._slow.discard(holder)

    def release(self, key: Key) -> list[Key]:
        """A transfer ended, or will not take place. Returns the keys that are granted by this."""
        holder = self._holder(key)
        if holder is not None:
            del self._granted[holder]
        for waiting in [waiting for waiting, wanted in self._queue.items() if wanted == key]:
            del self._queue[waiting]
        return self._next()

    def drop(self, holder: str) -> list[Key]:
        """A holder is gone with all it asked for. Returns the keys that are granted by this."""
        self._granted.pop(holder, None)
        self._queue.pop(holder, None)
        return self._next()

    def _holder(self, key: Key) -> str | None:
        return next((holder for holder, slot in self._granted.items() if slot.key == key), None)

    def _begin(self, holder: str, key: Key) -> None:
        self._granted[holder] = _Slot(key, since=self._now, trial_at=self._now)

    def _next(self) -> list[Key]:
        granted = []
        while self._queue and len(self._granted) < self.slots:
            fast = (holder for holder in self._queue if holder not in self._slow)
            holder = next(fast, next(iter(self._queue)))
            self._begin(holder, self._queue.pop(holder))
            granted.append(self._granted[holder].key)
        return granted
