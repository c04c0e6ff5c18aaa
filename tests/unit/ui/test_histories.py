"""Curves for the page: those that are wanted or usual, of the runs that were looked at last."""

from __future__ import annotations

from covey.client.progress.history import PAGE, History
from covey.client.values import Round, Run
from covey.ui.histories import KEPT, MOST_CURVES, Histories, charts
from tests.unit.client.progress.read_rounds import Record, read_on

RUN = Run("id", "name", "rounds", "running", started_at=100.0, spec={"study": "trial"})


def test_the_page_gets_what_it_wants_or_what_is_usual():
    history, record = History(), Record(0)
    record.rounds = [Round(1, "committed", metrics={"b": 1.0, "accuracy": 0.5, "a/loss": 2.0, "c": 3.0})]
    read_on(history, record)
    drawn = charts(history, RUN, "rounds", [], 10)
    assert drawn["names"] == ["a/loss", "accuracy", "b", "c", "bytes"]
    assert [chart["name"] for chart in drawn["charts"]] == ["a/loss", "accuracy", "bytes"]
    assert [chart["name"] for chart in charts(history, RUN, "rounds", ["c", "nothing"], 10)["charts"]] == ["c"]


def test_of_very_many_metrics_the_first_curves_are_drawn_and_all_are_named():
    history, record = History(), Record(0)
    record.rounds = [Round(1, "committed", metrics={f"{number:02}/loss": 1.0 for number in range(MOST_CURVES + 5)})]
    read_on(history, record)
    for wanted in ([], history.names()):
        drawn = charts(history, RUN, "rounds", wanted, 10)
        assert (len(drawn["charts"]), len(drawn["names"])) == (MOST_CURVES, MOST_CURVES + 6)


def test_a_record_in_part_has_no_bytes_and_says_what_it_is_drawn_over():
    history, record = History(), Record(PAGE * 3)
    read_on(history, record, seconds=0.0)
    drawn = charts(history, RUN, "bytes", [], 10)
    assert (drawn["is_whole"], drawn["over"]) == (False, "rounds")
    assert [chart["name"] for chart in drawn["charts"]] == ["loss"]
    (curve,) = drawn["charts"][0]["series"]
    assert (curve["x"][0], drawn["read"], drawn["of"]) == (PAGE * 2 + 1, PAGE, PAGE * 3)
    assert charts(history, RUN, "seconds", [], 10)["over"] == "seconds"
    read_on(history, record)
    names = [chart["name"] for chart in charts(history, RUN, "bytes", [], 10)["charts"]]
    assert (names, curve["label"]) == (["loss", "bytes"], "trial/name")


def test_only_so_many_runs_are_kept(source, recorder):
    histories = Histories(source)
    for number in range(KEPT + 2):
        recorder.run(f"run-{number}", rounds=1)
        run = source.ask(lambda c, number=number: c.run(f"run-{number}"))
        first = histories.of(run)
        assert (first.newest, histories.of(run) is first) == (1, True)
    run = source.ask(lambda c: c.run("run-0"))
    assert histories.of(run).newest == 1
    assert len(histories._kept) == KEPT


def test_a_history_of_another_run_is_another_one(source, recorder):
    histories = Histories(source)
    recorder.run("one", rounds=3)
    recorder.run("two", rounds=1)
    one, two = (source.ask(lambda c, name=name: c.run(name)) for name in ("one", "two"))
    assert (histories.of(one).newest, histories.of(two).newest) == (3, 1)
