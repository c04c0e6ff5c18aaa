import json

import pytest
from rich.console import Console

from covey.cli.views import run_screen, run_views, tables
from covey.cli.views.run_screen import SHOWN_ROUNDS
from covey.cli.views.run_views import JsonLines, LiveTable, PlainLines
from covey.client.errors import Unreachable
from covey.client.progress.nodes import RunNodes
from covey.client.values import Change, Contribution, NodeProgress, Round, Run


def status(state="running", rounds=(), reason="", nodes=()):
    run = Run("3f9a", "digits", "rounds", state, reason, rounds=5, rounds_committed=len(rounds))
    return Change(run, tuple(rounds), tuple(nodes))


def committed(number, **metrics):
    return Round(number, "committed", accepted=4, bytes_received=2_000_000, seconds=0.25, metrics=metrics)


def test_plain_lines_say_each_thing_once(capsys):
    view = PlainLines()
    with view:
        view.update(status(reason="waiting for 4 nodes, 2 are here"))
        view.update(status())
        view.update(status(rounds=[Round(1, "collecting")]))
        view.update(status(rounds=[committed(1)]))
        view.update(status(rounds=[committed(1)]))
        view.update(status("completed", rounds=[committed(1, accuracy=0.9123)]))
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "run 3f9a (digits) running: waiting for 4 nodes, 2 are here",
        "run 3f9a (digits) running",
        "round 1/5 committed in 0.25 s: 4 accepted, 2.0 MB received",
        "round 1/5 evaluated: accuracy 0.9123",
        "run 3f9a (digits) completed",
    ]


def test_plain_lines_of_a_gossip_run_say_how_far_all_of_its_nodes_are(capsys):
    view = PlainLines()
    with view:
        working = "training", "training", "evicted"
        for done, *phases in ((0, "invited"), (3, *working), (3, "training"), (5, "completed")):
            run = Run("3f9a", "digits", "gossip", "running", "", steps=5, steps_done=done)
            nodes = [NodeProgress(f"n{place}", phase, done, 5) for place, phase in enumerate(phases)]
            view.update(Change(run, (), tuple(nodes)))
    assert capsys.readouterr().out.splitlines() == [
        "run 3f9a (digits) running",
        "step 3/5 done by all: 1 evicted, 2 training",
        "step 5/5 done by all: 1 completed",
    ]


def test_json_lines_are_one_object_a_change(capsys):
    view = JsonLines()
    progress = NodeProgress("a", "training", 3, 9, 0.5, 1.0)
    with view:
        view.update(status(rounds=[committed(1)], nodes=[progress]))
        view.update(status("completed"))
    first, last = map(json.loads, capsys.readouterr().out.splitlines())
    assert first["run"]["state"] == "running"
    assert first["rounds"][0]["round"] == 1
    (node,) = first["nodes"]
    assert (node["node"], node["phase"], node["step"], node["steps"]) == ("a", "training", 3, 9)
    assert (node["loss"], node["seconds"], node["since"], node["bytes_received"]) == (0.5, 1.0, None, 0)
    assert (last["run"]["state"], last["rounds"]) == ("completed", [])


@pytest.fixture
def screen(monkeypatch):
    console = Console(width=120, height=60, record=True, file=open("/dev/null", "w"), force_terminal=True)  # noqa: SIM115
    monkeypatch.setattr(tables, "console", lambda **_: console)
    yield console
    console.file.close()


def test_the_live_table_shows_rounds_and_nodes(screen):
    view = LiveTable()
    training = NodeProgress("hospital-a", "training", 30, 90, 0.125, 2.0)
    with view:
        view.update(status(rounds=[committed(1, accuracy=0.5), Round(2, "collecting")]))
        view.update(status(rounds=[committed(2)], nodes=[training]))
    text = screen.export_text()
    for part in ("digits", "running", "ACCURACY", "0.5000", "hospital-a", "30/90", "0.1250"):
        assert part in text


def test_the_live_table_shows_the_newest_rounds_of_a_long_run(screen):
    view = LiveTable()
    with view:
        view.update(status(rounds=[committed(number, f1=0.5) for number in range(1, 1000)]))
        view.update(status(rounds=[committed(1000)]))
    text = screen.export_text()
    lines = [line.split() for line in text.splitlines()]
    shown = [int(line[0]) for line in lines if line and line[0].isdigit()]
    assert shown[-SHOWN_ROUNDS:] == list(range(1001 - SHOWN_ROUNDS, 1001))
    assert "F1" in text


def test_the_live_table_reads_how_its_nodes_are_now_and_then_and_at_the_end(screen, monkeypatch):
    looks = list[str]()
    monkeypatch.setattr(run_views, "LOOK_S", 3600.0)

    def read(run):
        looks.append(run.state)
        if len(looks) == 2:
            raise Unreachable("nobody answers")
        return RunNodes(contributions=(Contribution("ada", 3, 2),))

    with LiveTable(read) as view:
        for _ in range(5):
            view.update(status())
        view.update(status("completed"))
    text = screen.export_text()
    assert looks == ["running", "completed"]
    assert "2 of 3" in text
    assert "how its nodes are cannot be read: nobody answers" in text


def look_at_once(monkeypatch):
    """Each change makes it look, and each look reads a page."""
    for name in ("LOOK_S", "SLICE_S", "REST"):
        monkeypatch.setattr(run_views, name, 0.0)


