import pytest

from tests.unit.coordinator.world import World


@pytest.fixture
async def world(tmp_path):
    """Two nodes, `ada` and `bob`, are enrolled and connected."""
    world = World(tmp_path, "ada", "bob")
    yield world
    await world.close()
