"""Curves of a run: read in slices, kept up to date, bounded, thinned without hiding a spike."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from covey.client.progress.history import EXACT, MOST_POINTS, PAGE, History, thinned, widest_first
from covey.client.values import Round
from tests.unit.client.progress.read_rounds import Record, read_on, rounds


def test_a_long_record_is_read_a_slice_at_a_time_the_widest_gap_first():
    history, record = History(), Record(3 * PAGE + 7)
    read_on(history, record, seconds=0.0)
    assert (history.newest, history.is_whole, record.asked, len(history.points)) == (1507, False, [3 * PAGE], 7)
    read_on(history, record, seconds=0.0)
    assert record.asked == [3 * PAGE, 0]
    assert (history.curve("loss", "rounds", 0.0, 10)[0][-1], history.known) == (1507.0, PAGE + 7)
    read_on(history, record)
    assert (history.is_whole, len(history.points)) == (True, 1507)
    assert record.asked[:4] == [3 * PAGE, 0, 2 * PAGE, PAGE]


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
    assert (history.is_whole, history.newest, history.known) == (True, 1000 + growth, 1000 + growth)


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


@pytest.mark.parametrize("count", [0, 1, 5])
def test_a_short_curve_stays_as_it_is(count):
    xs = [float(x) for x in range(count)]
    assert thinned(xs, xs, 5) == (xs, xs)


@pytest.mark.parametrize("is_told", [True, False])
def test_of_very_many_rounds_a_bounded_number_of_points_is_kept_with_extremes_and_sums(is_told):
    count, spikes = 2 * MOST_POINTS, {17: -5.0, 5_001: 40.0, 9_000: -7.0}
    history, record = History(), Record(0)
    record.rounds = [
        Round(number, "decided", committed_at=100.0 + number, bytes_received=10, bytes_sent=5, metrics=metrics)
        for number in range(1, count + 1)
        for metrics in ({"loss": spikes.get(number, 1.0), "late": float(number)},)
    ]
    most = 0
    for first in range(0, count if is_told else 0, PAGE):
        history.add(record.rounds[first : first + PAGE])
        most = max(most, len(history.points))
    for _ in range(0 if is_told else count // PAGE):
        read_on(history, record, seconds=0.0)
        most = max(most, len(history.points))
    assert (history.known, history.newest, history.is_whole, most <= MOST_POINTS + PAGE) == (count, count, True, True)
    assert [history.points[number].metrics["loss"] for number in spikes] == [*spikes.values()]
    assert set(range(count - EXACT + 1, count + 1)) <= history.points.keys()
    assert history.received == 10 * count
    over, moved = history.curve("bytes", "bytes", 0.0, 10)
    assert (over[-1], moved[-1]) == (15.0 * count, 15.0 * count)
    old = sorted(number for number in history.points if number <= count - EXACT)
    assert max(b - a for a, b in pairwise(old)) < 100  # evenly
    before = history.known, len(history.points), history.received
    history.add(record.rounds[100:110])  # told once more, as after the coordinator was away
    assert (history.known, len(history.points), history.received) == before


def test_what_was_not_told_between_two_moments_is_read():
    history, record = History(), Record(3 * PAGE)
    history.add(record.rounds[:PAGE])
    assert history.is_whole
    history.add(record.rounds[-100:])
    assert not history.is_whole
    read_on(history, record)
    assert (history.is_whole, history.known) == (True, 3 * PAGE)


def test_sums_stay_exact_where_changes_are_told_while_pages_are_read():
    history, record = History(), Record(2 * MOST_POINTS)
    history.add(record.rounds[-1000:])
    while not history.is_whole:
        read_on(history, record, seconds=0.0)
        told = rounds(history.newest + 1, history.newest + 200)
        record.rounds += told
        history.add(told)
    assert (history.known, history.received) == (len(record.rounds), 10 * len(record.rounds))
    over, _ = history.curve("bytes", "bytes", 0.0, 10)
    assert over[-1] == 15.0 * len(record.rounds)


def test_a_page_that_could_not_be_read_is_read_again():
    history, record = History(), Record(3 * PAGE)
    lost = [PAGE]

    def fails_once(after, limit, newest):
        if not newest and after in lost:
            lost.remove(after)
            raise OSError("nobody answers")
        return record.read(after, limit, newest)

    with pytest.raises(OSError, match="nobody answers"):
        history.read_on(fails_once, ended=False, until=math.inf)
    history.read_on(fails_once, ended=False, until=math.inf)
    assert (history.is_whole, history.known) == (True, 3 * PAGE)
