from __future__ import annotations

from covey.machines.membership import Membership


def test_the_roster_is_only_ever_appended_to_by_name():
    members = Membership(["b"])
    for node in ("z", "a"):
        members.join(node)
    assert members.eligible() == ["a", "z"]
    members.join("c")
    members.join("b")
    assert members.eligible() == ["b", "a", "z", "c"]
    assert members.roster == ["b", "a", "z", "c"]


def test_a_node_that_is_away_is_expected_until_its_time_is_up():
    members = Membership(["a", "b"], expected={"c": 90.0})
    members.start(100.0)
    members.join("a")
    assert members.connected() == ["a"]
    assert members.eligible() == ["a", "b", "c"]
    assert sorted(members.give_up_times(30.0)) == [120.0, 130.0]
    assert members.give_up(119.0, 30.0) == []
    assert members.give_up(120.0, 30.0) == ["c"]
    assert members.give_up(130.0, 30.0) == ["b"]
    assert members.eligible() == ["a"]
    assert members.roster == ["a", "b", "c"]


def test_who_was_at_work_is_expected_from_the_start_on_however_long_ago_it_was_seen():
    members = Membership(["a", "b"], expected={"a": 10.0, "b": 10.0})
    members.start(100.0, at_work=["a"])
    assert members.give_up(100.0, 30.0) == ["b"]


def test_only_who_was_there_can_leave():
    members = Membership([])
    assert not members.leave("a", 1.0)
    assert members.eligible() == []
    members.join("a")
    assert members.leave("a", 2.0)
    assert members.give_up_times(30.0) == [32.0]
    members.join("a")
    assert members.give_up_times(30.0) == []


def test_who_is_removed_is_not_expected():
    members = Membership(["a", "b"], expected={"b": 0.0})
    members.join("a")
    for node in ("a", "b"):
        members.remove(node)
    assert members.eligible() == []
    assert members.present == set()


def test_why_a_node_is_gone():
    members = Membership(["a", "b"], expected={"c": 0.0})
    members.join("a")
    members.start(10.0)
    assert [members.why_gone(node) for node in "abc"] == ["", "", ""]
    members.remove("a")
    members.give_up(30.0, 30.0)
    assert [members.why_gone(node) for node in "abc"] == ["removed", "", "given up"]
    members.join("a")
    members.leave("a", 31.0)
    members.give_up(100.0, 30.0)
    assert members.why_gone("a") == "given up"
