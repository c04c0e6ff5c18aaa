"""Files that last at an address: there before they are counted on, and brought back whole, or not at all."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import pytest

from covey.artifact import Artifact, artifact_of
from covey.errors import Conflict, DiskFull, Fenced, NotFound, Obstructed
from covey.storage.files import address as addresses
from covey.storage.files.address import Address, reached
from covey.storage.files.check import check_files
from covey.storage.files.distant import DistantFiles

KIB = 1024


def model(number: int, size: int = KIB) -> tuple[Artifact, bytes]:
    data = bytes([number]) * size
    return artifact_of([data]), data


@pytest.fixture
def address(unclaimed: Address) -> Address:
    unclaimed.claim("record", "me")
    return unclaimed


@pytest.fixture(params=["file", "memory", "s3"])
def unclaimed(request: pytest.FixtureRequest, tmp_path: Path) -> Address:
    """An empty place of each kind; of S3 where `COVEY_TEST_S3` names one (`s3://BUCKET`)."""
    if request.param == "s3":
        if not (bucket := os.environ.get("COVEY_TEST_S3")):
            pytest.skip("COVEY_TEST_S3 names no bucket of an S3 server")
        return Address(f"{bucket}/{uuid.uuid4().hex}")
    return Address(f"file://{tmp_path}/there" if request.param == "file" else f"memory://{uuid.uuid4().hex}")


@pytest.fixture
def folder(tmp_path: Path) -> Address:
    address = Address(f"file://{tmp_path}/there")
    address.claim("record", "me")
    return address


def opened(tmp_path: Path, address: Address, quota_bytes: int | None = None) -> DistantFiles:
    return DistantFiles(tmp_path / "files", address, quota_bytes)


def adopt(files: DistantFiles, number: int) -> str:
    artifact, data = model(number)
    path = files.scratch(artifact.size_bytes)
    path.write_bytes(data)
    files.adopt(path, artifact)
    return artifact.digest


def overwrite(address: Address, digest: str, content: bytes) -> None:
    with reached(address.url) as (system, root):
        system.pipe_file(f"{root}/artifacts/{digest}", content)


def test_a_file_is_there_before_it_is_adopted_and_comes_back_checked(tmp_path, address):
    files = opened(tmp_path, address)
    artifact, data = model(1)
    path = files.scratch(artifact.size_bytes)
    path.write_bytes(data)
    files.secure(artifact, path)
    assert address.sizes() == {artifact.digest: KIB}
    assert not files.path(artifact.digest).exists()
    files.adopt(path, artifact)
    again = opened(tmp_path / "another disk", address)
    assert again.has(artifact.digest)
    assert not again.path(artifact.digest).exists()
    assert again.size(artifact.digest) == KIB
    assert again.check(artifact.digest)
    assert again.path(artifact.digest).read_bytes() == data
    assert b"".join(address.chunks(artifact.digest)) == data
    assert again.begin(artifact).finished  # a node need not send it


def test_damage_on_either_side_is_found_and_healed_from_the_other(tmp_path, address):
    files, digest = opened(tmp_path, address), ""
    digest = adopt(files, 1)
    files.path(digest).write_bytes(b"x" * KIB)
    assert opened(tmp_path, address).check(digest)
    assert files.path(digest).read_bytes() == model(1)[1]
    overwrite(address, digest, b"y" * KIB)
    needed = {digest}
    assert check_files(files.path(digest).parent, lambda: needed, address) == [
        f"file {digest} is damaged at {address.url}: its content has another digest"
    ]
    elsewhere = opened(tmp_path / "another disk", address)
    assert not elsewhere.check(digest)
    assert not elsewhere.has(digest)
    assert adopt(elsewhere, 1) == digest  # it is written anew
    assert check_files(files.path(digest).parent, lambda: needed, address) == []
    files.path(digest).unlink()
    assert check_files(files.path(digest).parent, lambda: needed, address) == []
    address.drop(digest)
    assert check_files(files.path(digest).parent, lambda: needed, address) == [f"file {digest} is gone"]


def test_what_is_here_is_a_cache_bounded_in_bytes(tmp_path, folder):
    files = opened(tmp_path, folder, 3 * KIB)
    first, second, third = (adopt(files, number) for number in (1, 2, 3))
    assert files.check(first)  # the second is the one that was not used for longest
    files.hold("a run", [second])
    fourth = adopt(files, 4)
    assert [files.path(digest).exists() for digest in (first, second, third, fourth)] == [True, True, False, True]
    assert files.bytes_used == 3 * KIB
    assert files.free_bytes() == 2 * KIB  # all but what the run reads
    for digest in (third, first, second):
        assert files.check(digest)
        assert files.bytes_used <= 3 * KIB
    update, data = model(5, 2 * KIB)
    files.put(update, data)  # of which the address knows nothing: it stays
    assert files.path(second).exists()
    with pytest.raises(DiskFull):
        files.scratch(KIB)
    files.hold("a run", ())
    files.scratch(KIB)
    assert not files.path(second).exists()
    assert set(folder.sizes()) == {first, second, third, fourth}


def test_what_is_let_go_is_deleted_there_later(tmp_path, address):
    files = opened(tmp_path, address)
    gone, kept = adopt(files, 1), adopt(files, 2)
    files.release([gone])
    assert not files.has(gone)
    assert set(address.sizes()) == {gone, kept}
    files.tidy()
    assert set(address.sizes()) == {kept}
    files.release([kept])
    assert adopt(files, 2) == kept  # wanted again meanwhile
    files.tidy()
    assert set(address.sizes()) == {kept}


def test_a_start_drops_what_the_record_does_not_name_and_sends_what_it_does(tmp_path, folder):
    files = opened(tmp_path, folder)
    gone, kept = adopt(files, 1), adopt(files, 2)
    (tmp_path / "there" / "artifacts" / f"{kept}.0{addresses.PART}").write_bytes(b"half")
    only_here, data = model(3)
    files.put(only_here, data)
    again = opened(tmp_path, folder)
    again.clean({kept, only_here.digest})
    assert again.send([kept, only_here.digest, "0" * 64]) == 1
    again.tidy()
    assert {path.name for path in (tmp_path / "there" / "artifacts").iterdir()} == {kept, only_here.digest}
    assert not again.has(gone)


def test_an_address_that_is_away_is_an_obstacle_and_nothing_else(tmp_path, folder):
    files = opened(tmp_path, folder)
    old, dropped = adopt(files, 1), adopt(files, 2)
    files.path(old).unlink()
    place, away = tmp_path / "there", tmp_path / "away"
    place.rename(away)
    place.write_bytes(b"no folder")
    artifact, data = model(3)
    path = files.scratch(artifact.size_bytes)
    path.write_bytes(data)
    for refused in (lambda: files.adopt(path, artifact), lambda: files.check(old), folder.sizes):
        with pytest.raises(Obstructed, match=r"cannot be reached|no such bucket"):
            refused()
    files.release([dropped])
    files.tidy()
    place.unlink()
    away.rename(place)
    files.adopt(path, artifact)
    assert files.check(old)
    files.tidy()
    assert set(folder.sizes()) == {old, artifact.digest}
    with pytest.raises(NotFound, match="is gone"):
        files.secure(model(4)[0], tmp_path / "nothing")


def test_an_address_has_one_owner(unclaimed):
    with pytest.raises(Conflict, match="is it mounted"):
        unclaimed.holder("record-1", new=False)
    assert unclaimed.holder("record-1", new=True) == ""
    unclaimed.claim("record-1", "me")
    assert unclaimed.holder("record-1", new=False) == "me"
    with pytest.raises(Conflict, match="another record"):
        unclaimed.holder("record-2", new=True)
    with reached(unclaimed.url) as (system, root):
        system.pipe_file(f"{root}/artifacts.json", b"{}")
    with pytest.raises(Conflict, match="cannot be read"):
        unclaimed.holder("record-1", new=False)
    with reached(unclaimed.url) as (system, root):
        system.rm_file(f"{root}/artifacts.json")
    overwrite(unclaimed, "0" * 64, b"somebody's")
    with pytest.raises(Conflict, match="says whose"):
        unclaimed.holder("record-1", new=True)


def test_who_lost_an_address_neither_writes_nor_deletes_there(tmp_path, address):
    files = opened(tmp_path, address)
    kept, dropped = adopt(files, 1), adopt(files, 2)
    Address(address.url).claim("record", "another")
    with pytest.raises(Fenced, match="stop one of the two"):
        adopt(files, 3)
    files.release([dropped])
    files.tidy()
    with pytest.raises(Fenced):
        files.clean(set())
    assert set(Address(address.url).sizes()) == {kept, dropped}


class HeldMeanwhile(DistantFiles):
    """Somebody begins to read a file while others make room for the next."""

    reads = ""

    @property
    def bytes_used(self) -> int:
        if self.reads and len(list(self._artifacts.iterdir())) < 3:
            self.hold("a run", [self.reads])
        return super().bytes_used


def test_a_file_that_is_held_while_room_is_made_stays(tmp_path, folder):
    files = HeldMeanwhile(tmp_path / "files", folder, 3 * KIB)
    first, second, third = (adopt(files, number) for number in (1, 2, 3))
    files.reads = second
    files.scratch(2 * KIB)
    assert [files.path(digest).exists() for digest in (first, second, third)] == [False, True, False]


class LetGoMeanwhile(Address):
    """A file is let go while it comes."""

    files: DistantFiles

    def get(self, digest: str, target: Path) -> bool:
        is_there = super().get(digest, target)
        self.files.release([digest])
        self.files.tidy()
        return is_there


def test_a_file_that_is_let_go_while_it_comes_does_not_stay(tmp_path, folder):
    digest = adopt(opened(tmp_path / "another disk", folder), 1)
    address = LetGoMeanwhile(folder.url)
    address.files = files = DistantFiles(tmp_path / "files", address, KIB)
    assert not files.check(digest)
    assert not files.has(digest)
    assert files.path(digest).parent.exists()
    files.scratch(KIB)  # there is room


def test_an_address_of_no_known_kind_is_refused():
    with pytest.raises(NotFound, match="no address that is known"):
        Address("nothing-of-the-kind://x").sizes()
