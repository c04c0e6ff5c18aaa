"""Plain messages go over the wire and come back as they were."""

from __future__ import annotations

import math

import pytest

from covey import messages as msg
from covey.artifact import artifact_of
from covey.protos import coordinator_pb2 as pb
from covey.wire.translation import from_coordinator, from_node, to_coordinator, to_node

FILE = artifact_of([b"some bytes"])
FROM_NODE = [
    msg.Hello("1.2", ("digits", "mine"), "cuda (X)", "sign-flip", max_runs=2, memory_bytes=3, gpu_memory_bytes=4),
    msg.DownloadAsk("ab"),
    msg.DownloadAsk("ab", with_table=True),
    msg.UpdateOffer(
        b"{}", b"sig", (msg.OfferedPart("model", "int8", FILE, b"data"), msg.OfferedPart("x", "none", FILE))
    ),
    msg.Decline("r", 3, 2, "declined", "because"),
    msg.Progress("r", 3, "training", 4, 9, 0.5, 1.5),
    msg.Evaluation("r", 7, b'{"accuracy": [1, 2]}'),
]
FULL = msg.Assignment(
    "r",
    3,
    2,
    "train",
    '{"a":1}',
    "[]",
    2,
    "sha",
    FILE,
    1,
    4,
    phase=2,
    download_granted=True,
    evaluate=True,
    model_data=b"m",
    change=msg.Change(FILE, "base", b"c"),
    broadcast=b"b",
    feedback=msg.Feedback("u", True),
    node_state=("residual", "control"),
    inputs=(msg.InputFile("control", "n1", FILE, b"i"),),
    wanted=(msg.WantedPart("model", "int8", 7, True),),
    params='{"leader":1}',
)
FROM_COORDINATOR = [
    msg.Welcome("1.2", "fed", "n0", 10.0),
    FULL,
    msg.Assignment("r", 2, 0, "evaluate", "{}", "[]", 2, "sha", FILE, 0, 4),
    msg.DownloadGrant("ab"),
    msg.DownloadGrant("ab", b"digests"),
    msg.UploadGrant("u", (("ab", 0), ("cd", 1 << 20))),
    msg.Receipt("u", b"s", b"sig"),
    msg.Refusal("u", "late", "too late"),
    msg.Cancel("r", 0, "done"),
    msg.Goodbye("evicted", "by admin"),
]


@pytest.mark.parametrize("message", FROM_NODE, ids=lambda m: type(m).__name__)
def test_what_a_node_says_comes_back(message):
    assert from_node(pb.NodeMessage.FromString(to_coordinator(message).SerializeToString())) == message


@pytest.mark.parametrize("message", FROM_COORDINATOR, ids=lambda m: type(m).__name__)
def test_what_a_coordinator_says_comes_back(message):
    assert from_coordinator(pb.CoordinatorMessage.FromString(to_node(message).SerializeToString())) == message


def test_no_loss_is_not_a_number():
    back = from_node(to_coordinator(msg.Progress("r", 1, "uploading")))
    assert isinstance(back, msg.Progress)
    assert math.isnan(back.loss)


def test_heartbeats_and_unknown_kinds_say_nothing():
    assert from_node(pb.NodeMessage(heartbeat=pb.Heartbeat())) is None
    assert from_coordinator(pb.CoordinatorMessage(heartbeat=pb.Heartbeat())) is None
    assert from_node(pb.NodeMessage()) is None


def test_an_assignment_that_names_no_phase_is_of_the_first():
    message = to_node(FULL)
    message.assignment.phase = 0
    assignment = from_coordinator(message)
    assert isinstance(assignment, msg.Assignment)
    assert assignment.phase == 1
