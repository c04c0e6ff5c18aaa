"""An audit from one file: as from the coordinator; and whatever somebody else puts into it is refused in words."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from covey.client.audit import bundle
from covey.client.audit.bundle import read_bundle, write_bundle
from covey.client.audit.rows import AuditedRun, row_in
from covey.client.audit.verify import examine_record
from covey.errors import Conflict, IdentityError, LimitExceeded, NotFound
from covey.storage.record.seals import canonical
from covey.storage.sql.copy import copy_store
from covey.storage.sql.store import open_store
from covey.wire.identities.signing import ReceiptStatement
from tests.unit.client.sealed_record import ASYNC, COORDINATOR, FEDERATION, GOING, SYNC, audit, write_record


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("record") / "covey.db"
    write_record(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="module")
def whole(database: Path) -> Path:
    """A bundle of a run."""
    store = open_store(f"sqlite:///{database}", migrate=False)
    audited = AuditedRun(COORDINATOR.public_bytes)
    for row in store.audited_rows(SYNC):
        audited.add(row.table, row_in(canonical(row.values)))
    store.close()
    path = database.parent / "run.bundle"
    assert write_bundle(path, audited, FEDERATION) > 20
    return path


def problems(path: Path) -> tuple[str, ...]:
    audited, federation = read_bundle(path)
    return examine_record(audited, federation, COORDINATOR.public_bytes).problems


def edited(whole: Path, tmp_path: Path, edit: Callable[[list[dict[str, Any]]], object]) -> Path:
    lines = [json.loads(line) for line in whole.read_bytes().splitlines()]
    edit(lines)
    path = tmp_path / "edited.bundle"
    path.write_bytes(b"".join(canonical(line) + b"\n" for line in lines))
    return path


def test_a_bundle_is_right_and_says_the_same_as_the_record(whole: Path, database: Path) -> None:
    assert problems(whole) == ()
    assert audit(database, SYNC).ok
    with pytest.raises(Conflict, match="name another file"):
        write_bundle(whole, AuditedRun(), FEDERATION)
    with pytest.raises(NotFound, match="does not exist"):
        write_bundle(whole.parent / "none" / "x", AuditedRun(), FEDERATION)


def _table(lines: list[dict[str, Any]], table: str) -> dict[str, Any]:
    return next(line["values"] for line in lines if line.get("table") == table)


@pytest.mark.parametrize(
    "edit",
    [
        lambda lines: _table(lines, "assignments").update(weight=99.0),
        lambda lines: _table(lines, "runs").update(spec="{}"),
        lambda lines: _table(lines, "groups").update(reason={"$bytes": "00"}),
        lambda lines: _table(lines, "model_versions").update(statement="text"),
        lambda lines: _table(lines, "seals").update(signature={"$bytes": 5}),
        lambda lines: _table(lines, "keys").update(public_key=[[]], key_id=[1]),
        lambda lines: _table(lines, "steps").update(number={}),
        lambda lines: _table(lines, "runs").update(mode="perpetuum mobile"),
        lambda lines: _table(lines, "assignments").update(node=["x"], group_number=None, phase="\x1b[2J"),
        lambda lines: _table(lines, "assignments").clear(),
        lambda lines: _table(lines, "events").update(id=1.5, detail=None),
    ],
)
def test_an_edited_bundle_is_found(whole: Path, tmp_path: Path, edit: Callable[[list[dict[str, Any]]], object]) -> None:
    found = problems(edited(whole, tmp_path, edit))
    assert found
    assert all(text.isprintable() for text in found)


def _archive(kind: str) -> bytes:
    out = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("../../etc/passwd", b"0" * 10_000_000)
    elif kind == "tar":
        with tarfile.open(fileobj=out, mode="w:gz") as tar:
            info = tarfile.TarInfo("/etc/passwd")
            info.size = 10_000_000
            tar.addfile(info, io.BytesIO(bytes(10_000_000)))
    else:
        out.write(gzip.compress(bytes(10_000_000)))
    return out.getvalue()


HEAD = canonical({"covey": "bundle/1", "federation": FEDERATION, "coordinator_key": ""}) + b"\n"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"[]\n",
        b"{}\n",
        b"\xff\xfe",
        b'{"covey": "bundle/9"}\n',
        _archive("zip"),
        _archive("tar"),
        _archive("gzip"),
        HEAD,
        HEAD + b'{"rows": 5}\n',
        HEAD + b'{"rows": 0}\n{"rows": 0}\n',
        HEAD + b'{"table": "tokens", "values": {}}\n{"rows": 1}\n',
        HEAD + b'{"table": ["runs"], "values": {}}\n{"rows": 1}\n',
        HEAD + b'{"table": "runs", "values": []}\n{"rows": 1}\n',
        HEAD + b'{"table": "runs", "values": {}, "more": 1}\n{"rows": 1}\n',
        HEAD + b"[" * 100_000 + b"\n",
        HEAD + b'{"rows": ' + b"9" * 10_000 + b"}\n",
        HEAD.replace(b'"coordinator_key":""', b'"coordinator_key":"zz"') + b'{"rows": 0}\n',
    ],
)
def test_what_is_no_bundle_is_refused_in_words(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "hostile"
    path.write_bytes(content)
    with pytest.raises(IdentityError, match=str(path)):
        read_bundle(path)


def test_what_is_too_large_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "huge"
    monkeypatch.setattr(bundle, "MAX_LINE_BYTES", 1000)
    path.write_bytes(HEAD + b'{"table": "runs", "values": {"x": "' + b"y" * 2000 + b'"}}\n')
    with pytest.raises(LimitExceeded, match="line 2 is larger than any row"):
        read_bundle(path)
    monkeypatch.setattr(bundle, "MAX_PARTS", 50)
    path.write_bytes(HEAD + b'{"table": "runs", "values": {"x": [' + b"[]," * 60 + b"[]]}}\n")
    with pytest.raises(LimitExceeded, match="line 2 is larger than any row"):
        read_bundle(path)
    with path.open("wb") as file:
        file.truncate(bundle.MAX_BYTES + 1)  # a hole: it takes no disk
    with pytest.raises(LimitExceeded, match="no bundle is"):
        read_bundle(path)
    with pytest.raises(NotFound):
        read_bundle(tmp_path / "none")


def test_a_nested_value_is_a_finding(tmp_path: Path) -> None:
    path = tmp_path / "deep"
    path.write_bytes(HEAD + b'{"table": "runs", "values": {"x": ' + b"[" * 400 + b"]" * 400 + b'}}\n{"rows": 1}\n')
    assert problems(path)


def test_receipts_find_what_was_cut_off(database: Path) -> None:
    """A record without its newest rows, their seals and its end is a sound one of an earlier moment."""

    def receipt(update: str, run: str = SYNC) -> bytes:
        text = ReceiptStatement(FEDERATION, run, 3, "a", update, 3000.0).to_bytes()
        return json.dumps({"statement": text.decode(), "signature": COORDINATOR.sign(text).hex()}).encode()

    store = open_store(f"sqlite:///{database}", migrate=False)
    known = store.updates(SYNC, 3)[0].digest
    store.close()
    assert audit(database, SYNC, [receipt(known), receipt("ff" * 32, "another run")]).ok
    lost = audit(database, SYNC, [receipt(known), receipt(hashlib.sha256(b"gone").hexdigest())])
    assert lost.problems == ("round 3, update of a: there is a receipt for it, but it is not on record",)
    forged = receipt(known).replace(b'"a\\"', b'"b\\"')
    for line in (forged, b"no JSON", b'{"statement": 5}', b"[" * 10_000):
        assert not audit(database, SYNC, [line]).ok


def test_a_record_that_was_copied_to_another_back_end_is_as_it_was_sealed(database: Path, empty_postgres: str) -> None:
    copy_store(f"sqlite:///{database}", empty_postgres)
    for run in (SYNC, ASYNC, GOING):
        report = audit(empty_postgres, run)
        assert report.ok, report.problems


def test_a_record_that_is_written_to_postgresql_is_sealed_alike(empty_postgres: str) -> None:
    write_record(empty_postgres)
    for run in (SYNC, ASYNC, GOING):
        report = audit(empty_postgres, run)
        assert report.ok, report.problems
