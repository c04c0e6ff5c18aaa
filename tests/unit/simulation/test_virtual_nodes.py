from __future__ import annotations

import pytest

from covey import messages as msg
from covey.artifact import Artifact
from covey.protos import coordinator_pb2 as pb
from covey.simulation.nodes import VirtualSessions, download_bytes
from covey.simulation.plan import names_of
from covey.testing.federation import Federation
from covey.wire.artifacts import artifact_message
from covey.wire.translation import from_coordinator

NEW, OLD = "a" * 64, "b" * 64


@pytest.mark.parametrize("nodes", [1, 4, 10, 11, 101])
def test_names_are_those_of_a_federation_for_tests_and_sort_by_number(tmp_path, nodes):
    names = names_of(nodes)
    assert tuple(names) == Federation(tmp_path, nodes=nodes).names
    assert names == sorted(names)


def message(version=3, *, size=1000, data=b"", change=False, change_data=b""):
    made = pb.Assignment(version=version, model=artifact_message(Artifact(NEW, size, b"")), model_data=data)
    if change:
        made.change.CopyFrom(artifact_message(Artifact("c" * 64, 40, b"")))
        made.change_base, made.change_data = OLD, change_data
    return made


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
    said = msg.Cancel("r", 1, "why")
    assert sessions.send("a", said)
    assert not sessions.send("c", said)
    assert [from_coordinator(message) for message in nodes["a"].heard] == [said]
    assert nodes["b"].heard == []
