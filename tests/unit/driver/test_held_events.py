"""Which of an event's repetitions a machine is told, by the times alone."""

from __future__ import annotations

from covey.driver.coalescing import APART_S, Coalescing


def test_one_in_a_second_is_told_and_of_the_others_the_last_is_held():
    repeats = Coalescing[str]()
    assert repeats.is_due("ada", "first", 0.0)
    assert not repeats.is_due("ada", "second", APART_S / 2)
    assert not repeats.is_due("ada", "third", APART_S * 0.9)
    assert repeats.holds
    assert repeats.release(APART_S * 0.9) == ["third"]
    assert not repeats.holds
    assert repeats.release(APART_S) == []


def test_what_was_held_is_dropped_when_a_newer_one_is_told():
    repeats = Coalescing[str]()
    repeats.is_due("ada", "first", 0.0)
    repeats.is_due("ada", "second", 0.5)
    assert repeats.is_due("ada", "third", APART_S)
    assert not repeats.holds


def test_keys_do_not_hold_each_other_back_and_are_released_in_their_order():
    repeats = Coalescing[str]()
    for node in ("ada", "bob"):
        assert repeats.is_due(node, f"first of {node}", 0.0)
    for node in ("bob", "ada", "bob"):
        assert not repeats.is_due(node, f"more of {node}", 0.5)
    assert repeats.release(0.5) == ["more of bob", "more of ada"]


def test_a_release_counts_as_telling():
    repeats = Coalescing[str]()
    repeats.is_due("ada", "first", 0.0)
    repeats.is_due("ada", "second", 0.75)
    repeats.release(0.75)
    assert not repeats.is_due("ada", "third", 1.5)
    assert repeats.is_due("ada", "fourth", 1.75)
