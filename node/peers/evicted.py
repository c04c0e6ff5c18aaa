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
        self._for_good: dict[str, SignedNotice] = {}
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
                who, statement = self._read(notice)
                if not self._is_known(who, statement):
                    self._note(who, statement, notice)
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
            if notice in self.notices():
                return None
            who, statement = self._read(notice)
            if self._is_known(who, statement):
                return None
            path = self._folder / (hashlib.sha256(notice.statement).hexdigest() + SUFFIX)
            with disk_errors(path):
                write_private(path, eviction_message(notice).SerializeToString())
            self._note(who, statement, notice)
        what = "evicted for good" if statement.is_for_good else "evicted"
        log.warning(what, node=who.node, incarnation=who.number, reason=statement.reason)
        return who, statement

    def _is_known(self, who: Incarnation, statement: EvictionStatement) -> bool:
        return who.node in self._for_good if statement.is_for_good else who in self._notices

    def _note(self, who: Incarnation, statement: EvictionStatement, notice: SignedNotice) -> None:
        if statement.is_for_good:
            self._for_good[who.node] = notice
        else:
            self._notices[who] = notice

    def _read(self, notice: SignedNotice) -> tuple[Incarnation, EvictionStatement]:
        statement = opened_eviction(notice, self._authority)
        if statement.run != self._run:
            raise NotFound(f"the notice is of run {statement.run!r}, and this node takes part in {self._run!r}")
        if not self._is_member(statement.node):
            raise NotFound(f"{statement.node!r} takes no part in this run")
        return Incarnation(statement.node, statement.incarnation), statement

    def refuse(self, who: Incarnation) -> None:
        """Raises `IdentityError` if an incarnation is out."""
        notice = self.notice_of(who)
        if notice is not None:
            statement = EvictionStatement.from_bytes(notice.statement)
            if statement.is_for_good:
                text = f"{who.node} is evicted for good: {statement.reason}"
                raise IdentityError(f"{text}; no incarnation of it takes part in this run any more")
            text = f"{who} is evicted: {statement.reason}; it may come back as a new incarnation, without its mass"
            raise IdentityError(text)

    def refuse_for_good(self, node: str) -> None:
        """Raises `IdentityError` if no incarnation of a node may take part."""
        if node in self._for_good:
            self.refuse(Incarnation(node))

    def __contains__(self, who: object) -> bool:
        return who in self._notices or (isinstance(who, Incarnation) and who.node in self._for_good)

    def __iter__(self) -> Iterator[Incarnation]:
        return iter(sorted(self._notices))

    @property
    def for_good(self) -> list[str]:
        """Nodes that no incarnation of takes part."""
        return sorted(self._for_good)

    def notice_of(self, who: Incarnation) -> SignedNotice | None:
        """The notice about an incarnation, if it is out."""
        return self._for_good.get(who.node) or self._notices.get(who)

    def notices_of(self, who: Incarnation) -> list[SignedNotice]:
        """All about an incarnation: a node of an older version does not know the one for good, which comes last."""
        return [notice for notice in (self._notices.get(who), self._for_good.get(who.node)) if notice is not None]

    def notices(self) -> list[SignedNotice]:
        """All of them."""
        return [*self._notices.values(), *self._for_good.values()]
