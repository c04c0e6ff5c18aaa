"""Who has a place on which node, and who is next."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from covey.machines.places import COPIES, LENT, MOST_IDLE, NO_NODE, Places, Room, Want

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


def test_runs_that_say_what_they_take_of_a_gpu_share_one_as_it_holds_them():
    places = Places()
    places.joined("n1", Room(16, gpu_bytes=None))
    places.joined("n2", Room(16))  # it has none
    huge, small, other = want("huge", gpu_bytes=90 * GIB), want("small", gpu_bytes=6 * GIB), want("says nothing")
    assert chosen(places, huge)[0] == ["huge"]
    places.enter(small)
    assert chosen(places, small, other)[0] == ["says nothing", "small"]
    waits = chosen(places, want("next", gpu_bytes=GIB))[1]["next"]
    assert waits == "waits for a place on n1: it has not said yet what memory its GPU has"
    places.learned("n1", Room(1, GIB, 8 * GIB))  # of the rest, what it said as it came holds
    places.learned("n1", Room(16, gpu_bytes=80 * GIB))
    assert places.room("n1") == Room(16, 0, 8 * GIB)
    assert chosen(places, want("fits", gpu_bytes=2 * GIB), other)[0] == ["fits", "says nothing"]
    waits = chosen(places, want("next", gpu_bytes=3 * GIB))[1]["next"]
    assert waits == "waits for a place on n1: 9.0 GiB of GPU memory for 2 runs are more than its 8.0"


def test_a_node_that_comes_back_and_has_not_said_what_its_gpu_has_counts_with_what_it_had():
    places = Places()
    places.joined("n1", Room(2, gpu_bytes=80 * GIB))
    for name in ("a", "b"):
        places.enter(want(name, gpu_bytes=8 * GIB))
    places.left("n1")
    assert places.joined("n1", Room(2, gpu_bytes=None)) == frozenset()
    assert chosen(places, want("c", gpu_bytes=8 * GIB))[0] == []
    places.learned("n1", Room(2, gpu_bytes=None))
    assert places.room("n1") == Room(2, 0, 80 * GIB)
    places.learned("n1", Room(2, gpu_bytes=20 * GIB))  # it has another one now
    assert places.room("n1") == Room(2, 0, 20 * GIB)
    assert [places.admits(run, "n1") for run in ("a", "b")] == [True, True]
    places.learned("n1", Room(2, gpu_bytes=99 * GIB))
    assert places.room("n1") == Room(2, 0, 20 * GIB)


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


def test_one_whose_place_was_lent_stands_aside_until_there_is_one_for_it(places):
    places.max_runs = 2
    for number in range(1, 4):
        places.joined(f"n{number}", Room(1))
    first = frozenset({"n1"})
    places.enter(want("hangs", scope=first))
    places.enter(want("other", scope=frozenset({"n2"})))
    places.idle = frozenset({"hangs"})
    assert chosen(places, want("next", scope=first), most=1)[0] == ["next"]
    places.enter(want("next", scope=first))
    assert places.aside == {"hangs"}
    places.idle = frozenset()  # it could go on
    places.settle()
    assert places.aside == {"hangs"}
    assert places.lacking("hangs") == "waits for a place on the coordinator: 2 of 2 runs"
    places.leave("other")
    places.settle()
    assert places.lacking("hangs") == "waits for a place on n1: 1 of 1 runs"
    order, reasons = chosen(places, want("late", scope=first))
    assert (order, reasons["late"]) == ([], "waits for a place on n1: 1 of 1 runs")
    places.leave("next")
    assert chosen(places)[0] == []
    places.settle()
    assert (places.aside, places.lacking("hangs")) == (set(), "")


def test_one_that_stands_aside_with_work_on_a_node_goes_on_with_it_when_the_node_comes_back(places):
    places.joined("n1", Room(1))
    places.enter(want("silent"))
    places.idle = frozenset({"silent"})
    places.enter(want("next"))
    places.left("n1")
    assert places.joined("n1", Room(1)) == frozenset()
    assert (places.aside, places.admits("silent", "n1"), places.admits("next", "n1")) == ({"silent"}, True, True)


def test_one_that_still_hangs_has_its_places_back_only_where_nobody_else_takes_them(places):
    places.max_runs = 1
    places.enter(want("hangs"))
    places.idle = frozenset({"hangs"})
    places.enter(want("next"))
    places.leave("next")
    places.settle()
    assert (places.aside, places.lacking("hangs")) == ({"hangs"}, LENT)
    places.settle(left_over=True)
    assert places.aside == set()
    places.enter(want("another"))
    assert places.aside == {"hangs"}


def test_a_node_that_comes_back_for_fewer_runs_works_for_the_first_of_them(places):
    places.enter(want("one", submitted_at=1.0))
    places.enter(want("two", submitted_at=2.0))
    places.left("n1")
    assert places.joined("n1", Room(1)) == {"two"}
    assert (places.admits("one", "n1"), places.admits("two", "n1")) == (True, False)


def test_a_study_has_no_more_runs_at_once_than_its_file_says():
    waiting = [want(f"b{number}", study="brain") for number in range(3)]
    places = Places()
    places.joined("n1", Room())
    places.study_runs = {"brain": 2}
    order, reasons = chosen(places, *waiting, want("h", study="heart"))
    assert sorted(order) == ["b0", "b1", "h"]
    assert reasons == {"b2": "waits for a place in the study 'brain': 2 of 2 runs"}
    for each in waiting[:2]:
        places.enter(each)
    places.idle = frozenset({"b0"})
    places.enter(waiting[2])
    assert places.aside == {"b0"}


def test_of_equal_priority_places_are_dealt_to_the_study_with_the_fewest():
    places = Places()
    places.joined("n1", Room())
    places.enter(want("b0", study="brain"))
    waiting = [want(f"b{number}", study="brain", submitted_at=float(number)) for number in range(1, 6)]
    others = [want("h1", study="heart", submitted_at=90.0), want("h2", study="heart", submitted_at=91.0)]
    order, _ = chosen(places, *waiting, *others, want("x", submitted_at=99.0), most=6)
    assert order == ["h1", "x", "b1", "h2", "b2", "b3"]
    urgent = want("b9", study="brain", priority=1, submitted_at=99.0)
    assert chosen(places, *others, urgent, most=2)[0] == ["b9", "h1"]


NODES = ("n1", "n2", "n3")
RUNS = st.sampled_from([f"r{number}" for number in range(9)])


@settings(max_examples=40, stateful_step_count=30, deadline=None)
class Interleavings(RuleBasedStateMachine):
    """Nodes come and go, runs hang and go on: rounds are opened by those that have a place, and by no more of them."""

    def __init__(self):
        super().__init__()
        self.places, self.queue, self.rooms = Places(), {}, {}
        self.places.max_runs, self.places.study_runs = 3, {"a": 2}

    @rule(run=RUNS, priority=st.integers(0, 1), study=st.sampled_from(["", "a", "b"]), gib=st.sampled_from([0, 1, 3]),
          scope=st.none() | st.frozensets(st.sampled_from(NODES), min_size=1))  # fmt: skip
    def submit(self, run, priority, study, gib, scope):
        if run not in self.places._wants:
            self.queue[run] = want(run, priority=priority, study=study, model_bytes=gib * GIB // COPIES, scope=scope)

    @rule(node=st.sampled_from(NODES), most=st.integers(0, 2), gib=st.sampled_from([0, 4]))
    def joins(self, node, most, gib):
        self.rooms[node] = Room(most, gib * GIB)
        self.places.joined(node, self.rooms[node])

    @rule(node=st.sampled_from(NODES))
    def leaves(self, node):
        self.places.left(node)

    @rule(data=st.data())
    def look(self, data):
        """Some runs hang now, and some of those wait for nodes; then the scheduler looks."""
        known = sorted(self.places._wants)
        hang = data.draw(st.frozensets(st.sampled_from(known))) if known else frozenset()
        self.places.idle = hang
        self.places.waiting = data.draw(st.frozensets(st.sampled_from(sorted(hang)))) if hang else hang
        self.schedule()

    def schedule(self):
        self.places.settle()
        order, _ = self.places.choose(self.queue.values(), 3 - self.places.working, FULL)
        for each in order:
            self.places.enter(self.queue.pop(each.run))
        if not order:
            self.places.settle(left_over=True)

    @rule(run=RUNS)
    def ends_one(self, run):
        self.places.leave(run)

    @invariant()
    def no_more_rounds_than_places(self):
        opening = [each for run, each in self.places._wants.items() if run not in self.places.aside]
        assert len(opening) <= 3
        assert sum(each.study == "a" for each in opening) <= 2
        for node, room in self.rooms.items():
            here = [each for each in opening if self.places.admits(each.run, node)]
            assert not room.max_runs or len(here) <= room.max_runs
            need = COPIES * sum(each.model_bytes for each in here)
            assert not room.memory_bytes or len(here) < 2 or need <= room.memory_bytes

    def teardown(self):
        """All nodes are there, nothing hangs any more: every run has its turn."""
        for node in NODES:
            self.joins(node, 1, 0)
        self.places.idle = self.places.waiting = frozenset()
        left = {*self.queue, *self.places._wants}
        while left:
            self.schedule()
            self.no_more_rounds_than_places()
            turns = {run for run in self.places._wants if run not in self.places.aside}
            assert turns, "nobody has a place"
            for run in turns:
                self.places.leave(run)
            left -= turns


TestInterleavings = Interleavings.TestCase
