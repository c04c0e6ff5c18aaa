"""The process around the actor: what ends it, with which exit code."""

import asyncio
from dataclasses import replace

import pytest

from covey import messages as msg
from covey.errors import StoreError
from covey.node.daemon import RENEWED, NodeDaemon
from covey.node.operator.config import NodeConfig
from covey.node.operator.metrics import NodeMetrics
from tests.unit.node.served import WELCOME


@pytest.fixture
def daemon(served, identity, tmp_path):
    def daemon(**days):
        own = identity("n0", **days)
        config = NodeConfig(tmp_path / "home", device="cpu", server=served.address)
        (tmp_path / "home").mkdir()
        (tmp_path / "home" / "identity").symlink_to(next(tmp_path.glob("node-n0-*")))
        return NodeDaemon(config, own, NodeMetrics())

    return daemon


async def ended(daemon, stop=None):
    return await asyncio.wait_for(daemon.run(stop or asyncio.Event()), 60)


async def test_it_says_hello_again_once_its_worker_knows_its_device_and_ends_when_told(served, daemon):
    stop, node = asyncio.Event(), daemon()
    work = asyncio.create_task(ended(node, stop))
    await served.hears(2)
    assert node.connected
    stop.set()
    assert await work == 0
    assert [(type(hello), hello.wire) for hello in served.heard] == [(msg.Hello, msg.WIRE)] * 2
    assert served.heard[0].tasks == ("digits", "idx-images", "characters", "synthetic", "grid-world")


@pytest.mark.parametrize("script", [[replace(WELCOME, wire=1)], [WELCOME, msg.Goodbye("evicted", "by an admin")]])
async def test_it_ends_with_an_error_where_coming_back_would_not_help(served, daemon, script):
    served.scripts = [script]
    assert await ended(daemon()) == 1


async def test_it_ends_to_go_on_with_a_new_certificate(served, daemon):
    assert await ended(daemon(days=30)) == RENEWED


async def test_with_a_damaged_record_it_does_not_start_and_deletes_nothing(daemon):
    before = daemon()
    home = before._config.data_dir
    kept = home / "files" / "artifacts" / ("0" * 64)
    kept.write_bytes(b"this node's own tensors")
    (home / "state" / "carried.json").write_text("half")
    with pytest.raises(StoreError, match="move it away"):
        NodeDaemon(before._config, before._identity, NodeMetrics())
    assert kept.read_bytes() == b"this node's own tensors"
