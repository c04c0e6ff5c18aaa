"""A run's audit in one file, that can be checked without its coordinator.

JSON lines: a head `{"covey": "bundle/1", "federation", "coordinator_key"}`, a line `{"table", "values"}` for each row,
and `{"rows": N}` at the end. Nothing in it is a name of a file, and nothing is compressed. It proves nothing by itself:
the rows are compared with their seals, by a key that the reader has from elsewhere.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from covey.client.audit.rows import AuditedRun
from covey.client.audit.verify import AuditReport, examine_record
from covey.errors import Conflict, IdentityError, LimitExceeded, NotFound
from covey.storage.record.seals import SEALED, canonical
from covey.wire.identities.identity import Identity

KIND = "bundle/1"
TABLES = {*SEALED, "keys", "seals", "gossip_members", "gossip_statements"}
MAX_LINE_BYTES = 1 << 26
MAX_BYTES = 1 << 32
MAX_ROWS = 5_000_000
MAX_PARTS = 2_000_000
"""Objects and lists in one line."""


def audit_bundle(path: Path, identity: Path, receipts: Iterable[bytes] = ()) -> AuditReport:
    """Check a bundle by the keys that an identity trusts; no coordinator is asked.

    Args:
        path: The bundle.
        identity: Folder with the caller's own identity.
        receipts: As in `covey.client.audit.verify.examine_record`.

    Raises:
        CoveyError: There is no such file or identity, or the file is no bundle.
    """
    trusted = Identity.load(identity)
    audited, federation = read_bundle(path)
    if federation != trusted.federation:
        raise IdentityError(f"{path} is of federation {federation!r:.80}, and {identity} of {trusted.federation!r}")
    try:
        return examine_record(audited, trusted.federation, trusted.coordinator_key, receipts)
    except RecursionError as error:
        raise IdentityError(f"{path} is not a bundle: a row is nested too deep") from error


def write_bundle(path: Path, audited: AuditedRun, federation: str) -> int:
    """Write a bundle; how many rows it has. It is there when it is whole.

    Raises:
        NotFound: The folder does not exist.
        Conflict: The file exists.
    """
    if not path.parent.is_dir():
        raise NotFound(f"the folder {path.parent} does not exist; make it first")
    if path.exists():
        raise Conflict(f"{path} exists; name another file")
    file, name = tempfile.mkstemp(dir=path.parent, prefix=".bundle-")
    try:
        with os.fdopen(file, "wb") as out:
            count = _write(out, audited, federation)
            out.flush()
            os.fsync(out.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return count


def _write(out: IO[bytes], audited: AuditedRun, federation: str) -> int:
    head = {"covey": KIND, "federation": federation, "coordinator_key": audited.coordinator_key.hex()}
    out.write(canonical(head) + b"\n")
    count = 0
    for rows in (audited.rows, audited.common):
        for table, held in rows.items():
            for values in held:
                out.write(canonical({"table": table, "values": values}) + b"\n")
                count += 1
    out.write(canonical({"rows": count}) + b"\n")
    return count


def read_bundle(path: Path) -> tuple[AuditedRun, str]:
    """A bundle from anybody: its rows, and the federation that it names.

    Raises:
        NotFound: There is no such file.
        IdentityError: It is not a whole bundle.
        LimitExceeded: It is larger than is read.
    """
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size > MAX_BYTES:
                raise LimitExceeded(f"{path} is larger than {MAX_BYTES} bytes; no bundle is")
            return _read(path, _lines(path, file))
    except OSError as error:
        raise NotFound(f"{path} cannot be read: {error.strerror}") from error


def _read(path: Path, lines: Iterator[dict[str, Any]]) -> tuple[AuditedRun, str]:
    head = next(lines, {})
    if head.get("covey") != KIND or not isinstance(head.get("federation"), str):
        raise IdentityError(
            f"{path} is not a bundle of this version ({KIND}); make one with: covey run bundle RUN --to FILE"
        )
    audited = AuditedRun(_key_in(path, head.get("coordinator_key")))
    for count, line in enumerate(lines):
        if line.keys() == {"rows"}:
            if line["rows"] != count or next(lines, None) is not None:
                raise IdentityError(f"{path} is not whole: it has {count} rows, and says {line['rows']!r:.20}")
            return audited, head["federation"]
        table, values = line.get("table"), line.get("values")
        if line.keys() != {"table", "values"} or str(table) not in TABLES or not isinstance(values, dict):
            raise IdentityError(f"{path}: line {count + 2} is not a row of a record")
        if count == MAX_ROWS:
            raise LimitExceeded(f"{path} has more than {MAX_ROWS} rows")
        audited.add(str(table), values)
    raise IdentityError(f"{path} is not whole: its last line is missing")


def _lines(path: Path, file: IO[bytes]) -> Iterator[dict[str, Any]]:
    number = 0
    while line := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(line) > MAX_LINE_BYTES or line.count(b"{") + line.count(b"[") > MAX_PARTS:
            raise LimitExceeded(f"{path}: line {number} is larger than any row")
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise IdentityError(f"{path} is not a bundle: line {number} is not JSON") from error
        if not isinstance(value, dict):
            raise IdentityError(f"{path} is not a bundle: line {number} is not a JSON object")
        yield value


def _key_in(path: Path, text: object) -> bytes:
    try:
        return bytes.fromhex(str(text))
    except ValueError as error:
        raise IdentityError(f"{path}: its coordinator_key is not hexadecimal") from error