def reading(rounds, on_page):
    def read(after, limit, newest):
        on_page(after)
        later = [item for item in rounds if item.round > after]
        return later[-limit:] if newest else later[:limit]

    return lambda run: read


def test_the_live_table_reads_the_rounds_before_those_that_watching_begins_with(screen, monkeypatch):
    look_at_once(monkeypatch)
    rounds, asked = [committed(number, accuracy=number / 4000) for number in range(1, 2001)], []
    earlier = reading(rounds, asked.append)
    spec = {"stop": {"target": 0.9}, "evaluation": {"metric": "accuracy", "goal": "max"}}
    run = Run("3f9a", "digits", "rounds", "running", rounds=5000, rounds_committed=2000, spec=spec)
    with LiveTable(lambda run: RunNodes(), earlier) as view:
        view.update(Change(run, tuple(rounds[1000:]), ()))
        view._stale_at = 0.0
        view._live.refresh()
        first = screen.export_text()
        for _ in range(5):
            view.update(Change(run, (), ()))
        count = len(asked)
        view.update(Change(run, (), ()))
    assert "reading the record: 500 of 2,000 rounds" in first
    assert "target 0.9" not in first  # which needs all of them
    text = screen.export_text()
    assert "0.5000, from 0.0003 to 0.5000" in text
    assert "target 0.9: 0.5000 at best" in text
    assert (len(asked), asked.count(0) >= 1) == (count, True)  # what is whole is not read again


def test_of_a_run_that_has_ended_the_live_table_reads_all_rounds_before_it_ends(screen, monkeypatch):
    look_at_once(monkeypatch)
    rounds = [committed(number, accuracy=number / 4000) for number in range(1, 2001)]
    run = Run("3f9a", "digits", "rounds", "completed", rounds=2000, rounds_committed=2000)
    with LiveTable(lambda run: RunNodes(), reading(rounds, lambda after: None)) as view:
        view.update(Change(run, tuple(rounds[1000:]), ()))
    text = screen.export_text()
    assert "0.5000, from 0.0003 to 0.5000" in text[text.rindex("digits (3f9a)") :]
    assert "reading the record" not in text[text.rindex("digits (3f9a)") :]


def test_rounds_are_read_where_nodes_cannot_be_and_the_screen_is_drawn_meanwhile(screen, monkeypatch):
    look_at_once(monkeypatch)
    rounds, held = [committed(number) for number in range(1, 2001)], []

    def denied(run):
        raise Unreachable("denied")

    def on_page(after):
        held.append(view._lock.locked())

    run = Run("3f9a", "digits", "rounds", "running", rounds=5000, rounds_committed=2000)
    view = LiveTable(denied, reading(rounds, on_page))
    for _ in range(5):
        view.update(Change(run, tuple(rounds[1000:]), ()))
    assert (view._history.is_whole, view._history.known, view._behind) == (True, 2000, "")
    assert "denied" in view._unread
    assert held
    assert not any(held)


def test_a_record_that_cannot_be_read_is_said_and_read_later(screen, monkeypatch):
    look_at_once(monkeypatch)
    rounds, said = [committed(number) for number in range(1, 2001)], []
    answers = iter([True, True, False])

    def on_page(after):
        if not next(answers, True):
            raise Unreachable("nobody answers")

    run = Run("3f9a", "digits", "rounds", "running", rounds=5000, rounds_committed=2000)
    view = LiveTable(lambda run: RunNodes(), reading(rounds, on_page))
    for _ in range(7):
        view.update(Change(run, tuple(rounds[1000:]), ()))
        said.append(view._behind)
    assert "its record cannot be read: nobody answers" in said
    assert (view._history.is_whole, view._history.known, said[-1]) == (True, 2000, "")  # no page is missing


def test_the_live_table_makes_a_frame_now_and_then_and_at_the_end(screen, monkeypatch):
    made, make = list[int](), run_screen.frame

    def frame(seen, *args, **kwargs):
        made.append(seen.history.newest)
        return make(seen, *args, **kwargs)

    monkeypatch.setattr(run_screen, "frame", frame)
    monkeypatch.setattr(run_views, "DRAW_S", 3600.0)
    with LiveTable() as view:
        for number in range(1, 9):
            view.update(status(rounds=[committed(number)]))
            view._live.refresh()
    assert made == [1, 8]


def test_without_colours_a_screen_has_none(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert [tables.console(no_color=chosen).no_color for chosen in (True, False)] == [True, False]
    monkeypatch.setenv("NO_COLOR", "1")
    assert tables.console().no_color


def test_what_a_node_says_cannot_steer_the_terminal(capsys):
    with PlainLines() as view:
        view.update(status(reason="declined \x1b[2J\x07[bold]here"))
    assert capsys.readouterr().out == "run 3f9a (digits) running: declined  [2J [bold]here\n"


def test_a_wait_is_said_once_until_something_else_happened(capsys):
    with PlainLines() as view:
        for _ in range(3):
            view.update(status(reason="waiting for n1"))
            view.update(status())
        for _ in range(3):
            view.lost(Unreachable("the coordinator does not answer"))
    said = capsys.readouterr()
    assert said.out.count("waiting for n1") == 1
    assert said.err.count("does not answer") == 1
