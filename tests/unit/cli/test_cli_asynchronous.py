"""What the command line makes of an asynchronous run: its tables and lines."""

from __future__ import annotations

from covey.cli.views import tables
from covey.cli.views.run_screen import run_line
from covey.cli.views.run_views import PlainLines
from covey.client.values import Change, Round, Run

RUN = "3f9a01c2d4e5"


def assignment(number, node="a", state="decided", **values):
    return Round(number, state, invited=(node,), **values)


ROUNDS = (
    assignment(1, base_version=0, version=1, accepted=1, arrival=2, seconds=0.5),
    assignment(2, "b", base_version=0, rejected=1, arrival=1),
    assignment(3, base_version=1, arrival=3),
    assignment(4, "b", "collecting", base_version=1),
)


def shown(state="running", **values):
    return Run(RUN, "d", "async", state, updates_decided=3, updates=10, **values)


def test_assignments_are_shown_with_their_outcome(capsys):
    tables.show(tables.round_table(ROUNDS))
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0][:5] == ["ROUND", "NODE", "OUTCOME", "BASE", "VERSION"]
    assert [line[1:3] for line in lines[2:]] == [
        ["a", "accepted"],
        ["b", "rejected"],
        ["a", "held"],
        ["b", "collecting"],
    ]
    assert lines[2][3:5] == ["0", "1"]


def test_progress_is_counted_in_updates(capsys):
    tables.show(tables.run_table([shown()]), tables.run_details(shown()))
    text = capsys.readouterr().out
    assert "3/10" in text
    assert "3 of 10 updates decided on" in text
    assert "3 of 10 updates decided on" in run_line(shown()).plain


def test_each_decision_is_a_line_once(capsys):
    with PlainLines() as view:
        for _ in range(2):
            view.update(Change(shown(), ROUNDS))
        view.update(Change(shown("completed"), (assignment(4, "b", "failed", reason="lost: away"),)))
    assert capsys.readouterr().out.splitlines() == [
        "update 1 of a accepted, version 1",
        "update 2 of b rejected",
        "update 3 of a held",
        f"run {RUN} (d) running",
        "round 4 failed: lost: away",
        f"run {RUN} (d) completed",
    ]
