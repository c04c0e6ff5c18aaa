"""What leavers of a run signed at their end, on disk: it is said on to who was away then. One of each incarnation."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import structlog

from covey.errors import CoveyError, IdentityError
from covey.gossip.ledger import Incarnation
from covey.gossip.receipts import SignedMass
from covey.node.gossip.record.proofs import signed_from_json, signed_to_json
from covey.storage.files.spool import disk_errors
from covey.wire.identities.authority import write_private
from covey.wire.identities.leaver_statement import LeaverStatement

log = structlog.get_logger(room="gossip")
FOLDER = "leavers"
"""In the run's folder."""


class Leavers:
    """The farewells of one run that this node knows.

    Args:
        folder: Where they are kept.
        open_left: Checks one. Raises IdentityError, LimitExceeded.
        is_present: Whether an incarnation is its node's present one in this run: of others nothing is kept.
    """

    def __init__(
        self,
        folder: Path,
        open_left: Callable[[SignedMass], LeaverStatement],
        is_present: Callable[[Incarnation], bool],
    ) -> None:
        self._folder, self._open, self._is_present = folder, open_left, is_present
        self._known: dict[Incarnation, tuple[SignedMass, LeaverStatement]] = {}
        self._taking = threading.Lock()

    def load(self) -> None:
        """Read what is on disk. What cannot be one of them is passed over, and said."""
        for signed in read_leavers(self._folder):
            try:
                statement = self._open(signed)
                self._known.setdefault(statement.who, (signed, statement))
            except CoveyError as error:
                log.warning("a farewell that does not count", folder=str(self._folder), reason=str(error))

    def take(self, signed: SignedMass) -> LeaverStatement | None:
        """A farewell from anybody; None: it is known. Blocking: it is on disk at the end.

        Raises:
            IdentityError: It does not count; the text says why. Of two of one incarnation the first one counts.
            LimitExceeded: It is too long.
            StoreError: The disk refuses.
        """
        with self._taking:  # it comes from several peers at once
            statement = self._open(signed)
            who = statement.who
            if who in self._known:
                if self._known[who][1] != statement:
                    raise IdentityError(f"{who} signed two farewells that differ: the first one counts")
                return None
            if not self._is_present(who):
                raise IdentityError(f"{who} takes no part in this run, or not any more")
            path = self._folder / f"{who.node}-{who.number}.json"
            with disk_errors(path):
                self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                write_private(path, json.dumps(signed_to_json(signed)).encode())
            self._known[who] = signed, statement
        return statement

    def signed(self) -> list[SignedMass]:
        """All of them, as they came."""
        return [signed for signed, _ in self._known.values()]

    def __iter__(self) -> Iterator[LeaverStatement]:
        return iter([statement for _, statement in self._known.values()])


def read_leavers(folder: Path) -> list[SignedMass]:
    """Those in a folder; nothing of them is checked. What is none is passed over, and said."""
    read = []
    for path in sorted(folder.glob("*.json")):
        try:
            read.append(signed_from_json(json.loads(path.read_bytes())))
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("a file that is no farewell", file=str(path), reason=str(error))
    return read
