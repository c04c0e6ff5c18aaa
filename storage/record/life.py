"""Lease, end and soundness of a store."""

from __future__ import annotations

from abc import ABC, abstractmethod


class Life(ABC):
    """One coordinator at a time, and what `store check` asks."""

    @abstractmethod
    def acquire_lease(self, holder: str) -> int:
        """Become the one coordinator on this store; returns the fencing number, higher than every one before.

        The lease is held until `close`, or until this process ends, however it ends. A store that holds it
        already keeps its number. One that never acquires it is not fenced: it is for reading.

        Raises:
            Conflict: A living coordinator holds the lease (the message names it).
        """

    @abstractmethod
    def close(self) -> None:
        """Release the lease and every connection; the store cannot be used afterwards."""

    @abstractmethod
    def check(self) -> list[str]:
        """Look for contradictions in the record (orphans, gaps in a chain); one line each, or none."""
