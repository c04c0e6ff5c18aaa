import pytest

from tests.unit.node.memory import Node
from tests.unit.node.served import ServedCoordinator


@pytest.fixture
async def node(tmp_path):
    node = Node(tmp_path)
    yield node
    await node.actor.stop()


@pytest.fixture
async def served(tmp_path, authority, identity):
    """A coordinator behind gRPC, which listens."""
    coordinator = ServedCoordinator(tmp_path / "coordinator", authority)
    server = await coordinator.start(identity("coordinator", "coordinator"))
    yield coordinator
    await server.stop(None)
