"""Backups and restores that are cut off leave nothing that looks whole; tests/integration has those that end."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from types import SimpleNamespace

import pytest

from covey.artifact import artifact_of
from covey.coordinator.backup import backup
from covey.coordinator.backup import durable as copies
from covey.coordinator.backup.ownership import check_folder
from covey.coordinator.runs.retention import Retention
from covey.coordinator.store_thread import StoreThread
from covey.driver.background import Background
from covey.errors import Conflict, NotFound
from covey.storage.files.address import Address
from covey.storage.files.artifacts import ArtifactFiles
from covey.storage.files.distant import DistantFiles
from covey.storage.sql.store import open_store
from covey.testing.store import records as make


@pytest.fixture
def env(tmp_path):
    """What a backup is given: with one run and its model."""
    data_dir = tmp_path / "data"
    (data_dir / "keys").mkdir(parents=True)
    (data_dir / "keys" / "authority.key").write_text("secret")
    (data_dir / "record.json").write_text("{}")
    store = open_store(f"sqlite:///{data_dir}/covey.db")
    make.play_round(store, make.start_run(store), 1)
    files = ArtifactFiles(data_dir / "files")
    for digest in store.referenced_digests():
        files.path(digest).write_text(digest)
    yield backup.BackupServices(data_dir, StoreThread(store), files, Retention(files), Background())
    store.close()


@pytest.fixture
def whole(env, tmp_path):
    back_up(env, tmp_path / "whole")
    return tmp_path / "whole"


def back_up(env, folder):
    return asyncio.run(backup.back_up(env, folder))


def content(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def modes(folder):
    return {path.stat().st_mode & 0o077 for path in (folder, *folder.rglob("*"))}


def test_a_whole_backup_has_nothing_unfinished(env, tmp_path):
    assert back_up(env, tmp_path / "new" / "monday") > 0
    folder = tmp_path / "new" / "monday"
    assert sorted(path.name for path in folder.iterdir()) == ["covey.db", "files", "keys", "record.json"]
    assert {path.name for path in (folder / "files" / "artifacts").iterdir()} == env.store.store.referenced_digests()
    assert modes(folder) == {0}
    assert folder.stat().st_mode & 0o777 == 0o700
    assert not env.retention.is_held


def test_files_that_last_elsewhere_stay_until_they_are_copied(env, tmp_path):
    address = Address(f"file://{tmp_path}/there")
    address.claim("record", "me")
    needed = {}
    for digest in env.store.store.referenced_digests():
        artifact = artifact_of([digest.encode()])
        needed[artifact.digest] = env.files.path(digest)
        address.put(env.files.path(digest), artifact.digest)

    class NoRoom(DistantFiles):
        def check(self, digest):
            is_here = super().check(digest)
            self._drop_copies(0)  # somebody else needs room
            return is_here

    files, target = NoRoom(tmp_path / "another disk", address), tmp_path / "monday"
    target.mkdir()
    backup._copy_files(replace(env, files=files), target, set(needed), lambda: None)
    copied = {path.name: path.read_bytes() for path in (target / "files" / "artifacts").iterdir()}
    assert copied == {digest: path.read_bytes() for digest, path in needed.items()}
    files._drop_copies(0)
    assert files.bytes_used == 0  # nothing is held any more


def test_dropping_what_was_held_says_nothing_about_the_database(env, tmp_path):
    env.store.up, calls = False, []
    env.store.on_call = calls.append
    back_up(env, tmp_path / "monday")
    assert not env.store.up
    assert calls == []


def test_a_file_that_the_record_names_and_that_is_gone_fails_the_backup(env, tmp_path):
    gone = sorted(env.store.store.referenced_digests())[0]
    env.files.release([gone])
    with pytest.raises(NotFound, match=f"no whole backup: the record names the file {gone}"):
        back_up(env, tmp_path / "monday")
    assert list((tmp_path / "monday").iterdir()) == []
    assert not env.retention.is_held


def test_a_disk_that_fills_up_leaves_an_empty_folder(env, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(backup, "_copy_files", fail)
    with pytest.raises(Conflict, match=r"cannot be written into .*monday \(No space left on device\): name a folder"):
        back_up(env, tmp_path / "monday")
    assert list((tmp_path / "monday").iterdir()) == []
    assert not env.retention.is_held


def test_a_folder_that_cannot_be_made_is_said(env, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(Conflict, match=r"cannot be written into .* \(Not a directory: .*monday"):
        back_up(env, tmp_path / "file" / "monday")


def test_what_is_unfinished_is_no_backup(env, tmp_path, monkeypatch):
    def power_cut(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(backup, "_empty", lambda _: None)  # the process is gone before it can clean up
    monkeypatch.setattr(backup, "_copy_files", power_cut)
    with pytest.raises(KeyboardInterrupt):
        backup._write(env, tmp_path / "monday", threading.Event())
    assert any((tmp_path / "monday").iterdir())
    with pytest.raises(NotFound, match=r"is not a backup: it has no covey\.db and keys"):
        backup.restore(tmp_path / "monday", tmp_path / "restored")


# -- the caller, or the coordinator, goes away in the middle


@pytest.fixture
def slow(monkeypatch):
    """Copying stands still from the first file on (`begun`) until it is told to go on (`go_on`)."""
    made = SimpleNamespace(begun=threading.Event(), go_on=threading.Event())
    copy_file = copies.copy_file

    def wait(*arguments):
        made.begun.set()
        assert made.go_on.wait(30)
        copy_file(*arguments)

    monkeypatch.setattr(backup, "copy_file", wait)
    yield made
    made.go_on.set()


def test_a_caller_that_goes_away_changes_nothing(env, slow, tmp_path):
    folder = tmp_path / "monday"

    async def scenario():
        call = asyncio.create_task(backup.back_up(env, folder))
        await asyncio.to_thread(slow.begun.wait, 30)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        env.store.store.finish_run("run-1", "completed", "", 9.0)
        released = sorted(env.store.store.delete_run("run-1"))
        env.retention.drop(released)
        with pytest.raises(Conflict, match="another backup is being made"):
            await backup.back_up(env, tmp_path / "tuesday")
        assert all(env.files.has(digest) for digest in released)
        slow.go_on.set()
        (task,) = env.background._tasks
        assert await task > 0
        return released

    released = asyncio.run(scenario())
    assert {path.name: path.read_text() for path in (folder / "files" / "artifacts").iterdir()} == {
        digest: digest for digest in released
    }
    assert (folder / "covey.db").is_file()
    assert not env.retention.is_held
    assert not any(env.files.has(digest) for digest in released)


def test_a_coordinator_that_ends_leaves_no_backup_and_drops_nothing_that_is_being_copied(env, slow, tmp_path):
    held = sorted(env.store.store.referenced_digests())

    async def scenario():
        call = asyncio.create_task(backup.back_up(env, tmp_path / "monday"))
        await asyncio.to_thread(slow.begun.wait, 30)
        env.retention.drop(held)
        for task in (call, *env.background._tasks):  # as asyncio.run does at the end
            task.cancel()
        await asyncio.wait([call, *env.background._tasks])
        assert all(env.files.has(digest) for digest in held)
        slow.go_on.set()

    asyncio.run(scenario())  # waits for the thread that copies
    assert list((tmp_path / "monday").iterdir()) == []
    assert all(env.files.has(digest) for digest in held)


# -- restoring

KILLED = """
import sys
from pathlib import Path
from covey.coordinator.backup.backup import restore
restore(*map(Path, sys.argv[1:]))
"""


def test_a_restored_directory_is_the_backup_and_nobody_else_s_to_read(whole, tmp_path):
    for path in (whole, *whole.rglob("*")):  # as a copy from another machine may be
        path.chmod(0o755)
    backup.restore(whole, tmp_path / "restored")
    assert content(tmp_path / "restored") == content(whole)
    assert modes(tmp_path / "restored") == {0}
    check_folder(tmp_path / "restored")


@pytest.mark.parametrize("point", ["file-copied:1", "file-copied:3", "restored-entry:1", "restored-entry:4"])
@pytest.mark.parametrize("existing", [False, True])
def test_a_restore_that_was_killed_is_seen_and_given_again(whole, tmp_path, point, existing):
    data_dir = tmp_path / "restored"
    if existing:
        data_dir.mkdir(mode=0o755)
    environment = {**os.environ, "COVEY_FAULTS": point}
    killed = subprocess.run([sys.executable, "-c", KILLED, whole, data_dir], env=environment, timeout=60)
    assert killed.returncode == -9
    with pytest.raises(Conflict, match="was interrupted"):
        check_folder(data_dir)
    if not point.endswith("4"):
        assert not (data_dir / "covey.db").exists()
    backup.restore(whole, data_dir)
    assert content(data_dir) == content(whole)
    check_folder(data_dir)


def test_keys_are_nobody_else_s_at_any_moment(whole, tmp_path, monkeypatch):
    """Looked at after each block, with the loosest umask, in a data directory that others may look into."""
    (tmp_path / "restored").mkdir(mode=0o755)
    (tmp_path / "restored").chmod(0o755)
    write, seen = copies._write, []

    def watched(descriptor, block):
        write(descriptor, block)
        seen.append(os.fstat(descriptor).st_mode & 0o077)

    monkeypatch.setattr(copies, "_write", watched)
    before = os.umask(0)
    try:
        backup.restore(whole, tmp_path / "restored")
    finally:
        os.umask(before)
    assert set(seen) == {0}
    assert modes(tmp_path / "restored" / "keys") == {0}


def test_what_somebody_put_into_an_unfinished_restore_is_not_deleted(whole, tmp_path):
    data_dir = tmp_path / "restored"
    (data_dir / "unfinished-restore").mkdir(parents=True)
    (data_dir / "precious").write_text("")
    with pytest.raises(Conflict, match="is not empty; restore into a new folder"):
        backup.restore(whole, data_dir)
    assert (data_dir / "precious").exists()


def test_a_directory_in_use_is_not_restored_into(whole, env):
    before = content(env.data_dir)
    with pytest.raises(Conflict, match="is not empty; restore into a new folder"):
        backup.restore(whole, env.data_dir)
    assert content(env.data_dir) == before


def test_a_backup_is_not_restored_into_itself(whole):
    with pytest.raises(Conflict, match="is in the backup itself"):
        backup.restore(whole, whole / "new")


def test_what_the_system_refuses_is_said_and_leaves_nothing(whole, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(copies, "_write", full)
    with pytest.raises(Conflict, match=r"cannot be restored into .* \(No space left on device\): mend that"):
        backup.restore(whole, tmp_path / "restored")
    assert list((tmp_path / "restored").iterdir()) == []
    (tmp_path / "file").write_text("")
    for data_dir in (tmp_path / "file", tmp_path / "file" / "new"):
        with pytest.raises(Conflict, match=r"cannot be restored into .* \(Not a directory: .*file"):
            backup.restore(whole, data_dir)


def test_a_backup_of_an_older_version_without_the_note_is_restored(whole, tmp_path):
    (whole / "record.json").unlink()
    shutil.rmtree(whole / "files")
    backup.restore(whole, tmp_path / "restored")
    assert content(tmp_path / "restored") == content(whole)
