"""Who has a place on which node, and who is next."""

from __future__ import annotations

from dataclasses import replace

import pytest

from covey.machines.places import COPIES, MOST_IDLE, NO_NODE, Places, Room, Want

FULL = "the coordinator is full"
GIB = 1 << 30


@pytest.fixture
def places():
    """Four nodes that take two runs each."""
    made = Places()
    for number in range(1, 5):
        made.joined(f"n{number}", Room(2))
    return made


def want(run, **changes):
    return replace(Want(run), **changes)


def chosen(places, *waiting, most=16):
    runs, reasons = places.choose(waiting, most, FULL)
    return [each.run for each in runs], reasons


def test_those_in_progress_come_first_then_priority_then_age():
    places = Places()
    places.joined("n1", Room())
    waiting = [
        want("young", submitted_at=2.0),
        want("old", submitted_at=1.0),
        want("urgent", priority=5, submitted_at=3.0),
        want("late", priority=-5),
        want("began", priority=-9, started=True),
    ]
    order, reasons = chosen(places, *waiting, most=4)
    assert order == ["began", "urgent", "old", "young"]
    assert reasons == {"late": FULL}


def test_a_run_waits_until_every_node_of_it_has_a_place(places):
    places.joined("n2", Room(1))
    places.enter(want("one"))
    order, reasons = chosen(places, want("two"), want("three"))
    assert order == []
    assert reasons["two"] == reasons["three"] == "waits for a place on n2: 1 of 1 runs"
    places.leave("one")
    order, reasons = chosen(places, want("two"), want("three"))
    assert order == ["three"]  # of the same age, by id
    assert reasons == {"two": "waits for a place on n2: 1 of 1 runs"}


def test_nodes_that_are_full_are_named_together(places):
    for run in ("one", "two"):
        places.enter(want(run))
    assert chosen(places, want("three"))[1] == {"three": "waits for a place on n1, n2, n3 and n4: 2 of 2 runs"}


def test_a_run_that_needs_many_nodes_is_not_passed_by_small_ones_for_ever(places):
    first = frozenset({"n1"})
    for run in ("a", "b"):
        places.enter(want(run, scope=first))
    small = want("small", scope=frozenset({"n2"}), submitted_at=2.0)
    order, reasons = chosen(places, want("large", submitted_at=1.0), small)
    assert order == []
    assert reasons["small"] == "waits for a place on n2, which another run is to have first"
    order, _ = chosen(places, want("large", submitted_at=3.0), small)
    assert order == ["small"]


def test_a_node_that_takes_one_run_serves_the_first_when_it_comes_late(places):
    places.enter(want("one", submitted_at=1.0))
    places.enter(want("two", submitted_at=2.0))
    places.joined("n5", Room(1))
    assert (places.admits("one", "n5"), places.admits("two", "n5")) == (True, False)
    assert places.lacking("two") == "waits for a place on n5: 1 of 1 runs"
    places.left("n5")
    places.joined("n5", Room(1))
    assert places.admits("one", "n5")  # it comes back to whom it works for
    places.leave("one")
    assert places.settle() == [("two", "n5")]
    assert places.lacking("two") == ""


def test_a_run_that_does_nothing_keeps_no_place_from_others_and_keeps_its_own(places):
    for run in ("wedged", "works"):
        places.enter(want(run))
    places.idle = frozenset({"wedged"})
    assert chosen(places, want("next"))[0] == ["next"]
    assert places.admits("wedged", "n1")
    places.enter(want("next"))
    assert chosen(places, want("another"))[0] == []


