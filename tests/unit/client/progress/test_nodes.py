"""The nodes of a run; strips of verdicts of the newest rounds, each settled one asked for once."""

from __future__ import annotations

import pytest

from covey.client.connection import Connection
from covey.client.progress.nodes import STRIP, Verdicts, counted, nodes_of
from covey.client.target import Target
from covey.client.values import Round
from covey.storage.record.contract import EventRecord


def test_settled_rounds_are_asked_for_once(recorder, monkeypatch):
    recorder.run("run", rounds=STRIP + 3)
    recorder.open("run", STRIP + 4)
    asked = []
    read = Connection.round

    def noted(self, run, number):
        asked.append(number)
        return read(self, run, number)

    monkeypatch.setattr(Connection, "round", noted)
    verdicts = Verdicts()
    with Connection(Target(recorder.data_dir)) as connection:
        for _ in range(2):
            strips = verdicts.of(connection, connection.run("run"))
    assert strips["ada"] == [(number, "accepted") for number in range(5, STRIP + 4)]
    assert asked == [*range(5, STRIP + 5), STRIP + 4]


@pytest.mark.parametrize(
    ("values", "verdict"), [({"accepted": 1}, "accepted"), ({"late": 1}, "late"), ({"received": 1}, "received")]
)
def test_an_assignment_has_one_node(values, verdict):
    assert counted(Round(1, "decided", invited=("ada",), **values)) == {"ada": verdict}


def test_who_has_not_answered_has_no_verdict():
    assert counted(Round(1, "collecting", invited=("ada",))) == {}


def test_adversaries_of_a_run_are_named(recorder):
    recorder.run("run", rounds=2)
    recorder.enrol("eve")
    for name in ("bob", "eve"):
        recorder.store.add_event(EventRecord(5.0, "drill-joined", "run", name, detail={"attack": "alie"}))
    with Connection(Target(recorder.data_dir)) as connection:
        nodes = nodes_of(connection, connection.run("run"), Verdicts(), 1)
    assert (dict(nodes.drills), nodes.at_work, nodes.at_work_count) == ({"bob": "alie"}, (), 0)
    assert ([node.node for node in nodes.away], nodes.away_count) == (["ada"], 2)
    assert ([item.node for item in nodes.contributions], nodes.verdicts["bob"]) == (
        ["ada"],
        [(1, "accepted"), (2, "accepted")],
    )
    recorder.store.finish_run("run", "completed", "", 400.0)
    with Connection(Target(recorder.data_dir)) as connection:
        nodes = nodes_of(connection, connection.run("run"), Verdicts(), 1)
    assert (dict(nodes.drills), nodes.away, nodes.away_count) == ({"bob": "alie"}, (), 0)
