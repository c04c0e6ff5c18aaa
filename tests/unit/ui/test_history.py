"""Curves of a run: read in slices, kept up to date, thinned without hiding a spike."""

from __future__ import annotations

import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from covey.client.progress.history import PAGE, History, thinned, widest_first
from covey.client.values import Round, Run
from covey.ui.histories import KEPT, MOST_CURVES, Histories, charts

RUN = Run("id", "name", "rounds", "running", started_at=100.0)


def rounds(first, last, **values):
    return [
        Round(
            n, "committed", committed_at=100.0 + n, bytes_received=10, bytes_sent=5, metrics={"loss": 1.0 / n}, **values
        )
        for n in range(first, last + 1)
    ]


class Record:
    """Rounds that are read; notes which pages."""

    def __init__(self, last):
        self.rounds, self.asked = rounds(1, last), []

    def read(self, after, limit, newest):
        later = [item for item in self.rounds if item.round > after]
        if newest:
            return later[-limit:]
        self.asked.append(after)
        return later[:limit]


def read_on(history, record, *, ended=False, seconds=60.0):
    history.read_on(record.read, ended=ended, until=time.monotonic() + seconds)


def test_a_long_record_is_read_a_slice_at_a_time_the_widest_gap_first():
    history, record = History(), Record(3 * PAGE + 7)
    read_on(history, record, seconds=0.0)
    assert (history.newest, history.is_whole, record.asked, len(history.points)) == (1507, False, [3 * PAGE], 7)
    read_on(history, record, seconds=0.0)
    assert record.asked == [3 * PAGE, 0]
    drawn = charts(history, RUN, "bytes", [], 10)
    assert [chart["name"] for chart in drawn["charts"]] == ["loss"]  # what lies in between is no number of bytes
    assert (drawn["charts"][0]["series"][0]["x"][-1], drawn["read"], drawn["of"]) == (1507.0, PAGE + 7, 1507)
    read_on(history, record)
    assert (history.is_whole, len(history.points)) == (True, 1507)
    assert record.asked[:4] == [3 * PAGE, 0, 2 * PAGE, PAGE]
    assert [chart["name"] for chart in charts(history, RUN, "bytes", [], 10)["charts"]] == ["loss", "bytes"]


@given(st.integers(0, 300))
def test_every_page_is_read_once(count):
    assert sorted(widest_first(count)) == list(range(count))


def test_what_changes_later_is_seen_and_old_rounds_are_not_read_again():
    history, record = History(), Record(2000)
    read_on(history, record)
    record.rounds[-3] = Round(1998, "committed", metrics={"accuracy": 0.5})
    record.rounds += [Round(2001, "collecting")]
    del record.asked[:]
    read_on(history, record)
    assert min(record.asked) > 1900
    assert history.points[1998].metrics == {"accuracy": 0.5}
    assert (history.newest, len(history.points)) == (2001, 2001)
    record.rounds[-1] = rounds(2001, 2001)[0]
    record.rounds += rounds(2002, 2900)
    read_on(history, record)
    assert history.points[2001].metrics == {"loss": 1 / 2001}
    assert len(history.points) == 2900


def test_an_open_round_far_behind_is_read_again_as_far_as_a_page_goes():
    history, record = History(), Record(1000)
    record.rounds[899] = Round(900, "collecting")
    record.rounds[99] = Round(100, "collecting")
    read_on(history, record)
    del record.asked[:]
    read_on(history, record)
    assert record.asked == [1000 - PAGE + 1]


def test_a_run_that_ended_is_looked_at_once_more_and_then_left_alone():
    history, record = History(), Record(5)
    read_on(history, record)
    read_on(history, record, ended=True)
    looks = len(record.asked)
    read_on(history, record, ended=True)
    assert len(record.asked) == looks
    empty = History()
    read_on(empty, Record(0), ended=True)
    assert (empty.is_whole, empty.names(), empty.newest) == (True, [], 0)


@pytest.mark.parametrize("growth", [10_000, PAGE, 3])
def test_what_came_while_nobody_looked_is_read_to_the_end(growth):
    history, record = History(), Record(1000)
    read_on(history, record)
    record.rounds += rounds(1001, 1000 + growth)
    read_on(history, record, ended=True, seconds=0.0)
    for _ in range(20):
        if history.is_whole:
            break
        read_on(history, record, ended=True, seconds=0.0)
    assert (history.is_whole, history.newest, len(history.points)) == (True, 1000 + growth, 1000 + growth)


def test_a_record_that_grows_while_it_is_read_for_the_first_time_is_read_to_its_end():
    history, record = History(), Record(PAGE + 100)
    read_on(history, record, seconds=0.0)
    record.rounds += rounds(PAGE + 101, PAGE + 150)
    read_on(history, record, ended=True, seconds=0.0)
    assert (history.is_whole, history.newest) == (True, PAGE + 150)


def test_what_is_no_number_is_no_point():
    history = History()
    values = {"loss": math.nan, "accuracy": math.inf, "kind": [1, 2], "fine": 1, "flag": True}
    history.add([Round(1, "committed", metrics=values)])
    assert history.names() == ["fine"]


def test_curves_over_rounds_seconds_and_bytes():
    history = History()
    history.add([*rounds(1, 3), Round(4, "collecting")])
    assert history.curve("loss", "rounds", 100.0, 10) == ([1.0, 2.0, 3.0], [1.0, 0.5, 1 / 3])
    assert history.curve("loss", "seconds", 100.0, 10)[0] == [1.0, 2.0, 3.0]
    assert history.curve("loss", "bytes", 100.0, 10)[0] == [15.0, 30.0, 45.0]
    assert history.curve("bytes", "rounds", 100.0, 10) == ([1.0, 2.0, 3.0, 4.0], [15.0, 30.0, 45.0, 45.0])
    assert history.curve("bytes", "seconds", 100.0, 10)[0] == [1.0, 2.0, 3.0]


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
    assert drawn["charts"][0]["series"][0]["x"][0] == PAGE * 2 + 1
    assert charts(history, RUN, "seconds", [], 10)["over"] == "seconds"


@given(
    ys=st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=300),
    most=st.integers(min_value=4, max_value=60),
)
def test_a_thinned_curve_has_its_ends_its_lowest_and_its_highest(ys, most):
    xs = [float(x) for x in range(len(ys))]
    short, values = thinned(xs, ys, most)
    assert len(short) <= max(most, 4)
    assert short == sorted(short)
    assert all(ys[int(x)] == y for x, y in zip(short, values, strict=True))
    if ys:
        assert (short[0], short[-1]) == (xs[0], xs[-1])
        assert (min(values), max(values)) == (min(ys), max(ys))


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


@pytest.mark.parametrize("count", [0, 1, 5])
def test_a_short_curve_stays_as_it_is(count):
    xs = [float(x) for x in range(count)]
    assert thinned(xs, xs, 5) == (xs, xs)
