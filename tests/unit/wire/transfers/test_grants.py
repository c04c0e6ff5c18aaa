import pytest
from hypothesis import given
from hypothesis import strategies as st

from covey.wire.transfers.grants import Grants


def test_slots_go_first_come_first_served():
    grants = Grants(slots=2)
    assert [grants.request(f"k{i}", f"n{i}") for i in range(5)] == [True, True, False, False, False]
    assert grants.release("k1") == ["k2"]
    assert grants.drop("n3") == []
    assert grants.release("k0") == ["k4"]
    assert [grants.holds(f"k{i}") for i in range(5)] == [False, False, True, False, True]


def test_small_transfers_never_wait_and_hold_no_slot():
    grants = Grants(slots=1)
    assert grants.request("big", "n0")
    assert grants.request("small", "n1", small=True)
    assert not grants.holds("small")
    assert grants.release("small") == []
    assert grants.holds("big")


def test_everything_can_be_said_twice():
    grants = Grants(slots=1)
    assert grants.request("a", "n0")
    assert grants.request("a", "n0")
    assert not grants.request("b", "n1")
    assert not grants.request("b", "n1")
    assert grants.release("a") == ["b"]
    assert grants.release("a") == []
    assert grants.request("b", "n1")
    assert grants.drop("n1") == []
    assert grants.drop("n1") == []
    assert not grants.holds("b")


def test_a_new_request_of_a_holder_replaces_its_earlier_one():
    grants = Grants(slots=1)
    assert grants.request("old", "n0")
    assert not grants.request("b-old", "n1")
    assert not grants.request("c", "n2")
    assert grants.request("new", "n0")
    assert not grants.holds("old")
    assert not grants.request("b", "n1")
    assert grants.release("old") == []
    assert grants.release("new") == ["b"]


def test_a_queued_transfer_can_be_withdrawn():
    grants = Grants(slots=1)
    grants.request("a", "n0")
    grants.request("b", "n1")
    grants.request("c", "n2")
    assert grants.release("b") == []
    assert grants.release("a") == ["c"]


def test_no_slots_are_refused():
    with pytest.raises(ValueError, match="at least 1"):
        Grants(slots=0)


HOLDERS = st.sampled_from(["n0", "n1", "n2", "n3"])
KEYS = st.sampled_from(["x", "y"])
STEPS = st.lists(st.tuples(st.sampled_from(["request", "release", "drop"]), HOLDERS, KEYS), max_size=60)


@given(slots=st.integers(1, 3), steps=STEPS)
def test_against_a_plain_list(slots, steps):
    """The oracle is one list in order of asking: whoever is granted, then whoever waits."""
    grants: Grants[tuple[str, str]] = Grants(slots)
    granted: dict[str, tuple[str, str]] = {}
    waiting: list[tuple[str, tuple[str, str]]] = []
    for what, holder, name in steps:
        key = (holder, name)
        expected = []
        if what == "request":
            ask = grants.request(key, holder)
            if holder in granted or len(granted) < slots:
                granted[holder] = key
                assert ask
            else:
                place = next((i for i, (other, _) in enumerate(waiting) if other == holder), len(waiting))
                waiting[place : place + 1] = [(holder, key)]
                assert not ask
        else:
            answer = grants.release(key) if what == "release" else grants.drop(holder)
            if what == "drop" or granted.get(holder) == key:
                granted.pop(holder, None)
            waiting = [(h, k) for h, k in waiting if (k != key if what == "release" else h != holder)]
            while waiting and len(granted) < slots:
                other, other_key = waiting.pop(0)
                granted[other] = other_key
                expected.append(other_key)
            assert answer == expected
        assert len(granted) <= slots
        for other in ("n0", "n1", "n2", "n3"):
            for each in ("x", "y"):
                assert grants.holds((other, each)) == (granted.get(other) == (other, each))
