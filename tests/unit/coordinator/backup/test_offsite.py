"""Backups at another address: sent once, taken back whole, and nothing half done counts."""

from __future__ import annotations

import datetime as dt
import importlib
import json
import os
import re
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from covey.artifact import CHUNK_BYTES, artifact_of
from covey.cli.main import covey
from covey.coordinator.backup.backup import FILES
from covey.coordinator.backup.offsite import MANIFEST, pull, push
from covey.coordinator.config import DATABASE
from covey.errors import Conflict, NotFound, StoreError

fsspec: Any = importlib.import_module("fsspec")


def digest_of(content: bytes) -> str:
    return artifact_of([content]).digest


def backup(folder: Path, *contents: bytes) -> Path:
    """A folder as `covey coordinator backup` makes it, with these model files."""
    (folder / FILES).mkdir(parents=True)
    (folder / "keys").mkdir()
    (folder / "keys" / "authority.key").write_bytes(b"secret")
    (folder / DATABASE).write_bytes(b"record of " + folder.name.encode())
    for content in contents:
        (folder / FILES / digest_of(content)).write_bytes(content)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(autouse=True)
def umask() -> Iterator[None]:
    """A loose one; what a command sets is not the next test's."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture(params=["file", "memory", "s3"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty place of each kind; of S3 where `COVEY_TEST_S3` names one (`s3://BUCKET`)."""
    if request.param == "s3":
        if not (bucket := os.environ.get("COVEY_TEST_S3")):
            pytest.skip("COVEY_TEST_S3 names no bucket of an S3 server")
        return f"{bucket}/{uuid.uuid4().hex}"
    return f"file://{tmp_path}/away" if request.param == "file" else f"memory://{tmp_path.name}"


def test_what_is_there_is_not_sent_again_and_comes_back_whole(address: str, tmp_path: Path) -> None:
    monday, tuesday = backup(tmp_path / "monday", b"a", b"b"), backup(tmp_path / "tuesday", b"b", b"c")
    assert push(monday, address).files == 4
    assert push(tuesday, address).files == 3  # record, key, and the file c
    assert pull(address, tmp_path / "newest").name == "tuesday"
    assert contents(tmp_path / "newest") == contents(tuesday)
    pull(address, tmp_path / "named", "monday")
    assert contents(tmp_path / "named") == contents(monday)
    assert (tmp_path / "named" / "keys" / "authority.key").stat().st_mode & 0o777 == 0o600
    with pytest.raises(Conflict, match="has a backup 'monday' already"):
        push(monday, address)
    with pytest.raises(Conflict, match="is not empty"):
        pull(address, tmp_path / "named")
    with pytest.raises(NotFound, match="no backup 'friday'; it has: monday, tuesday"):
        pull(address, tmp_path / "friday", "friday")


def test_older_ones_go_with_what_only_they_needed(address: str, tmp_path: Path) -> None:
    push(backup(tmp_path / "monday", b"a", b"b"), address)
    push(backup(tmp_path / "tuesday", b"b", b"c"), address, keep=1)
    system, root = fsspec.core.url_to_fs(address)
    system.invalidate_cache()
    names = {path.rpartition("/")[2] for path in system.find(f"{root}/files")}
    assert names == {digest_of(content) for content in (b"b", b"c")}
    with pytest.raises(NotFound, match="it has: tuesday"):
        pull(address, tmp_path / "again", "monday")
    pull(address, tmp_path / "newest")


def test_what_broke_off_is_no_backup_and_is_given_again(address: str, tmp_path: Path) -> None:
    system, root = fsspec.core.url_to_fs(address)
    folder = backup(tmp_path / "monday", b"a", b"b")
    push(folder, address)
    system.rm_file(f"{root}/backups/monday/{MANIFEST}")
    system.pipe_file(f"{root}/files/{digest_of(b'a')}", b"")  # half of it
    with pytest.raises(NotFound, match="it has: none"):
        pull(address, tmp_path / "early")
    assert push(folder, address).files == 3  # a, record, key
    pull(address, tmp_path / "late")
    assert contents(tmp_path / "late") == contents(folder)


