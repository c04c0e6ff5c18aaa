"""Real nodes of a coordinator have models from each other: same results, fewer bytes, whoever dies or lies."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from covey.node.models.ports import Lent, Shelf
from covey.node.operator.config import IDENTITY_FOLDER
from covey.node.peers.models.listener import ModelListener
from covey.testing.federation import Federation
from covey.testing.launch.ports import free_addresses
from covey.wire.identities.identity import Identity
from tests.integration.specs import spec

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]
MODEL_BYTES = 4 * (64 * 20_000 + 20_000 + 20_000 * 10 + 10)
"""Six chunks."""
ROUNDS = 3


def text_of(name: str, models: str, nodes: int) -> str:
    extra = f'[exchange]\nmodels = "{models}"'
    return spec(name, options="hidden = 20000", rounds=ROUNDS, min_nodes=nodes, training="local_steps = 1", extra=extra)


def started(federation: Federation, listening: list[int], env: dict[str, str] | None = None) -> None:
    """Start all; those that listen for others do so. The first one has the environment as well."""
    federation.start_coordinator()
    federation.join()
    addresses = free_addresses(len(federation.names))
    for index, address in enumerate(addresses):
        options = ["--peer-listen", address] if index in listening else []
        federation.start_node(index, options=options, env=env if index == 0 else None)
    federation.wait_connected(len(federation.names))


def test_the_coordinator_sends_one_model_a_round_and_the_result_is_the_same(tmp_path: Path) -> None:
    with Federation(tmp_path, nodes=4) as federation:
        started(federation, [0, 1, 2, 3])
        shas = {}
        sent = {}
        for models in ("coordinator", "peers"):
            run = federation.submit(text_of(models, models, 4))
            shas[models] = federation.wait(run, timeout_s=200)["model_sha256"]
            sent[models] = [one["bytes_sent"] for one in federation.rounds(run)][1:]  # the first is made from the seed
        assert shas["peers"] == shas["coordinator"]
        assert all(3.9 * MODEL_BYTES < count < 4.2 * MODEL_BYTES for count in sent["coordinator"])
        assert all(0.9 * MODEL_BYTES < count < 2.2 * MODEL_BYTES for count in sent["peers"]), sent
        where = ("--data-dir", federation.coordinator_dir)
        shown = json.loads(federation.cli("round", "show", run, str(ROUNDS), *where, "--json"))
        assert shown["bytes_sent"] == sent["peers"][-1]


def test_a_node_that_is_killed_while_it_gives_a_model(tmp_path: Path) -> None:
    with Federation(tmp_path, nodes=3) as federation:
        started(federation, [0, 1, 2], env={"COVEY_FAULTS": "model-chunk-out:4"})
        run = federation.submit(text_of("killed", "peers", 3))
        victim = federation.nodes[0]
        assert victim is not None
        victim.wait(150)
        federation.start_node(0)
        killed = federation.wait(run, timeout_s=200)["model_sha256"]
        undisturbed = federation.submit(text_of("undisturbed", "coordinator", 3))
        assert federation.wait(undisturbed, timeout_s=200)["model_sha256"] == killed


class Garbage(Shelf):
    """Lends a file of the right size for every digest."""

    def __init__(self, path: Path) -> None:
        self._path, self.times = path, 0
        with path.open("wb") as file:
            file.truncate(MODEL_BYTES + (1 << 19))

    @contextmanager
    def lend(self, digest: str) -> Iterator[Lent]:
        self.times += 1
        yield Lent(self._path)

    def check(self, digest: str) -> bool:
        return True


@contextmanager
def served(address: str, identity: Identity, shelf: Shelf) -> Iterator[None]:
    """A listener for other nodes that gives what a test says, in a thread."""
    ready, done = threading.Event(), threading.Event()

    async def serve() -> None:
        listener = ModelListener(address, lambda: identity, shelf)
        await listener.open()
        ready.set()
        await asyncio.to_thread(done.wait)
        await listener.close()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert ready.wait(60)
        yield
    finally:
        done.set()
        thread.join()


def test_a_node_that_gives_wrong_bytes_is_named_and_not_used_again(tmp_path: Path) -> None:
    with Federation(tmp_path, nodes=3) as federation:
        federation.start_coordinator()
        federation.join()
        liar, own = free_addresses(2)
        shelf = Garbage(tmp_path / "garbage")
        identity = Identity.load(federation.node_dir(0) / IDENTITY_FOLDER)
        with served(liar, identity, shelf):
            federation.start_node(0, options=["--peer-listen", own, "--peer-advertise", liar])
            federation.start_node(1)
            federation.start_node(2)
            federation.wait_connected(3)
            run = federation.submit(text_of("lied-to", "peers", 3))
            lied_to = federation.wait(run, timeout_s=200)["model_sha256"]
        where = ("--data-dir", federation.coordinator_dir)
        events = json.loads(federation.cli("events", *where, "--run", run, "--json"))
        named = [event for event in events if event["kind"] == "wrong-model-bytes"]
        assert [event["node"] for event in named] == ["n0"]
        assert named[0]["detail"]["to"] in ("n1", "n2")
        assert 1 <= shelf.times <= 4  # of each of the two that had been sent there, at most
        honest = federation.submit(text_of("honest", "coordinator", 3))
        assert federation.wait(honest, timeout_s=200)["model_sha256"] == lied_to
