"""From messages to values."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields

import pytest

from covey.client.reading.translation import change_of, detail_of, node_detail_of, value_of
from covey.client.values import Backup, Event, Node, NodeProgress, Round, Run, Status, Token, Update
from covey.protos import admin_pb2 as pb

FLAT = [
    (Run, pb.Run),
    (Round, pb.Round),
    (Update, pb.Update),
    (Node, pb.Node),
    (Event, pb.Event),
    (NodeProgress, pb.NodeProgress),
    (Token, pb.CreateTokenReply),
    (Backup, pb.BackupReply),
]


@pytest.mark.parametrize(("kind", "message"), FLAT, ids=lambda item: item.__name__)
def test_a_value_has_every_field_of_its_message(kind, message):
    assert {item.name for item in fields(kind)} - {"missing"} == {item.name for item in message.DESCRIPTOR.fields}
    with pytest.raises(FrozenInstanceError):
        setattr(value_of(kind, message()), fields(kind)[0].name, "other")


def test_a_status_has_the_fields_that_are_shown():
    assert {item.name for item in fields(Status)} <= {item.name for item in pb.CoordinatorStatus.DESCRIPTOR.fields}


def test_open_ended_values_lists_and_times():
    run = value_of(Run, pb.Run(metrics='{"loss": 0.5}', spec='{"seed":7}', roster=["a"], submitted_at=1.5))
    assert (run.metrics, run.spec, run.roster) == ({"loss": 0.5}, {"seed": 7}, ("a",))
    assert value_of(Run, pb.Run(metrics='{"auc": "one class"}')).missing == {"auc": "one class"}
    assert (run.submitted_at, run.started_at, run.ended_at) == (1.5, None, None)


def test_messages_in_messages():
    change = change_of(pb.RunStatus(run=pb.Run(run="r"), rounds=[pb.Round(round=3)], nodes=[pb.NodeProgress(node="a")]))
    assert (change.run.run, change.rounds[0].round, change.nodes[0].node) == ("r", 3, "a")
    assert change.nodes_count == 1  # an older coordinator counts nothing, and names all
    assert change_of(pb.RunStatus(nodes=[pb.NodeProgress(node="a")], nodes_count=7)).nodes_count == 7
    detail = detail_of(pb.RoundDetail(round=pb.Round(round=1), updates=[pb.Update(node="a", bytes=5)]))
    assert (detail.updates[0].bytes, detail.version) == (5, None)
    node = node_detail_of(pb.NodeDetail(node=pb.Node(node="a"), events=[pb.Event(at=1.0, detail='{"by": "me"}')]))
    assert (node.node.node, node.events[0].detail) == ("a", {"by": "me"})


def test_a_token_is_not_shown():
    assert "secret" not in repr(value_of(Token, pb.CreateTokenReply(token="secret", node="a")))
