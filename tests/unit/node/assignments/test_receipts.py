"""Receipts are appended, one line each; a run's id is never a path, and a full disk loses receipts and no more."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from covey.node.assignments.record import receipts as module
from covey.node.assignments.record.receipts import Receipts

RUN = "0b5e2f9a-run"


def lines(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_each_receipt_is_a_line_in_the_file_of_its_run(tmp_path: Path) -> None:
    receipts = Receipts(tmp_path / "receipts")
    assert not (tmp_path / "receipts").exists()
    receipts.keep(RUN, b'{"round": 1}', b"\x00\xff")
    receipts.keep(RUN, '{"node": "J\u00fcrgen\\n"}'.encode(), b"")
    receipts.keep("another", b"{}", b"\x01")
    assert receipts.path(RUN) == tmp_path / "receipts" / f"{RUN}.jsonl"
    assert lines(receipts.path(RUN)) == [
        {"statement": '{"round": 1}', "signature": "00ff"},
        {"statement": '{"node": "J\u00fcrgen\\n"}', "signature": ""},
    ]
    assert len(lines(receipts.path("another"))) == 1


def test_after_a_restart_the_file_goes_on(tmp_path: Path) -> None:
    for number in range(3):
        Receipts(tmp_path / "receipts").keep(RUN, str(number).encode(), b"")
    assert [line["statement"] for line in lines(Receipts(tmp_path / "receipts").path(RUN))] == ["0", "1", "2"]


def test_others_cannot_look_into_the_folder(tmp_path: Path) -> None:
    Receipts(tmp_path / "receipts").keep(RUN, b"{}", b"")
    assert (tmp_path / "receipts").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("run", ["", "../../etc/passwd", "/etc/passwd", "a/b", ".", "..", "x" * 65, "a\n", "r\u00fcn"])
def test_the_id_of_a_run_is_no_path(tmp_path: Path, run: str) -> None:
    receipts = Receipts(tmp_path / "receipts")
    receipts.keep(run, b"{}", b"")
    name = hashlib.sha256(run.encode()).hexdigest()
    assert [path.relative_to(tmp_path) for path in tmp_path.rglob("*.jsonl")] == [Path("receipts") / f"{name}.jsonl"]
    assert receipts.path(run) == tmp_path / "receipts" / f"{name}.jsonl"


def test_a_file_that_is_full_takes_no_more_and_keeps_what_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    receipts = Receipts(tmp_path / "receipts")
    receipts.keep(RUN, b"first", b"")
    size = receipts.path(RUN).stat().st_size
    monkeypatch.setattr(module, "MAX_BYTES", size + 1)
    for statement in (b"second", b"third"):
        receipts.keep(RUN, statement, b"")
    assert [line["statement"] for line in lines(receipts.path(RUN))] == ["first", "second"]
    receipts.keep("another", b"{}", b"")  # each run has its own
    assert len(lines(receipts.path("another"))) == 1


def test_a_disk_that_fails_loses_receipts_is_said_once_and_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "receipts").write_text("a file is where the folder should be")
    receipts = Receipts(tmp_path / "receipts")
    with capture_logs() as logs:
        for _ in range(3):
            receipts.keep(RUN, b"{}", b"")
    assert [entry["event"] for entry in logs] == ["receipts cannot be kept"]
    (tmp_path / "receipts").unlink()
    receipts.keep(RUN, b"{}", b"")
    assert len(lines(receipts.path(RUN))) == 1
