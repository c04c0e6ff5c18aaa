"""The coordinator's signature under what its record shows."""

from __future__ import annotations

from dataclasses import dataclass

from covey.storage.record.seals import DOMAIN
from covey.wire.identities.signing import SigningKey


@dataclass(frozen=True)
class RecordSealer:
    """Seals a record; see `covey.storage.record.seals`."""

    federation: str
    key: SigningKey

    def sign(self, statement: bytes) -> bytes:
        """A seal's signature."""
        return self.key.sign(statement, DOMAIN)
