"""Wakes those who watch, whenever something worth showing changed."""

from __future__ import annotations

import asyncio


class Changes:
    """Counts changes, and wakes those who wait for one."""

    def __init__(self) -> None:
        self.count = 0
        self._event = asyncio.Event()

    def notify(self) -> None:
        """Something changed."""
        self.count += 1
        self._event.set()
        self._event = asyncio.Event()

    async def after(self, seen: int) -> int:
        """Wait until more than `seen` changes have been counted; returns the count."""
        while self.count <= seen:
            await self._event.wait()
        return self.count
