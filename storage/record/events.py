"""Events and settings."""

from __future__ import annotations

from abc import ABC, abstractmethod

from covey.storage.record.records import EventRecord


class Events(ABC):
    """What happened, newest first, and small persistent settings."""

    @abstractmethod
    def add_event(self, event: EventRecord) -> None:
        """Append an event."""

    @abstractmethod
    def events(
        self, *, run: str = "", node: str = "", kind: str = "", before_id: int = 0, limit: int = 100
    ) -> list[EventRecord]:
        """Events, newest first, of one run, node or kind where these are given, recorded before the one of an id."""

    @abstractmethod
    def setting(self, key: str) -> str | None:
        """A small persistent setting (federation id, paused)."""

    @abstractmethod
    def set_setting(self, key: str, value: str) -> None:
        """Write a setting."""