def test_what_is_damaged_or_hostile_is_refused(tmp_path: Path) -> None:
    address, folder = f"file://{tmp_path}/away", backup(tmp_path / "monday", b"a")
    digest = digest_of(b"a")
    (folder / FILES / digest).write_bytes(b"x")
    with pytest.raises(StoreError, match="is damaged"):
        push(folder, address)
    (folder / FILES / digest).write_bytes(b"a")
    push(folder, address)
    (tmp_path / "away" / "files" / digest).write_bytes(b"x")
    with pytest.raises(StoreError, match="is damaged"):
        pull(address, tmp_path / "damaged")
    assert not (tmp_path / "damaged" / DATABASE).exists()
    (tmp_path / "away" / "files" / digest).write_bytes(b"a")
    manifest = tmp_path / "away" / "backups" / "monday" / MANIFEST
    fields = json.loads(manifest.read_text())
    for path in ("../../escaped", "/tmp/escaped"):
        manifest.write_text(json.dumps(fields | {"others": {path: digest}}))
        with pytest.raises(StoreError, match="names the path"):
            pull(address, tmp_path / f"hostile-{len(path)}")
    manifest.write_text("{}")
    with pytest.raises(StoreError, match="cannot be read"):
        pull(address, tmp_path / "unreadable")


def test_places_that_cannot_be_reached_are_named(tmp_path: Path) -> None:
    folder = backup(tmp_path / "monday", b"a")
    with pytest.raises(NotFound, match="nothing://x"):
        push(folder, "nothing://x")
    with pytest.raises(NotFound, match="is not a backup"):
        push(tmp_path, f"file://{tmp_path}/away")
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot be reached"):
        push(folder, f"file://{tmp_path}/file/under")
    (folder / FILES / "notes.txt").touch()
    with pytest.raises(StoreError, match="without a digest as its name"):
        push(folder, f"file://{tmp_path}/away")
    (folder / FILES).rename(folder / "elsewhere")
    with pytest.raises(NotFound, match="it has no folder files/artifacts"):
        push(folder, f"file://{tmp_path}/away")


def test_nobody_else_may_read_what_was_pushed_to_a_folder(tmp_path: Path) -> None:
    folder = backup(tmp_path / "monday", b"a")
    done = CliRunner().invoke(covey, ["store", "push", str(folder), "--to", f"file://{tmp_path}/away"])
    assert done.exit_code == 0, done.output
    pushed = [path for path in (tmp_path / "away").rglob("*") if path.is_file()]
    assert len(pushed) == 4
    assert {path.stat().st_mode & 0o077 for path in (tmp_path / "away", *pushed)} == {0}


def test_a_manifest_that_cannot_be_read_is_named_and_harms_no_other_backup(tmp_path: Path) -> None:
    address, away = f"file://{tmp_path}/away", tmp_path / "away"
    push(backup(tmp_path / "monday", b"a"), address)
    push(backup(tmp_path / "tuesday", b"b"), address)
    manifest = away / "backups" / "tuesday" / MANIFEST
    whole = manifest.read_text()
    fields = json.loads(whole)
    for bad in (whole[:20], json.dumps(fields | {"made_at": "2030-01-01T00:00:00"}), json.dumps(fields | {"more": 1})):
        manifest.write_text(bad)
        named = rf"tuesday/{MANIFEST} cannot be read .*delete the folder tuesday there"
        again = tmp_path / f"again-{len(bad)}"
        assert pull(address, again / "monday", "monday").warnings == ()
        newest = pull(address, again / "newest")
        assert newest.name == "monday"
        assert re.search(named, newest.warnings[0])
        for command in (
            lambda: pull(address, tmp_path / "bad", "tuesday"),
            lambda: push(tmp_path / "tuesday", address),
        ):
            with pytest.raises(StoreError, match=named):
                command()
    kept = contents(away)
    done = CliRunner().invoke(
        covey, ["store", "push", str(backup(tmp_path / "friday", b"c")), "--to", address, "--keep", "1", "--json"]
    )
    assert done.exit_code == 0
    assert json.loads(done.stdout)["backup"] == "friday"
    assert f"tuesday/{MANIFEST} cannot be read" in done.stderr
    assert "nothing was deleted" in done.stderr
    assert contents(away).items() >= kept.items()


