"""Re-checking what nodes stated of a gossip run: signatures, numbers, what is shown, and the account of mass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from covey.client.audit.rows import AuditedRun, Row
from covey.client.values import ENDED
from covey.errors import CoveyError, IdentityError
from covey.storage.record.gossip import JOINED
from covey.storage.record.seals import bytes_in
from covey.wire.identities.gossip_statement import GossipStatement
from covey.wire.identities.signing import key_id, verify

FINAL = ("completed", "left")
Newest = dict[str, GossipStatement]


def check_gossip(audited: AuditedRun, federation: str) -> tuple[list[str], list[str]]:
    """Everything that is wrong with the statements of a run, and what they do not prove."""
    newest: Newest = {}
    problems = list(_statements(audited, federation, newest))
    members = {str(row.get("node")): row for row in audited.rows["gossip_members"]}
    problems += _shown(members, newest)
    if not newest:
        return problems, []
    without = sorted(node for node, row in members.items() if row.get("state") not in (*FINAL, "declined", "evicted"))
    from covey.client.gossip_nodes import audit_accounts, facts_of  # which reads nodes' databases

    late = {str(row.get("node")) for row in audited.rows["events"] if row.get("kind") == JOINED}
    facts = {**facts_of(audited.shown().spec), "nodes": sorted(members.keys() - late)}
    findings = list(audit_accounts([{**statement.account(), **facts} for statement in newest.values()]).findings)
    if audited.run.get("state") not in ENDED or without:
        names = f": {', '.join(without[:5])}" if without else ""
        note = f"not every node has stated how its part ended{names}; their accounts are of different moments"
        return problems, [note, *findings]
    return [*problems, *findings], []


def _statements(audited: AuditedRun, federation: str, newest: Newest) -> Iterator[str]:
    run = str(audited.run.get("run", ""))
    keys = {(str(row.get("node")), str(row.get("key_id"))): row for row in audited.rows["keys"]}
    order = sorted(audited.rows["gossip_statements"], key=_place)
    before: tuple[str, int, int] = ("", 0, 0)
    for row in order:
        node, incarnation, number = _place(row)
        name = f"statement {number} of {node}" + (f" (incarnation {incarnation})" if incarnation > 1 else "")
        try:
            statement = _opened(row, keys.get((node, str(row.get("key_id"))), {}))
            if (statement.federation, statement.run) != (federation, run):
                raise IdentityError("is of another federation or run")
            if (statement.node, statement.incarnation, statement.number) != (node, incarnation, number):
                raise IdentityError("is on record under another name or number")
            if (_whole(row.get("step")), row.get("key_id")) != (statement.step, statement.key):
                raise IdentityError("is on record with another step or key")
        except CoveyError as error:
            yield f"{name}: {error}"
            continue
        if before[:2] == (node, incarnation) and before[2] > 1 and number != before[2] + 1:
            yield f"{name}: {before[2] + 1} was expected: one is missing"
        before, newest[node] = (node, incarnation, number), statement


def _place(row: Row) -> tuple[str, int, int]:
    return str(row.get("node")), _whole(row.get("incarnation")), _whole(row.get("number"))


def _whole(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _opened(row: Row, key: Mapping[str, Any]) -> GossipStatement:
    public, raw = bytes_in(key.get("public_key")) or b"", bytes_in(row.get("statement")) or b""
    verify(public, raw, bytes_in(row.get("signature")) or b"")
    statement = GossipStatement.from_bytes(raw)
    if statement.key != key_id(public):
        raise IdentityError("names another key than the one that signed it")
    return statement


def _shown(members: Mapping[str, Row], newest: Newest) -> Iterator[str]:
    """What is shown of parts that their nodes did not say so."""
    for node in newest:
        if node not in members:
            yield f"{node} has stated its part, and is not on record as a member"
    for node, row in members.items():
        stated = newest[node].state if node in newest else "nothing"
        if row.get("state") in FINAL and stated != row.get("state"):
            yield f"{node} is on record as {row.get('state')}, and has stated {stated}"
