"""Small files that are replaced as a whole: what is read is the old text or the new one, whatever fails in between."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from covey.errors import DiskFull
from covey.node.assignments.record.durable import replace_file, write_durably


@pytest.mark.parametrize("write", [write_durably, replace_file])
def test_a_file_is_made_and_then_replaced_and_nothing_is_left_beside_it(tmp_path, write):
    path = tmp_path / "state.json"
    for text in ("first", "the second, which is longer", ""):
        write(path, text)
        assert path.read_text() == text
        assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("write", [write_durably, replace_file])
def test_a_disk_that_fails_leaves_what_was_there(tmp_path, monkeypatch, write):
    path = tmp_path / "state.json"
    write(path, "before")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(DiskFull, match=r"no room for .*state.json .* bytes are free"):
        write(path, "after")
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def synced(monkeypatch, path):
    """What is synced, and what the file holds at that moment, in order."""
    seen, fsync = [], os.fsync

    def noting(descriptor):
        seen.append((os.readlink(f"/proc/self/fd/{descriptor}"), path.read_text() if path.exists() else None))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noting)
    return seen


def test_the_text_is_on_disk_before_it_has_the_name_and_the_name_before_it_returns(tmp_path, monkeypatch):
    path = tmp_path / "journal.json"
    write_durably(path, "before")
    seen = synced(monkeypatch, path)
    write_durably(path, "after")
    assert seen == [(str(tmp_path / "journal.tmp"), "before"), (str(tmp_path), "after")]


def test_what_need_not_outlive_a_power_cut_is_not_synced(tmp_path, monkeypatch):
    path = tmp_path / "delivered.json"
    seen = synced(monkeypatch, path)
    replace_file(path, "text")
    assert seen == []
    replace_file(path, "synced", synced=True)
    assert [name for name, _ in seen] == [str(tmp_path / "delivered.tmp")]
