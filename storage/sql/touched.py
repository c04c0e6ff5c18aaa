"""What a transaction changed of what is shown: noted by the methods that write, for the seal at its end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from sqlalchemy import Connection


@dataclass
class Touched:
    """What a transaction changed of one run."""

    row: bool = False
    """Of the run itself."""
    new: bool = False
    """The run is new: there is nothing before its first seal."""
    ended: bool = False
    groups: set[int] = field(default_factory=set)
    """With their assignments."""
    versions: set[int] = field(default_factory=set)
    steps: set[int] = field(default_factory=set)
    events: set[int] = field(default_factory=set)
    members: set[str] = field(default_factory=set)
    """Of a gossip run, by node."""


class Ledger(ABC):
    """Where what was changed is sealed."""

    @abstractmethod
    def seal(self, connection: Connection, run: str, touched: Touched) -> None:
        """Seal what a transaction changed of a run, in that transaction."""

    @abstractmethod
    def forget(self) -> None:
        """A transaction came to nothing: what is known of the newest seals may not be so."""