def test_runs_share_a_node_as_its_memory_allows_and_one_alone_never_waits_for_it(places):
    places = Places()
    places.joined("n1", Room(16, 8 * GIB))
    large = GIB // COPIES * 5
    assert chosen(places, want("huge", model_bytes=100 * GIB))[0] == ["huge"]
    places.enter(want("one", model_bytes=large))
    assert chosen(places, want("small", model_bytes=GIB // COPIES))[0] == ["small"]
    order, reasons = chosen(places, want("two", model_bytes=large))
    assert order == []
    assert reasons["two"] == "waits for a place on n1: 10.0 GiB for 2 runs are more than its 8.0"
    assert chosen(places, want("unknown"))[0] == ["unknown"]


def test_a_node_outside_a_run_s_scope_is_none_of_it(places):
    places.enter(want("scoped", scope=frozenset({"n1"})))
    assert [node for node in ("n1", "n2") if places.admits("scoped", node)] == ["n1"]
    assert places.lacking("scoped") == ""


def test_who_says_nothing_has_no_limit():
    places = Places()
    places.joined("old", Room())
    for number in range(16):
        places.enter(want(f"run-{number}", model_bytes=GIB))
    assert chosen(places, want("one more"))[0] == ["one more"]


def test_one_that_wedges_many_times_starves_nobody(places):
    """As many wedged runs as there are places: those that work go on one after another."""
    for number in range(2):
        places.enter(want(f"wedged-{number}", priority=100))
    places.idle = frozenset({"wedged-0", "wedged-1"})
    done = []
    waiting = {f"run-{number}": want(f"run-{number}") for number in range(5)}
    while waiting:
        order, _ = chosen(places, *waiting.values(), most=2)
        assert order
        for run in order:
            places.enter(waiting.pop(run))
        for run in order:
            places.leave(run)
            done.append(run)
    assert sorted(done) == [f"run-{number}" for number in range(5)]


def test_while_no_node_is_connected_as_many_begin_as_may_work_at_once():
    places = Places()
    began = [want(f"began-{number}", started=True) for number in range(3)]
    order, reasons = chosen(places, *began, want("new"), most=2)
    assert (order, reasons) == (["began-0", "began-1"], {"began-2": FULL, "new": FULL})
    for each in began[:2]:
        places.enter(each)
    places.idle = places.waiting = frozenset(order)
    assert chosen(places, began[2], want("new"), most=2) == ([], {"began-2": NO_NODE, "new": NO_NODE})
    places.joined("n1", Room())
    elsewhere = want("elsewhere", scope=frozenset({"n2"}))
    assert chosen(places, elsewhere, want("here"), most=2) == (["here"], {"elsewhere": NO_NODE})


def test_a_node_that_comes_takes_no_more_than_it_says_also_of_runs_that_waited():
    places = Places()
    for number in range(4):
        places.enter(want(f"run-{number}", submitted_at=float(number)))
    places.idle = places.waiting = frozenset({f"run-{number}" for number in range(4)})
    places.joined("n1", Room(1))
    assert [number for number in range(4) if places.admits(f"run-{number}", "n1")] == [0]
    assert places.settle()[0] == ("run-1", "n1")  # it was not enough for the first one
    places.left("n1")
    assert "run-1" in places.joined("n1", Room(1))  # its hours begin, and it opens a new session
    assert [number for number in range(4) if places.admits(f"run-{number}", "n1")] == [0]
    places.idle, places.waiting = frozenset({"run-0"}), frozenset()  # silent, and with work there
    assert (places.joined("n1", Room(1)), places.admits("run-0", "n1")) == (frozenset(), True)


def test_a_node_that_is_away_for_a_moment_is_as_full_as_before(places):
    places.joined("n1", Room(1))
    places.enter(want("one"))
    places.left("n1")
    assert chosen(places, want("two")) == ([], {"two": "waits for a place on n1: 1 of 1 runs"})
    places.joined("n1", Room(2))
    places.left("n1")
    places.enter(want("two"))
    assert places.admits("two", "n1")
    assert chosen(places, want("three"))[0] == []
    for run in ("one", "two"):
        places.leave(run)
    assert chosen(places, want("three"))[0] == ["three"]


def test_a_node_that_is_shut_out_is_waited_for_by_nobody(places):
    places.joined("n1", Room(1))
    places.enter(want("one"))
    places.left("n1")
    places.gone("n1")
    assert chosen(places, want("two"))[0] == ["two"]
    assert not places.admits("one", "n1")


def test_a_study_whose_runs_are_idle_leaves_room_for_others(places):
    idle = [f"idle-{number}" for number in range(MOST_IDLE)]
    for run in idle:
        places.enter(want(run, study="brain"))
    waiting = want("next", study="brain"), want("heart", study="heart"), want("began", study="brain", started=True)
    places.idle = frozenset(idle)
    order, reasons = chosen(places, *waiting)
    assert order == ["began", "heart"]
    assert "of the study 'brain'" in reasons["next"]
    places.leave(idle[0])
    assert "next" in chosen(places, waiting[0])[0]
