"""Receipts that nodes keep: what the coordinator said that it had, whatever its record says now."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator

from covey.client.audit.rows import AuditedRun
from covey.errors import CoveyError
from covey.storage.record.seals import bytes_in
from covey.wire.identities.signing import ReceiptStatement, verify


def check_receipts(receipts: Iterable[bytes], audited: AuditedRun, federation: str, key: bytes) -> Iterator[str]:
    """What receipts of a run's updates say that its record does not.

    Args:
        receipts: Lines as a node keeps them: JSON objects with `statement` (text) and `signature` (hex).
        audited: The run's rows.
        federation: The caller's.
        key: The raw Ed25519 key that the caller knows the coordinator by.
    """
    run = audited.run.get("run")
    known = {hashlib.sha256(bytes_in(row.get("statement")) or b"").hexdigest() for row in audited.rows["assignments"]}
    for number, line in enumerate(receipts, start=1):
        try:
            fields = json.loads(line)
            statement = str(fields["statement"]).encode()
            verify(key, statement, bytes.fromhex(fields["signature"]))
            receipt = ReceiptStatement.from_bytes(statement)
        except (CoveyError, ValueError, KeyError, TypeError, RecursionError) as error:
            yield f"receipt {number}: {error if isinstance(error, CoveyError) else 'it is not readable'}"
            continue
        if receipt.federation == federation and receipt.run == run and receipt.update not in known:
            yield f"round {receipt.round}, update of {receipt.node}: there is a receipt for it, but it is not on record"
