"""Whenever points become known, within each name they are told in one order, once, and all of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from covey.client.reading.gossip_steps import GossipStep
from covey.client.values import Round, Update
from covey.errors import Conflict
from covey.library import tracked_points
from covey.library.tracked_points import MAX_NAME, MAX_NAMES, Cursor, TrackedPoints, clean
from covey.trackers.folders import Point


def history(count: int) -> list[Round]:
    """Rounds as the record has them at a run's end: an asynchronous run's, whose versions are in another order."""
    return [
        Round(
            number,
            "failed" if number % 5 == 0 else "decided",
            committed_at=100.0 + number,
            seconds=1.5,
            accepted=1,
            bytes_received=10,
            bytes_sent=number,
            version=0 if number % 5 == 0 else number + (1 if number % 2 else -1),
            metrics={"accuracy": number / 16, "nodes/accuracy": number / 32, "nan": float("nan"), "text": "x"},
        )
        for number in range(1, count + 1)
    ]


def seen_at(item: Round, time: int) -> Round | None:
    """A round as it is read at a time: not there, open, settled (in the order of versions), or evaluated."""
    settled = (item.version or item.round) + 2
    if time < settled:
        is_open = replace(item, state="collecting", committed_at=None, metrics={}, version=0, bytes_sent=1)
        return is_open if time >= item.round else None
    return item if time >= settled + 4 else replace(item, metrics={})


def take(points: TrackedPoints, ended: bool) -> list[Point]:
    counts = [
        point
        for item in points.rounds(ended)
        for point in points.of_round(
            item, [Update(f"n{item.round % 2}", "accepted", metrics={"loss": (item.round, 8)})]
        )
    ]
    return counts + list(points.of_versions(ended))


def by_name(points: Iterable[Point]) -> dict[str, list[Point]]:
    names = defaultdict[str, list[Point]](list)
    for point in points:
        names[point.name].append(point)
    return dict(names)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 30), st.booleans()), max_size=12))
def test_live_and_later_are_the_same(looks: Sequence[tuple[int, bool]]) -> None:
    """Also where the one who tells is killed, and goes on from the cursor."""
    whole = history(20)
    later = TrackedPoints(Cursor())
    later.add(whole)
    expected = by_name(take(later, True))
    live, told = TrackedPoints(Cursor()), list[Point]()
    for time, killed in sorted(looks):
        if killed:
            live = TrackedPoints(Cursor.read(live.cursor.write()))
        live.add(filter(None, (seen_at(item, time) for item in whole)))
        told += take(live, False)
    live.add(whole)
    told += take(live, True)
    assert by_name(told) == expected
    assert len(expected["bytes"]) == 20
    assert expected["node/n1/loss"][0] == Point("node/n1/loss", 1, 1 / 8, 101.0)
    assert [point.step for point in expected["accuracy"]] == sorted(item.version for item in whole if item.round % 5)
    assert take(live, True) == []
    assert Cursor.read(live.cursor.write()) == live.cursor


def test_a_long_run_is_told_whole_and_not_kept_whole(monkeypatch) -> None:
    monkeypatch.setattr(tracked_points, "RECENT", 10)
    live, whole, told = TrackedPoints(Cursor()), history(200), list[Point]()
    for time in range(210):
        live.add(filter(None, (seen_at(item, time) for item in whole[max(0, time - 12) : time])))
        told += take(live, False)
        assert len(live._rounds) <= 40
    live.add(whole)
    later = TrackedPoints(Cursor())
    later.add(whole)
    assert by_name([*told, *take(live, True)]) == by_name(take(later, True))


def test_steps_of_gossip_nodes_are_told_once() -> None:
    steps = [
        GossipStep(node, life, step, 100.0 + step, 1.0, 0.5, 0.25, {"loss": step / 4})
        for node in ("a", "b")
        for life, many in ((0, 3), (1, 2))
        for step in range(many)
    ]
    first, points = TrackedPoints(Cursor()), list[Point]()
    points += first.of_steps([step for step in steps if step.incarnation == 0])
    second = TrackedPoints(Cursor.read(first.cursor.write()))
    points += second.of_steps(steps)
    assert list(second.of_steps(steps)) == []
    whole = by_name(TrackedPoints(Cursor()).of_steps(steps))
    assert by_name(points) == whole
    assert set(whole) == {f"node/{node}/{name}" for node in "ab" for name in ("mass", "trained_s", "blocked_s", "loss")}
    assert [point.step for point in whole["node/a/loss"]] == [0, 1, 2, 0, 1]


def test_a_node_that_invents_names_gets_no_more_curves_than_there_is_room_for() -> None:
    points, item = TrackedPoints(Cursor()), Round(1, "committed", committed_at=1.0)
    flood = {f"m{number:03}": (1.0, 2.0) for number in range(2 * MAX_NAMES)}
    told = list(
        points.of_round(
            item, [Update("a", "accepted", metrics={"loss": (2.0, 2.0)}), Update("b", "accepted", metrics=flood)]
        )
    )
    nodes = [point.name for point in told if point.name.startswith("node/")]
    assert nodes[0] == "node/a/loss"
    assert len(nodes) == MAX_NAMES
    of_versions = Round(
        2, "committed", version=2, metrics={f"nodes/x{number}": 1.0 for number in range(50)} | {"loss": 1.0}
    )
    points.add([of_versions])
    assert [point.name for point in points.of_versions(True)] == ["loss"]


def test_a_hostile_name_is_harmless() -> None:
    assert clean("a\x1b[31m\nb\u202e") == "a\\x1b[31m b\\u202e"
    assert len(clean("x" * 1000)) == MAX_NAME
    assert clean("") == "?"


@pytest.mark.parametrize("text", ['{"steps": {"n1": [1, 1', "[]", '{"rows": 3}', '{"steps": {"n1": 3}}'])
def test_a_cursor_that_cannot_be_read_says_what_to_do(text: str) -> None:
    with pytest.raises(Conflict, match="name another place"):
        Cursor.read(text)
