import pytest

from tests.unit.node.peers.swarm import Swarm


@pytest.fixture
async def small(identity, tmp_path):
    """A run whose bodies come along with their offers."""
    async with Swarm(identity, tmp_path, 1000) as made:
        yield made


@pytest.fixture
async def large(identity, tmp_path):
    """A run whose bodies take three chunks, the last one short."""
    async with Swarm(identity, tmp_path, (2 << 20) + 5) as made:
        yield made
