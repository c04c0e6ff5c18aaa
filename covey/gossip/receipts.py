"""Who gave away more mass than it can have had, by what nodes signed to each other (`covey.wire.mass_receipts`).

Every batch comes with its sender's signature under what the edge has carried in all, and its receiver takes it only
where that is what it counted itself. So what receivers hold adds up to what a node certainly gave, and what the node
itself holds, signed by others, to all that it can have had. More given than minted and had is a contradiction that the
node signed itself: nobody else can have made it. It says nothing of models.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from covey.gossip.ledger import Incarnation, Ledger, OutEdge
from covey.gossip.mass import ONE, weight


@dataclass(frozen=True)
class Receipt:
    """That along an edge so much was given, up to a batch."""

    sender: Incarnation
    receiver: Incarnation
    sequence: int
    """Of the newest batch."""
    units: int
    """Of all batches up to it."""


@dataclass(frozen=True)
class SignedMass:
    """A statement's exact bytes, a signature of one side over them, and the certificate (DER) of its key."""

    statement: bytes
    signature: bytes
    certificate: bytes


@dataclass(frozen=True)
class Overdraft:
    """A node that gave away more than it can have had: it lied, or two copies of its record were run.

    Attributes:
        who: The incarnation.
        gave: Units that it signed to have given, less what it says to have taken back from the evicted.
        minted: Units that it began with.
        had: Units that others signed to have given it.
    """

    who: Incarnation
    gave: int
    minted: int
    had: int

    def __str__(self) -> str:
        """For people; 1 is what a node begins with."""
        gave, minted, had = map(weight, (self.gave, self.minted, self.had))
        return f"{self.who} gave away {gave:g} by its own signatures; it began with {minted:g}, and had {had:g}"


@dataclass(frozen=True)
class Proof:
    """Two statements that follow each other, signed by an edge's sender: what the batch between them must have had.

    Attributes:
        before: Up to the batch before; None: there was none.
        refused: With the batch that the receiver refused.
    """

    before: SignedMass | None
    refused: SignedMass


@dataclass(frozen=True)
class Excess:
    """A batch that cannot be, by its sender's own signatures.

    Attributes:
        who: The sender.
        receiver: To whom.
        sequence: Its number on the edge.
        units: What it must have had.
        most: What one may have had.
    """

    who: Incarnation
    receiver: Incarnation
    sequence: int
    units: int
    most: int

    def __str__(self) -> str:
        """For people."""
        return (
            f"{self.who} gave {self.receiver} batch {self.sequence} with {self.units} units, by its own signatures; "
            f"there are {self.most} in all"
        )


def excess_of(before: Receipt | None, refused: Receipt, most: int) -> Excess | None:
    """What two statements of one sender prove of the batch between them; None: nothing.

    Args:
        before: Up to the batch before; None: the refused one is the first.
        refused: With that batch.
        most: The most units that one batch may have.
    """
    before = before or Receipt(refused.sender, refused.receiver, 0, 0)
    edge, other = (refused.sender, refused.receiver), (before.sender, before.receiver)
    if edge != other or before.sequence + 1 != refused.sequence:
        return None
    units = refused.units - before.units
    return None if 0 < units <= most else Excess(*edge, refused.sequence, units, most)


def overdrafts(
    accounts: Mapping[Incarnation, Ledger],
    given: Iterable[Receipt],
    nodes: Collection[str] = (),
    ended: Collection[Incarnation] = (),
) -> list[Overdraft]:
    """Who is overdrawn. Whenever accounts were read, and whatever others say or keep back, no honest node is named.

    An account has to come from its node: one that somebody else trimmed makes the node look overdrawn.

    A node is judged by its own account where that is as new as what others hold of it: for all that an honest node gave
    by then, it holds what it had by then. Where it gives none, or an older one, it is judged by the accounts of all
    others, and only if none of them can give it anything any more.

    Args:
        accounts: Of the nodes, as they say themselves.
        given: All statements that their senders signed, checked, whoever holds them.
        nodes: The names of all nodes of the run; empty: not known.
        ended: The nodes whose part is over by their accounts.
    """
    gave_to: dict[Incarnation, dict[Incarnation, Receipt]] = {}
    had_from: dict[Incarnation, dict[Incarnation, Receipt]] = {}
    for receipt in given:  # by sender and by receiver, the newest of each edge
        known = gave_to.setdefault(receipt.sender, {}).get(receipt.receiver, receipt)
        newest = max(known, receipt, key=lambda each: each.sequence)
        gave_to[receipt.sender][receipt.receiver] = newest
        had_from.setdefault(receipt.receiver, {})[receipt.sender] = newest
    overdrawn = []
    for who in sorted(gave_to):
        outs = gave_to[who].values()
        signed = {sender: receipt.units for sender, receipt in had_from.get(who, {}).items()}
        account = accounts.get(who)
        if account is not None and all(_out(account, out.receiver).sequence >= out.sequence for out in outs):
            minted = min(account.minted, ONE)
            back = sum(_out(account, peer).reclaimed for peer in account.evicted)
        elif _is_cut_off(who, accounts, nodes, ended):
            others = [(peer, ledger) for peer, ledger in accounts.items() if peer != who]
            signed |= {peer: max(signed.get(peer, 0), _out(ledger, who).sent) for peer, ledger in others}
            minted, back = ONE, 0
        else:
            continue
        gave, had = sum(out.units for out in outs) - back, sum(signed.values())
        if gave > minted + had:
            overdrawn.append(Overdraft(who, gave, minted, had))
    return overdrawn


def _is_cut_off(
    who: Incarnation, accounts: Mapping[Incarnation, Ledger], nodes: Collection[str], ended: Collection[Incarnation]
) -> bool:
    """Whether the accounts of all others are there, and say all that a node can ever have had.

    Where somebody else was evicted, what that one gave is in nobody's account.
    """
    others = {peer: ledger for peer, ledger in accounts.items() if peer != who}
    is_all_there = bool(nodes) and {peer.node for peer in others} >= set(nodes) - {who.node}
    is_alone = all(ledger.evicted <= {who} for ledger in others.values()) and all(peer.number == 1 for peer in others)
    return is_all_there and is_alone and all(peer in ended or who in other.evicted for peer, other in others.items())


def _out(ledger: Ledger, peer: Incarnation) -> OutEdge:
    return ledger.out.get(peer, OutEdge())
