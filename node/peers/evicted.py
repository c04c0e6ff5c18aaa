"""The notices of eviction that this node knows: checked, on disk before they count, said on to everybody."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import structlog
from google.protobuf.message import DecodeError

from covey.errors import CoveyError, IdentityError, NotFound
from covey.gossip.ledger import Incarnation
from covey.node.peers.translation import eviction_from, eviction_message
from covey.protos import peer_pb2 as pb
from covey.storage.files.spool import disk_errors
from covey.wire.evictions import EvictionStatement, SignedNotice, opened_eviction
from covey.wire.identities.authority import write_private

log = structlog.get_logger(room="peers")
SUFFIX = ".eviction"


class Evicted:
    """The notices of one run.

    Args:
        folder: Where they are kept.
        run: Of which run.
        is_member: Whether a node is one of the run's: others are no business of ours, so the folder is bounded.
        authority_pem: Whose admins may sign.
    """

    def __init__(self, folder: Path, run: str, is_member: Callable[[str], bool], authority_pem: bytes) -> None:
        self._folder, self._run, self._is_member, self._authority = folder, run, is_member, authority_pem
        self._notices: dict[Incarnation, SignedNotice] = {}
        self._taking = threading.Lock()

    def load(self) -> None:
        """Read what is on disk. A file that cannot be one of them is passed over, and said.

        Raises:
            StoreError: Their folder cannot be made.
        """
        with disk_errors(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for path in sorted(self._folder.glob(f"*{SUFFIX}")):
            try:
                notice = eviction_from(pb.SignedEviction.FromString(path.read_bytes()))
                self._notices.setdefault(self._read(notice)[0], notice)
            except (CoveyError, OSError, DecodeError) as error:
                log.warning("a notice of eviction that does not count", file=str(path), reason=str(error))

    def take(self, notice: SignedNotice) -> tuple[Incarnation, EvictionStatement] | None:
        """A notice from anybody; None: it is known. Blocking: it is on disk when this returns.

        Raises:
            IdentityError: It does not count; the text says why.
            NotFound: It is of another run, or of a node that takes no part.
            LimitExceeded: It is too long.
            StoreError: The disk refuses.
        """
        with self._taking:  # it comes from several peers at once
            if notice in self._notices.values():
                return None
            who, statement = self._read(notice)
            if who in self._notices:
                return None
            path = self._folder / (hashlib.sha256(notice.statement).hexdigest() + SUFFIX)
            with disk_errors(path):
                write_private(path, eviction_message(notice).SerializeToString())
            self._notices[who] = notice
        log.warning("evicted", node=who.node, incarnation=who.number, reason=statement.reason)
        return who, statement

    def _read(self, notice: SignedNotice) -> tuple[Incarnation, EvictionStatement]:
        statement = opened_eviction(notice, self._authority)
        if statement.run != self._run:
            raise NotFound(f"the notice is of run {statement.run!r}, and this node takes part in {self._run!r}")
        if not self._is_member(statement.node):
            raise NotFound(f"{statement.node!r} takes no part in this run")
        return Incarnation(statement.node, statement.incarnation), statement

    def refuse(self, who: Incarnation) -> None:
        """Raises `IdentityError` if an incarnation is out."""
        if who in self._notices:
            reason = EvictionStatement.from_bytes(self._notices[who].statement).reason
            raise IdentityError(f"{who} is evicted: {reason}; it may come back as a new incarnation, without its mass")

    def __contains__(self, who: object) -> bool:
        return who in self._notices

    def __iter__(self) -> Iterator[Incarnation]:
        return iter(sorted(self._notices))

    def notice_of(self, who: Incarnation) -> SignedNotice | None:
        """The notice about an incarnation, if it is out."""
        return self._notices.get(who)

    def notices(self) -> list[SignedNotice]:
        """All of them."""
        return list(self._notices.values())
