"""A coordinator whose models last at an address: a run in its rounds, the address away, and which address it may be."""

from __future__ import annotations

import asyncio

import pytest

from covey import messages as msg
from covey.coordinator.backup.artifacts_address import FILE, noted_address
from covey.coordinator.backup.ownership import SETTING
from covey.coordinator.config import CoordinatorConfig
from covey.coordinator.files import open_files
from covey.errors import Conflict, Obstructed
from covey.storage.files.address import Address
from covey.storage.files.artifacts import ArtifactFiles
from covey.storage.files.distant import DistantFiles
from covey.storage.sql.store import open_store
from tests.unit.coordinator.world import UPDATES, World


@pytest.fixture
async def world(tmp_path):
    """With little room on its own disk."""
    address = Address(f"file://{tmp_path}/there")
    address.claim("record", new=True)
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
