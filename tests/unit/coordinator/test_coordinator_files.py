"""A coordinator whose models last at an address: a run in its rounds, the address away, and which address it may be."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
from concurrent.futures import TimeoutError as TooLate
from typing import Any

import pytest

from covey import messages as msg
from covey.artifact import artifact_of
from covey.coordinator.backup.artifacts_address import FILE, noted_address
from covey.coordinator.backup.ownership import SETTING
from covey.coordinator.config import CoordinatorConfig
from covey.coordinator.files import open_files
from covey.errors import Conflict, Fenced, Obstructed
from covey.storage.files.address import Address
from covey.storage.files.artifacts import ArtifactFiles
from covey.storage.files.distant import DistantFiles
from covey.storage.sql.store import open_store
from tests.unit.coordinator.world import UPDATES, World


@pytest.fixture
async def world(tmp_path):
    """With little room on its own disk."""
    address = Address(f"file://{tmp_path}/there")
    address.claim("record", "me")
    files = DistantFiles(tmp_path / "files", address, 300)
    world = World(tmp_path, "ada", "bob", files=files)
    yield world
    await world.close()


@pytest.mark.parametrize("mode", ["rounds", "async"])
async def test_a_run_waits_for_an_address_that_is_away_and_says_so(world, mode):
    world.submit(count=6, **({"mode": UPDATES} if mode == "async" else {}))
    active, task = world.execute("run")
    await world.nodes.until(lambda: world.nodes.got(msg.Assignment))
    place, away = world.folder / "there", world.folder / "away"
    place.rename(away)
    place.write_bytes(b"no folder")
    nodes = asyncio.create_task(world.work("run"))
    for _ in range(60_000):
        if "there" in active.awaited:
            break
        await asyncio.sleep(0.001)
    assert active.awaited.startswith(f"waiting: file://{world.folder}/there")
    assert world.record.version("run", -1).version == 0
    place.unlink()
    away.rename(place)
    await nodes
    await task
    assert world.record.run("run").state == "completed"
    newest = world.record.version("run", -1)
    assert newest.version == 6
    world.files.tidy()
    assert set(world.files._address.sizes()) == world.record.referenced_digests("version")
    assert newest.artifact.digest in world.files._address.sizes()


class Slow(Address):
    """Gives a file when the record's thread has done something else meanwhile."""

    def __init__(self, url):
        super().__init__(url)
        self.got, self.blocked, self.loop = [], [], asyncio.get_running_loop()
        self.store: Any = None

    def get(self, digest, target):
        try:
            asyncio.run_coroutine_threadsafe(self.store.call(int), self.loop).result(20)
        except TooLate:
            self.blocked.append(digest)
        self.got.append(digest)
        return super().get(digest, target)


@pytest.mark.parametrize("mode", ["rounds", "async"])
async def test_the_record_goes_on_while_files_come_from_the_address(tmp_path, mode):
    address = Address(f"file://{tmp_path}/there")
    address.claim("record", "me")
    world = World(tmp_path, "ada", "bob", files=DistantFiles(tmp_path / "files", address))
    world.submit(count=3, **({"mode": UPDATES} if mode == "async" else {}))
    active, _ = world.execute("run")
    await world.nodes.until(lambda: len(world.nodes.got(msg.Assignment)) == 2)
    for node, assignment in list(world.nodes.sent)[: 1 if mode == "async" else 2]:
        await world.answer(active, node, assignment)  # in `async`, the other goes on from an older version
    while active.newest().version == 0:
        await world.changed(active)
    await world.close()
    slow = Slow(address.url)
    again = World(tmp_path, "ada", "bob", files=DistantFiles(tmp_path / "another disk", slow))
    again.keys, slow.store = world.keys, again.store
    try:
        _, task = again.execute("run")
        await asyncio.gather(task, again.work("run"))
        assert again.record.run("run").state == "completed"
        needed = {again.record.version("run", number).artifact.digest for number in range(mode == "rounds", 2)}
        assert needed <= set(slow.got)
        assert slow.blocked == []
    finally:
        await again.close()


def started(folder, url, record="one"):
    store = open_store(f"sqlite:///{folder / 'covey.db'}")
    store.set_setting(SETTING, record)
    try:
        return open_files(CoordinatorConfig(folder, artifacts=url), store)
    finally:
        store.close()


def test_a_coordinator_goes_on_at_its_own_address_only(tmp_path):
    home, other = tmp_path / "here", tmp_path / "other"
    home.mkdir()
    other.mkdir()
    url, moved = f"file://{tmp_path}/there", f"file://{tmp_path}/moved"
    assert type(started(home, None)) is ArtifactFiles
    assert noted_address(home) is None
    assert isinstance(started(home, url), DistantFiles)
    with pytest.raises(Conflict, match=f"give --artifacts {url}"):
        started(home, None)
    with pytest.raises(Conflict, match="another record"):
        started(other, url, "two")
    with pytest.raises(Conflict, match="copy all that is at the address"):
        started(home, moved)
    noted = noted_address(home)
    assert noted is not None
    assert noted.url == url
    (tmp_path / "there").rename(tmp_path / "moved")
    assert isinstance(started(home, moved), DistantFiles)
    (tmp_path / "moved").rename(tmp_path / "away")
    (tmp_path / "moved").write_bytes(b"no folder")
    with pytest.raises((Conflict, Obstructed), match="moved"):
        started(home, moved)
    (home / FILE).write_bytes(b"{}")
    with pytest.raises(Conflict, match=FILE):
        started(home, moved)


def a_model(files, number):
    artifact, path = artifact_of([bytes([number]) * 10]), files.scratch(10)
    path.write_bytes(bytes([number]) * 10)
    files.adopt(path, artifact)
    return artifact.digest


def test_of_two_folders_with_one_record_only_one_has_the_address(tmp_path):
    home, restored, copied = (tmp_path / name for name in ("home", "restored", "copied"))
    home.mkdir()
    restored.mkdir()
    url, mark = f"file://{tmp_path}/there", tmp_path / "there" / "artifacts.json"
    files = started(home, url)
    models = {a_model(files, number) for number in range(3)}
    with pytest.raises(Conflict, match="of its own: a restored backup is whole"):
        started(restored, url)
    assert noted_address(restored) is None
    assert set(Address(url).sizes()) == models
    models.add(a_model(files, 3))  # the one that runs is not disturbed

    shutil.copytree(home, copied)
    taken = started(copied, url)
    with pytest.raises(Fenced):
        a_model(files, 4)
    for _ in range(3):  # however often it is started
        with pytest.raises(Conflict, match="another data directory's"):
            started(home, url)
    a_model(taken, 5)

    mark.write_text(json.dumps({"record": "one"}))  # as the error says
    assert isinstance(started(restored, url), DistantFiles)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_start_that_is_cut_off_does_not_lose_the_address(tmp_path, monkeypatch, when):
    url, claim = f"file://{tmp_path}/there", Address.claim

    def cut_off(address, record, holder):
        if when == "after":
            claim(address, record, holder)
        raise Obstructed("away")

    for _ in range(2):
        with monkeypatch.context() as patched:
            patched.setattr(Address, "claim", cut_off)
            for _ in range(2):
                with contextlib.suppress(Obstructed):
                    started(tmp_path, url)
        assert isinstance(started(tmp_path, url), DistantFiles)
