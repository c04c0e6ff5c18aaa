"""The signed statements of a node about its edges: those that it makes, and the newest that its peers signed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, Protocol

import structlog

from covey.errors import IdentityError, LedgerError, LimitExceeded
from covey.gossip.ledger import Batch, Incarnation, Ledger
from covey.gossip.receipts import Proof, Receipt, SignedMass
from covey.wire.identities.leaver_statement import LeaverStatement

log = structlog.get_logger(room="gossip")
Way = Literal["in", "out"]
"""in: what a peer gave, signed by it; out: what a peer had, signed by it."""


class Notary(Protocol):
    """Signs and checks statements; `covey.wire.mass_receipts.Notary`."""

    # ruff: noqa: D102

    def sign_given(self, receipt: Receipt) -> SignedMass: ...
    def sign_had(self, statement: bytes) -> SignedMass: ...
    def open_given(self, signed: SignedMass) -> Receipt: ...
    def open_had(self, signed: SignedMass) -> Receipt: ...
    def sign_left(self, me: Incarnation, ledger: Ledger) -> SignedMass: ...
    def open_left(self, signed: SignedMass) -> LeaverStatement: ...


@dataclass(frozen=True)
class Shown:
    """What one side of a new link shows the other of both edges between them. Each may be missing.

    Attributes:
        gave: The newest statement of the other side's that this side has on record: what the other one gave.
        had: The same statement, signed by this side: a receipt, should the one before have got lost.
        took: The newest statement that the other side signed to have had of this one.
    """

    gave: SignedMass | None = None
    had: SignedMass | None = None
    took: SignedMass | None = None


@dataclass(frozen=True)
class Kept:
    """What a peer signed about an edge."""

    way: Way
    receipt: Receipt
    signed: SignedMass

    @property
    def peer(self) -> Incarnation:
        """Who signed."""
        return self.receipt.sender if self.way == "in" else self.receipt.receiver


class Receipts:
    """One incarnation's. The wire signs and checks with it; what is to be kept is taken over into the record.

    Args:
        me: Whose.
        notary: Signs for it.
        kept: What is on record.
    """

    def __init__(self, me: Incarnation, notary: Notary, kept: Iterable[Kept] = ()) -> None:
        self.me, self._notary = me, notary
        self._offered: dict[Incarnation, Kept] = {}
        kept = list(kept)
        self._taken: dict[Incarnation, Kept] = {each.peer: each for each in kept if each.way == "in"}
        self._had: dict[Incarnation, Kept] = {each.peer: each for each in kept if each.way == "out"}
        self._unwritten: dict[Incarnation, Kept] = {}

    # -- what this node gives ---------------------------------------------------------------------------------------

    def given(self, batch: Batch) -> SignedMass:
        """The statement that goes with a batch."""
        return self._notary.sign_given(Receipt(self.me, batch.peer, batch.sequence, batch.given))

    def had(self, batch: Batch, signed: SignedMass) -> None:
        """A peer acknowledged a batch, with its signature. One that does not count is passed over, and said."""
        try:
            receipt = self._notary.open_had(signed)
            if receipt != Receipt(self.me, batch.peer, batch.sequence, batch.given):
                raise IdentityError("it is about another batch")
        except (IdentityError, LimitExceeded) as error:
            log.warning("a receipt that does not count", peer=str(batch.peer), reason=str(error))
            return
        self._have(Kept("out", receipt, signed))

    def signed_by(self, peer: Incarnation) -> int:
        """Number of the newest batch that a peer signed to have had; 0: none."""
        kept = self._had.get(peer)
        return kept.receipt.sequence if kept is not None else 0

    def _have(self, kept: Kept) -> None:
        self._had[kept.peer] = self._unwritten[kept.peer] = kept

    def take_unwritten(self) -> list[Kept]:
        """What peers signed to have had, and is not on record yet; it is the caller's to write."""
        unwritten, self._unwritten = self._unwritten, {}
        return list(unwritten.values())

    # -- what it is given -------------------------------------------------------------------------------------------

    def offered(self, peer: Incarnation, sequence: int, signed: SignedMass) -> None:
        """Check the statement that came with an offer.

        Raises:
            LedgerError: It is about another edge or batch.
            IdentityError, LimitExceeded: It does not count.
        """
        if not signed.statement:
            raise IdentityError("the batch comes without what its sender signs about its mass")
        receipt = self._notary.open_given(signed)
        if (receipt.sender, receipt.receiver, receipt.sequence) != (peer, self.me, sequence):
            raise LedgerError(f"batch {sequence} comes with a statement about another batch or edge")
        self._offered[peer] = Kept("in", receipt, signed)

    def of(self, peer: Incarnation, sequence: int) -> Kept | None:
        """The statement that came with a peer's newest offer, if that is this batch."""
        offered = self._offered.get(peer)
        return offered if offered is not None and offered.receipt.sequence == sequence else None

    def refused(self, peer: Incarnation, sequence: int) -> Proof | None:
        """What a peer signed about a batch that was refused, and about the one before; None: nothing."""
        offered, taken = self.of(peer, sequence), self._taken.get(peer)
        if offered is None:
            return None
        return Proof(None if taken is None else taken.signed, offered.signed)

    def open_given(self, signed: SignedMass) -> Receipt:
        """What a sender signed to anybody. Raises IdentityError, LimitExceeded: it does not count."""
        return self._notary.open_given(signed)

    def left(self, ledger: Ledger) -> SignedMass:
        """That this node has left."""
        return self._notary.sign_left(self.me, ledger)

    def open_left(self, signed: SignedMass) -> LeaverStatement:
        """What a leaver signed. Raises IdentityError, LimitExceeded: it does not count."""
        return self._notary.open_left(signed)

    def took(self, kept: Kept) -> None:
        """A batch is on record, and its statement with it."""
        self._taken[kept.peer] = kept

    def countersigned(self, peer: Incarnation, sequence: int) -> SignedMass | None:
        """The statement of a batch that is on record, signed by this node; None: its newest offer says otherwise."""
        offered, taken = self.of(peer, sequence), self._taken.get(peer)
        if offered is None or taken is None or offered.receipt != taken.receipt:
            return None
        return self._notary.sign_had(offered.signed.statement)

    # -- what both show each other ----------------------------------------------------------------------------------

    def shown_to(self, peer: Incarnation) -> Shown:
        """What a peer is shown when a link to it is made."""
        taken, had = self._taken.get(peer), self._had.get(peer)
        again = None if taken is None else self._notary.sign_had(taken.signed.statement)
        return Shown(None if taken is None else taken.signed, again, None if had is None else had.signed)

    def shown_by(self, peer: Incarnation, shown: Shown) -> tuple[int, int]:
        """What a peer shows; a receipt that got lost is kept.

        Returns:
            The numbers of the newest batches that this node signed to have given it, and to have had of it; 0: none.

        Raises:
            LedgerError: It is about other edges.
            IdentityError, LimitExceeded: It does not count.
        """
        given = self._shown(self._notary.open_given, shown.gave, self.me, peer)
        took = self._shown(self._notary.open_had, shown.took, peer, self.me)
        again = self._shown(self._notary.open_had, shown.had, self.me, peer)
        before = self._had.get(peer)
        if given and given == again and shown.had and (before is None or before.receipt.sequence < given.sequence):
            self._have(Kept("out", given, shown.had))
        return given.sequence if given else 0, took.sequence if took else 0

    def _shown(
        self, read: Callable[[SignedMass], Receipt], signed: SignedMass | None, sender: Incarnation, to: Incarnation
    ) -> Receipt | None:
        if signed is None:
            return None
        receipt = read(signed)
        if (receipt.sender, receipt.receiver) != (sender, to):
            raise LedgerError(f"what is shown is about the edge from {receipt.sender} to {receipt.receiver}")
        return receipt
