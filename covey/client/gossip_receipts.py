"""What nodes of a gossip run signed to each other about their mass, in their accounts: as JSON, and checked."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from covey.errors import IdentityError, LimitExceeded
from covey.gossip.ledger import Incarnation, InEdge, Ledger, OutEdge
from covey.gossip.mass import ONE, TOKEN
from covey.gossip.receipts import Excess, Receipt, SignedMass
from covey.node.gossip.receipts import Kept
from covey.node.gossip.record.proofs import judged, proof_from_json, signed_from_json
from covey.node.operator.config import IDENTITY_FOLDER
from covey.texts import read_pem
from covey.wire.certified import opened
from covey.wire.identities.leaver_statement import LeaverStatement
from covey.wire.mass_receipts import GAVE, HAD, LEFT


def receipt_to_json(kept: Kept) -> dict[str, str]:
    """A signed statement: its text; signature and certificate in base64; `way` says who signed."""
    signed = kept.signed
    return {
        "way": kept.way,
        "statement": signed.statement.decode("ascii"),
        "signature": base64.b64encode(signed.signature).decode(),
        "certificate": base64.b64encode(signed.certificate).decode(),
    }


def checked_receipts(accounts: Sequence[Mapping[str, Any]], authority_pem: bytes) -> tuple[list[Receipt], list[str]]:
    """What senders certainly signed, by all accounts; and, for people, what does not count.

    Args:
        accounts: Of one run's nodes, as `covey gossip status --json` has them.
        authority_pem: Whose nodes count.
    """
    given, findings = [], []
    for account in accounts:
        for receipt in account.get("receipts", ()):
            try:
                signed, kind = _signed(receipt), GAVE if receipt["way"] == "in" else HAD
                statement = opened(signed, kind, authority_pem, str(account.get("run")))
            except (KeyError, TypeError, ValueError, IdentityError, LimitExceeded) as error:
                findings.append(f"the account of {account.get('node')} has a receipt that does not count: {error}")
                continue
            if kind is GAVE:
                given.append(statement.receipt)
    return given, findings


def checked_proofs(accounts: Sequence[Mapping[str, Any]], authority_pem: bytes) -> tuple[list[Excess], list[str]]:
    """Who certainly gave a batch that cannot be, once each; and, for people, what proves nothing.

    Args:
        accounts: Of one run's nodes, as `covey gossip status --json` has them.
        authority_pem: Whose nodes count.
    """
    proven: dict[Incarnation, Excess] = {}
    findings, most = [], most_of_batch(accounts)
    run = next((str(account.get("run")) for account in accounts), "")  # of all of them

    def open_given(signed: SignedMass) -> Receipt:
        return opened(signed, GAVE, authority_pem, run).receipt

    for account in accounts:
        for proof in account.get("proofs", ()):
            try:
                excess = judged(proof_from_json(proof), open_given, most)
            except (TypeError, ValueError, IdentityError, LimitExceeded) as error:
                findings.append(f"the account of {account.get('node')} has a proof that does not count: {error}")
                continue
            proven.setdefault(excess.who, excess)
    return [proven[who] for who in sorted(proven)], findings


def checked_farewells(
    accounts: Sequence[Mapping[str, Any]], ledgers: Mapping[Incarnation, Ledger], authority_pem: bytes
) -> tuple[list[Incarnation], list[str]]:
    """Who certainly said that it left; and, for people, what does not count, or contradicts an account.

    Args:
        accounts: Of one run's nodes, as `covey gossip status --json` has them.
        ledgers: The same, read, without the evicted.
        authority_pem: Whose nodes count.
    """
    left: dict[Incarnation, LeaverStatement] = {}
    findings = []
    for account in accounts:
        for farewell in account.get("farewells", ()):
            try:
                signed = signed_from_json(farewell)
                statement = opened(signed, LEFT, authority_pem, str(account.get("run")))
            except (KeyError, TypeError, ValueError, IdentityError, LimitExceeded) as error:
                findings.append(f"the account of {account.get('node')} has a farewell that does not count: {error}")
                continue
            if left.setdefault(statement.who, statement) != statement:
                findings.append(f"{statement.who} signed two farewells that differ")
    for who, statement in sorted(left.items()):
        for name, number, gave, had in statement.edges:
            peer = Incarnation(name, number)
            if peer not in ledgers:
                continue
            reached = ledgers[peer].into.get(who, InEdge()).sequence
            if gave > reached:
                findings.append(f"{who} left, and signed to have given {peer} batch {gave}: {peer} had {reached}")
            sent = ledgers[peer].out.get(who, OutEdge()).sequence
            if had > sent:
                findings.append(f"{who} left, and signed to have had batch {had} of {peer}, which gave it {sent}")
    return sorted(left), findings


def most_of_batch(accounts: Sequence[Mapping[str, Any]]) -> int:
    """The most units that one batch of a run may have: all that its incarnations can have begun with."""
    if any(account.get("weighs") == "receiver" for account in accounts):
        return TOKEN
    known: dict[str, int] = {}
    for account in accounts:
        names = [(name, 1) for name in account.get("nodes", ())]
        for name, number in [*names, *account.get("evicted", ()), (account.get("node"), account.get("incarnation"))]:
            known[str(name)] = max(int(number), known.get(str(name), 1))
    return ONE * sum(known.values())


def _signed(receipt: Mapping[str, str]) -> SignedMass:
    try:
        parts = [base64.b64decode(receipt[name], validate=True) for name in ("signature", "certificate")]
    except binascii.Error as error:
        raise IdentityError(f"it is not base64: {error}") from error
    return SignedMass(receipt["statement"].encode(), parts[0], parts[1])


def authority_of(sources: Sequence[Path], authority: Path | None = None) -> bytes:
    """The certificate of the authority whose signatures count in an audit; empty: there is none to go by.

    Args:
        sources: Data directories of nodes, or files with accounts.
        authority: The certificate's file; None: that of the data directories.

    Raises:
        IdentityError: It cannot be read, or the data directories have several.
    """
    files = [authority] if authority is not None else [source / IDENTITY_FOLDER / "authority.crt" for source in sources]
    try:
        authorities = {read_pem(file) for file in files if authority is not None or file.exists()}
    except OSError as error:
        raise IdentityError(f"the authority's certificate cannot be read: {error}") from error
    if len(authorities) > 1:
        raise IdentityError(
            "these nodes do not have the same authority: say with --authority FILE whose signatures count"
        )
    return next(iter(authorities), b"")