def test_a_push_that_ends_within_its_manifest_is_given_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address, folder = f"file://{tmp_path}/away", backup(tmp_path / "monday", b"a")
    kind = type(fsspec.filesystem("file"))
    pipe = kind.pipe_file

    def ends_half_way(system: Any, path: str, value: bytes, **options: Any) -> None:
        pipe(system, path, value[: len(value) // 2], **options)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(kind, "pipe_file", ends_half_way)
        with pytest.raises(KeyboardInterrupt):
            push(folder, address)
    with pytest.raises(NotFound, match="it has: none"):
        pull(address, tmp_path / "early")
    push(folder, address)
    pull(address, tmp_path / "late")
    assert contents(tmp_path / "late") == contents(folder)


def test_what_was_just_pushed_stays_whatever_the_clocks_say(address: str, tmp_path: Path) -> None:
    push(backup(tmp_path / "monday", b"a"), address)
    push(backup(tmp_path / "tuesday", b"b"), address)
    system, root = fsspec.core.url_to_fs(address)
    manifest = f"{root}/backups/monday/{MANIFEST}"
    fields = json.loads(system.cat_file(manifest))
    later = (dt.datetime.now(dt.UTC) + dt.timedelta(days=400)).isoformat()
    system.pipe_file(manifest, json.dumps(fields | {"made_at": later}).encode())
    (warning,) = push(backup(tmp_path / "friday", b"c"), address, keep=2).warnings
    assert "is older than monday: see to the clocks" in warning
    with pytest.raises(NotFound, match=r"it has: friday, monday$"):
        pull(address, tmp_path / "gone", "tuesday")
    push(backup(tmp_path / "sunday", b"d"), address, keep=1)
    assert pull(address, tmp_path / "again").name == "sunday"
    assert contents(tmp_path / "again") == contents(tmp_path / "sunday")


def test_what_no_manifest_names_is_swept_when_it_is_old_and_ours(tmp_path: Path) -> None:
    address, away = f"file://{tmp_path}/away", tmp_path / "away"
    left = {name: backup(away / "backups" / name) for name in ("killed", "pushing", "others")}
    for folder in left.values():
        (folder / FILES).rmdir()
    (left["others"] / "notes.txt").touch()
    (away / "files").mkdir()
    killed, pushing, foreign = (away / "files" / name for name in (digest_of(b"k"), digest_of(b"p"), "letter.txt"))
    for path in (killed, pushing, foreign):
        path.touch()
    long_ago = time.time() - 2 * 86_400
    for path in (killed, foreign, *left["killed"].rglob("*"), *left["others"].rglob("*")):
        os.utime(path, (long_ago, long_ago))
    os.utime(left["pushing"] / DATABASE, (long_ago, long_ago))
    push(backup(tmp_path / "monday", b"a"), address)
    assert killed.exists()
    assert push(backup(tmp_path / "tuesday", b"b"), address, keep=2).warnings == ()
    assert {path.name for path in (away / "backups").iterdir()} == {"monday", "tuesday", "pushing", "others"}
    names = {digest_of(b"a"), digest_of(b"b"), pushing.name, foreign.name}
    assert {path.name for path in (away / "files").iterdir()} == names
    for name in ("monday", "tuesday"):
        pull(address, tmp_path / "again" / name, name)


def test_everything_is_on_the_disk_before_the_record_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, folder = f"file://{tmp_path}/away", tmp_path / "again"
    push(backup(tmp_path / "monday", b"a"), address)
    synced: set[int] = set()
    sync = os.fsync

    def watched(descriptor: int) -> None:
        sync(descriptor)
        if not (folder / DATABASE).exists():
            synced.add(os.fstat(descriptor).st_ino)

    monkeypatch.setattr(os, "fsync", watched)
    pull(address, folder)
    assert synced == {path.stat().st_ino for path in (folder, *folder.rglob("*"))}


def test_damage_of_the_same_size_is_found_and_mended_by_verify(address: str, tmp_path: Path) -> None:
    model = os.urandom(CHUNK_BYTES + 1)
    digest = artifact_of([model[:CHUNK_BYTES], model[CHUNK_BYTES:]]).digest
    for name in ("monday", "tuesday", "friday"):
        (backup(tmp_path / name, b"a") / FILES / digest).write_bytes(model)
    push(tmp_path / "monday", address)
    system, root = fsspec.core.url_to_fs(address)
    system.pipe_file(f"{root}/files/{digest}", model[:-1] + bytes([model[-1] ^ 1]))
    assert push(tmp_path / "tuesday", address).files == 2  # record, key
    with pytest.raises(StoreError, match=r"is damaged: .* with --verify"):
        pull(address, tmp_path / "damaged", "tuesday")
    moved = push(tmp_path / "friday", address, verify=True)
    assert moved.files == 3
    assert moved.warnings == (f"the file {digest} there was damaged, and was sent again",)
    for name in ("monday", "tuesday", "friday"):
        pull(address, tmp_path / "again" / name, name)
