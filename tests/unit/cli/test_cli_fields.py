import json

from covey.cli.framework import fields
from covey.client.reading.translation import value_of, version_of
from covey.client.values import Event, Node, NodeProgress, Round, Run, Status, Update
from covey.protos import admin_pb2 as pb

RUN = value_of(
    Run,
    pb.Run(
        run="3f9a",
        name="digits",
        mode="rounds",
        state="running",
        rounds_committed=2,
        rounds=20,
        model_version=2,
        model_sha256="ab" * 32,
        metrics='{"accuracy": 0.5, "loss": NaN}',
        submitted_at=1.5,
        started_at=2.5,
        spec='{"name":"digits"}',
        roster=["a", "b"],
    ),
)
ROUND = value_of(Round, pb.Round(round=2, state="collecting", attempt=1, started_at=3.0, metrics="{}", invited=["a"]))


def test_run_fields_are_those_of_the_design():
    named = {"run", "name", "mode", "state", "reason", "rounds_committed", "model_version", "model_sha256", "metrics"}
    shown = fields.plain(RUN, fields.RUN_DETAIL_FIELDS)
    assert named <= set(shown)
    assert shown["metrics"] == {"accuracy": 0.5, "loss": None}
    assert shown["spec"] == {"name": "digits"}
    assert shown["roster"] == ["a", "b"]
    assert (shown["started_at"], shown["ended_at"]) == (2.5, None)


def test_round_fields_are_those_of_the_design():
    named = {
        "round",
        "state",
        "started_at",
        "committed_at",
        "seconds",
        "accepted",
        "rejected",
        "bytes_received",
        "bytes_sent",
        "metrics",
    }
    shown = fields.plain(ROUND, fields.ROUND_FIELDS)
    assert named <= set(shown)
    assert shown["committed_at"] is None
    assert (shown["accepted"], shown["invited"]) == (0, ["a"])


def test_every_named_field_is_one_of_its_value():
    for kind, message, names in [
        (Run, pb.Run(), fields.RUN_DETAIL_FIELDS),
        (Round, pb.Round(), fields.ROUND_FIELDS),
        (Update, pb.Update(), fields.UPDATE_FIELDS),
        (Node, pb.Node(), fields.NODE_FIELDS),
        (Event, pb.Event(), fields.EVENT_FIELDS),
        (NodeProgress, pb.NodeProgress(), fields.PROGRESS_FIELDS),
        (Status, pb.CoordinatorStatus(), fields.STATUS_FIELDS),
    ]:
        shown = fields.plain(value_of(kind, message), names)
        assert tuple(shown) == names
        json.dumps(shown, allow_nan=False)


def test_version_carries_its_file():
    version = pb.Version(version=3, model_sha256="cd", metrics="{}", kept=True)
    version.artifact.digest, version.artifact.size_bytes = "ef", 10
    shown = fields.plain(version_of(version), fields.VERSION_FIELDS)
    assert tuple(shown) == fields.VERSION_FIELDS
    assert (shown["digest"], shown["bytes"], shown["kept"]) == ("ef", 10, True)


def test_a_loss_that_is_not_a_number_is_null():
    shown = fields.plain(NodeProgress("a", "training", loss=float("inf")), fields.PROGRESS_FIELDS)
    assert shown["loss"] is None
