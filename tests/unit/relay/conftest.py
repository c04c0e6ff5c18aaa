import asyncio
import contextlib

import pytest

from covey.relay.server import RelayServer
from covey.wire.identities.authority import Authority


@pytest.fixture
async def relay(authority):
    """A relay, and how to connect to it: `relay.open()`."""
    made = Opened(RelayServer(authority.pem))
    made.port = await made.server.start("127.0.0.1", 0)
    yield made
    await made.server.stop()
    for writer in made.writers:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


class Opened:
    def __init__(self, server):
        self.server, self.port, self.writers = server, 0, []

    async def open(self):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.writers.append(writer)
        return reader, writer


@pytest.fixture
def foreign(tmp_path):
    return Authority.open(tmp_path / "foreign")
