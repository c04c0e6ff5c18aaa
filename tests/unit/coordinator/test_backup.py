"""Backups that cannot be made leave nothing that looks like one; see tests/integration for those that can."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from coordinator import backup
from covey.errors import Conflict, NotFound
from covey.testing import store_records as make
from storage.models import ArtifactFiles
from storage.sql import open_store


@pytest.fixture
def env(tmp_path):
    """A coordinator's environment, as far as a backup needs it."""
    data_dir = tmp_path / "data"
    (data_dir / "keys").mkdir(parents=True)
    (data_dir / "keys" / "authority.key").write_text("secret")
    store = open_store(f"sqlite:///{data_dir}/covey.db")
    make.start_run(store)

    async def call(method, *arguments):
        return method(*arguments)

    yield SimpleNamespace(
        config=SimpleNamespace(data_dir=data_dir),
        store=SimpleNamespace(store=store, call=call),
        files=ArtifactFiles(data_dir / "files"),
        held_releases=None,
    )
    store.close()


def back_up(env, folder):
    return asyncio.run(backup.back_up(env, folder))


def test_a_whole_backup_has_nothing_unfinished(env, tmp_path):
    assert back_up(env, tmp_path / "new" / "monday") > 0
    folder = tmp_path / "new" / "monday"
    assert sorted(path.name for path in folder.iterdir()) == ["covey.db", "files", "keys"]
    assert folder.stat().st_mode & 0o777 == 0o700
    assert env.held_releases is None


def test_a_disk_that_fills_up_leaves_an_empty_folder(env, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(backup, "_copy_files", fail)
    with pytest.raises(Conflict, match=r"cannot be written into .*monday \(No space left on device\): name a folder"):
        back_up(env, tmp_path / "monday")
    assert list((tmp_path / "monday").iterdir()) == []
    assert env.held_releases is None


def test_a_folder_that_cannot_be_made_is_said(env, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(Conflict, match=r"cannot be written into .* \(Not a directory\)"):
        back_up(env, tmp_path / "file" / "monday")


def test_what_is_unfinished_is_no_backup(env, tmp_path, monkeypatch):
    def power_cut(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(backup, "_empty", lambda _: None)  # the process is gone before it can clean up
    monkeypatch.setattr(backup, "_copy_files", power_cut)
    with pytest.raises(KeyboardInterrupt):
        backup._write(env, tmp_path / "monday")
    assert any((tmp_path / "monday").iterdir())
    with pytest.raises(NotFound, match=r"is not a backup: it has no covey\.db and keys"):
        backup.restore(tmp_path / "monday", tmp_path / "restored")
