from __future__ import annotations

import pytest

from covey import messages as msg
from covey.artifact import Artifact, artifact_of
from covey.errors import NotFound
from covey.simulation.files import CoordinatorFiles, NodeFiles
from covey.simulation.nodes import MemoryBulk, VirtualSessions, download_bytes
from covey.simulation.plan import names_of
from covey.testing.federation import Federation

NEW, OLD = "a" * 64, "b" * 64


@pytest.mark.parametrize("nodes", [1, 4, 10, 11, 101])
def test_names_are_those_of_a_federation_for_tests_and_sort_by_number(tmp_path, nodes):
    names = names_of(nodes)
    assert tuple(names) == Federation(tmp_path, nodes=nodes).names
    assert names == sorted(names)


def message(version=3, *, size=1000, data=b"", change=False, change_data=b""):
    part = msg.Change(Artifact("c" * 64, 40, b""), OLD, change_data) if change else None
    model = Artifact(NEW, size, b"")
    return msg.Assignment("r", 1, 1, "train", "{}", "[]", version, "", model, 0, 1, model_data=data, change=part)


@pytest.mark.parametrize(
    ("assignment", "held", "expected"),
    [
        (message(), "", 1003),
        (message(), OLD, 1003),
        (message(size=(2 << 20) + 100), "", (2 << 20) + 100 + 4 + 4 + 2),
        (message(), NEW, 0),
        (message(data=b"model"), "", 0),
        (message(0), "", 0),
        (message(change=True), OLD, 42),
        (message(change=True), "", 1003),
        (message(change=True, change_data=b"change"), OLD, 0),
    ],
)
def test_what_a_node_would_have_fetched(assignment, held, expected):
    assert download_bytes(assignment, held) == expected


class Listener:
    def __init__(self):
        self.heard = []

    def receive(self, message):
        self.heard.append(message)


def test_messages_reach_the_node_at_once():
    sessions, nodes = VirtualSessions(), {"b": Listener(), "a": Listener()}
    sessions.seat(nodes)
    assert sessions.nodes() == ["a", "b"]
    assert "a" in sessions
    assert "c" not in sessions
    grant = msg.DownloadGrant("d")
    assert sessions.send("a", grant)
    assert not sessions.send("c", grant)
    assert nodes["a"].heard == [grant]
    assert nodes["b"].heard == []


async def test_transfers_are_links(tmp_path):
    coordinator = CoordinatorFiles(tmp_path / "files")
    (tmp_path / "nodes").mkdir()
    mine = NodeFiles(tmp_path / "nodes", "a", coordinator)
    bulk, artifact = MemoryBulk(mine), artifact_of([b"update"])
    with pytest.raises(NotFound, match="has no file"):
        await bulk.download(artifact, lambda count: None)
    path = mine.put(artifact, b"update")
    await bulk.upload(path, artifact, 0, lambda count: None)
    assert coordinator.path(artifact.digest).samefile(path)
    await bulk.download(artifact, lambda count: None)
