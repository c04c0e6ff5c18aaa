import json
from dataclasses import replace

import pytest

from covey.artifact import artifact_of
from covey.coordinator.admin import views
from covey.parts import collected_name
from covey.spec import RoundsSpec, TaskSection
from covey.storage.record.contract import (
    EventRecord,
    NodeRecord,
    PartRecord,
    RoundRecord,
    RunRecord,
    RunSummary,
    UpdateRecord,
    VersionRecord,
)

SPEC = RoundsSpec(name="digits", task=TaskSection(name="digits")).to_json()
RUN = RunRecord("3f9a", "digits", "rounds", SPEC, 7, "running", "", 10.0, started_at=11.0, roster=("a", "b"))


def version(number, metrics=None, kept=True):
    return VersionRecord(
        "3f9a",
        number,
        f"{number:02x}" * 32,
        artifact_of([b"x" * number]),
        20.0 + number,
        metrics=metrics or {},
        kept=kept,
    )


def test_a_run_that_is_queued():
    view = views.run_view(RunRecord("3f9a", "digits", "rounds", SPEC, 7, "queued", "", 10.0), RunSummary())
    assert (view.state, view.rounds, view.rounds_committed, view.model_sha256) == ("queued", 20, 0, "")
    assert (view.submitted_at, view.started_at, json.loads(view.metrics)) == (10.0, 0.0, {})


def test_a_run_shows_its_newest_version_and_the_newest_metrics():
    view = views.run_view(RUN, RunSummary(2, "02" * 32, 0, {"accuracy": 0.5}))
    assert (view.rounds_committed, view.model_version, view.model_sha256) == (2, 2, "02" * 32)
    assert json.loads(view.metrics) == {"accuracy": 0.5}
    assert list(view.roster) == ["a", "b"]
    assert json.loads(view.spec)["name"] == "digits"


def test_of_very_many_nodes_a_thousand_are_named_and_all_are_counted():
    names = tuple(f"node-{number:05}" for number in range(20_000))
    view = views.run_view(replace(RUN, roster=names), RunSummary())
    assert (list(view.roster), view.roster_size) == (list(names[:1000]), 20_000)
    assert view.ByteSize() < 1 << 16
    files = tuple(PartRecord(collected_name("model", name), "none", artifact_of([b"x"])) for name in names)
    shown = views.version_view(replace(version(1), parent_sha256=version(1).model_sha256, state=files))
    assert (list(shown.members), shown.members_count) == (list(names[:1000]), 20_000)


def test_a_round():
    record = RoundRecord("3f9a", 2, 1, "committed", ("a", "b"), 1, 10.0, 10.0, 10.5, 100, 200, "", 2, 0, {"loss": 1.0})
    view = views.round_view(record)
    assert (view.seconds, view.committed_at, view.accepted, view.bytes_sent) == (0.5, 10.5, 2, 200)
    assert json.loads(view.metrics) == {"loss": 1.0}
    collecting = views.round_view(RoundRecord("3f9a", 3, 2, "collecting", ("a",), 2, 10.0, 12.0))
    assert (collecting.attempt, collecting.seconds, collecting.committed_at) == (2, 0.0, 0.0)


def test_an_update_and_its_numbers():
    record = UpdateRecord(
        "3f9a", 1, "a", "rejected", "too far", "ab", weight=5.0, numbers={"distance": 9.5}, received_at=3.0
    )
    view = views.update_view(record)
    assert (view.node, view.verdict, view.reason, view.weight) == ("a", "rejected", "too far", 5.0)
    assert json.loads(view.numbers) == {"distance": 9.5}
    assert views.update_view(UpdateRecord("3f9a", 1, "b", "lost")).received_at == 0.0


def test_a_version_and_its_file():
    view = views.version_view(version(3, {"accuracy": 0.9}, kept=False))
    assert (view.version, view.kept, view.artifact.size_bytes) == (3, False, 3)
    assert view.artifact.digest == artifact_of([b"xxx"]).digest


@pytest.mark.parametrize(
    ("state", "connected", "shown"),
    [("active", True, "connected"), ("active", False, "away"), ("evicted", True, "evicted"), ("left", False, "left")],
)
def test_a_node(state, connected, shown):
    record = NodeRecord("a", "node", state, 1.0, device="cpu", tasks=("digits",), accepted=3)
    view = views.node_view(record, connected)
    assert (view.state, view.accepted, list(view.tasks), view.last_seen_at) == (shown, 3, ["digits"], 0.0)


def test_an_event():
    view = views.event_view(EventRecord(5.0, "node-evicted", node="a", detail={"by": "alice"}))
    assert (view.at, view.kind, view.node, json.loads(view.detail)) == (5.0, "node-evicted", "a", {"by": "alice"})
