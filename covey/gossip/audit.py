"""Comparing the accounts of nodes: whether mass was made or lost anywhere, and by whom.

It proves the weights w, never the models: a node that lies about its model keeps a right account.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from covey.gossip.ledger import Incarnation, InEdge, Ledger, OutEdge
from covey.gossip.push_sum.weighing import Weighs
from covey.gossip.receipts import Excess, Overdraft


@dataclass(frozen=True)
class AuditedEdge:
    """What two accounts say of what one node gave another.

    Attributes:
        sender: Who gave.
        receiver: Who had.
        given: By the sender's account; None: it is not among those that were compared.
        had: By the receiver's; None as well.
        agrees: Whether they do; so does what only one of them says.
    """

    sender: Incarnation
    receiver: Incarnation
    given: OutEdge | None
    had: InEdge | None
    agrees: bool


@dataclass(frozen=True)
class MassAudit:
    """What the accounts of a run's nodes come to, in whole units.

    Attributes:
        live: What the nodes have.
        in_flight: What was given and has not arrived.
        minted: What all incarnations began with, those that are gone included.
        lost: What those that are gone took with them; below 0 where they gave away more than they had.
        uncertain: Up to how much of `lost` may not be: what was taken back from those that are gone.
        findings: What contradicts what, for people; empty: everything agrees.
        named: Who gave away more than it can have had, in all or in one batch, by its own signatures.
        weighs: Who says what a model counts for. Where the receiver does, a unit is a batch: all that is proven is that
            each came once.
        delivered: How many batches came.
        edges: What was exchanged, by who gave and who had.
        left: Who left in order, by a farewell that it signed.
    """

    live: int
    in_flight: int
    minted: int
    lost: int
    uncertain: int
    findings: tuple[str, ...]
    named: tuple[Overdraft | Excess, ...] = ()
    weighs: Weighs = "mass"
    delivered: int = 0
    edges: tuple[AuditedEdge, ...] = ()
    left: tuple[Incarnation, ...] = ()

    @property
    def is_exact(self) -> bool:
        """Whether nothing contradicts anything, and all mass is accounted for."""
        return not self.findings and not self.named and self.live + self.in_flight == self.minted - self.lost


def audit(
    accounts: Mapping[Incarnation, Ledger], gone: Mapping[Incarnation, int] | None = None, weighs: Weighs = "mass"
) -> MassAudit:
    """Compare accounts that were read at one moment (while nothing is written, or on a consistent cut).

    Args:
        accounts: Of the nodes that are there, or that left in order.
        gone: Incarnations without an account (evicted, dead), and the units that each of them began with.
        weighs: Who says what a model counts for, in this run.
    """
    gone = gone or {}
    findings = [text for me, ledger in sorted(accounts.items()) for text in _own(me, ledger)]
    in_flight = 0
    for sender, ledger in sorted(accounts.items()):
        for receiver, other in sorted(accounts.items()):
            open_units, finding = _edge(sender, receiver, ledger.out.get(receiver), other.into.get(sender))
            in_flight += open_units
            findings += finding
    lost_by_gone = sum(minted + _balance_of_gone(who, accounts) for who, minted in gone.items())
    uncertain = sum(edge.reclaimed for ledger in accounts.values() for to, edge in ledger.out.items() if to in gone)
    if lost_by_gone < -uncertain:  # what was taken back may have been had and passed on: so much is no contradiction
        who = " and ".join(map(str, sorted(gone)))
        findings.append(f"{who} gave away {-lost_by_gone} units more than they had, and {uncertain} were taken back")
    return MassAudit(
        live=sum(ledger.live for ledger in accounts.values()),
        in_flight=in_flight,
        minted=sum(ledger.minted for ledger in accounts.values()) + sum(gone.values()),
        lost=lost_by_gone + sum(ledger.lost for ledger in accounts.values()),
        uncertain=uncertain,
        findings=tuple(findings),
        weighs=weighs,
        delivered=sum(edge.sequence for ledger in accounts.values() for edge in ledger.into.values()),
        edges=tuple(_edges(accounts)),
    )


def _own(me: Incarnation, ledger: Ledger) -> list[str]:
    if ledger.live != ledger.balance:
        return [f"{me} has {ledger.live} units, and {ledger.balance} by what it had and gave"]
    return [f"{me} has {ledger.live} units"] if ledger.live < 0 else []


def _edges(accounts: Mapping[Incarnation, Ledger]) -> Iterator[AuditedEdge]:
    out = {(me, to) for me, ledger in accounts.items() for to, edge in ledger.out.items() if edge != OutEdge()}
    into = {(peer, me) for me, ledger in accounts.items() for peer, edge in ledger.into.items() if edge != InEdge()}
    for sender, receiver in sorted(out | into):
        giver, taker = accounts.get(sender), accounts.get(receiver)
        given = None if giver is None else giver.out.get(receiver, OutEdge())
        had = None if taker is None else taker.into.get(sender, InEdge())
        is_whole = given is not None and had is not None
        agrees = not (is_whole and _edge(sender, receiver, given, had)[1])
        yield AuditedEdge(sender, receiver, given, had, agrees)


def _edge(
    sender: Incarnation, receiver: Incarnation, given: OutEdge | None, had: InEdge | None
) -> tuple[int, list[str]]:
    """The units on their way along an edge, and what is wrong there."""
    given, had = given or OutEdge(), had or InEdge()
    open_units = given.sent - given.reclaimed - had.applied
    expected = given.waiting if had.sequence < given.sequence else 0
    if open_units == expected and given.sequence - had.sequence in (0, 1):
        return open_units, []
    text = f"{sender} gave {receiver} {given.sent} units in {given.sequence} batches (took back {given.reclaimed}), "
    return open_units, [f"{text}and {receiver} had {had.applied} units in {had.sequence}"]


def _balance_of_gone(who: Incarnation, accounts: Mapping[Incarnation, Ledger]) -> int:
    """What somebody without an account had from the others, less what it gave them."""
    had = sum(
        edge.sent - edge.reclaimed for ledger in accounts.values() for to, edge in ledger.out.items() if to == who
    )
    gave = sum(edge.applied for ledger in accounts.values() for peer, edge in ledger.into.items() if peer == who)
    return had - gave
