"""Backups at another address: sent once, taken back whole, and nothing half done counts."""

from __future__ import annotations

import importlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from covey.artifact import artifact_of
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


@pytest.fixture(params=["file", "memory", "s3"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty place of each kind; of S3 where `COVEY_TEST_S3` names one (`s3://BUCKET`)."""
    if request.param == "s3":
        if not (bucket := os.environ.get("COVEY_TEST_S3")):
            pytest.skip("COVEY_TEST_S3 names no bucket of an S3 server")
        return f"{bucket}/{tmp_path.name}"
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
