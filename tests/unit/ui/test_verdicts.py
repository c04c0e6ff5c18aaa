"""Strips of verdicts: of the newest rounds, each settled one asked for once."""

from __future__ import annotations

import pytest

from covey.client.connection import Connection
from covey.client.values import Round
from covey.ui.verdicts import STRIP, Verdicts, counted


def test_settled_rounds_are_asked_for_once(source, recorder, monkeypatch):
    recorder.run("run", rounds=STRIP + 3)
    recorder.open("run", STRIP + 4)
    asked = []
    read = Connection.round

    def noted(self, run, number):
        asked.append(number)
        return read(self, run, number)

    monkeypatch.setattr(Connection, "round", noted)
    verdicts = Verdicts()
    for _ in range(2):
        strips = source.ask(lambda connection: verdicts.of(connection, connection.run("run")))
    assert strips["ada"] == [(number, "accepted") for number in range(5, STRIP + 4)]
    assert asked == [*range(5, STRIP + 5), STRIP + 4]


@pytest.mark.parametrize(
    ("values", "verdict"), [({"accepted": 1}, "accepted"), ({"late": 1}, "late"), ({"received": 1}, "received")]
)
def test_an_assignment_has_one_node(values, verdict):
    assert counted(Round(1, "decided", invited=("ada",), **values)) == {"ada": verdict}


def test_who_has_not_answered_has_no_verdict():
    assert counted(Round(1, "collecting", invited=("ada",))) == {}
