"""How a model spreads: once from the coordinator, then from node to node, and nobody waits for ever."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from covey.coordinator.nodes.spread import FED, MOST_HOLDERS, REMEMBERED, WAIT_S, Spread

ALL = [f"n{index}" for index in range(12)]


def ask(spread, node, now=0.0, *, lends=True, run="run", digest="model", reachable=ALL):
    return spread.asked(run, digest, node, now, lends=lends, reachable=reachable)


def report(spread, node, *, is_lent=True, liars=()):
    return spread.reported("model", node, liars, is_lent=is_lent)


def test_one_node_has_it_from_the_coordinator_and_then_two_of_each_that_has_it():
    spread = Spread()
    assert [ask(spread, node) for node in ALL] == ["grant", *["wait"] * 11]
    new, waiting = report(spread, "n0")
    assert (new, waiting) == ([], ALL[1:])
    assert [ask(spread, node) for node in waiting] == [("n0",), ("n0",), *["wait"] * 9]
    assert FED == 2
    report(spread, "n1")
    answers = [ask(spread, node) for node in ALL[3:]]
    assert [sorted(answer) for answer in answers[:3]] == [["n0", "n1"]] * 3  # n2 is still at it
    assert answers[3:] == ["wait"] * 6
    assert {answer[0] for answer in answers[:3]} == {"n0", "n1"}  # by turns


def test_nobody_waits_for_a_node_that_can_give_nothing_on():
    spread = Spread()
    assert ask(spread, "n0", lends=False) == "grant"
    assert ask(spread, "n1") == "grant"
    assert ask(spread, "n2") == "wait"
    report(spread, "n1", is_lent=False)
    assert ask(spread, "n2") == "grant"


def test_who_has_waited_long_enough_is_sent_somewhere_in_any_case():
    spread = Spread()
    ask(spread, "n0")
    assert ask(spread, "n1") == "wait"
    assert ask(spread, "n1", WAIT_S - 0.1) == "wait"
    assert ask(spread, "n1", WAIT_S) == "grant"
    report(spread, "n0")
    for node in ALL[2:]:
        ask(spread, node, 100.0)
    assert ask(spread, "n9", 100.0) == "wait"
    assert ask(spread, "n9", 100.0 + WAIT_S) == ("n0",)


def test_nobody_waits_twice_for_a_node_that_asks_first_and_then_does_nothing():
    spread = Spread()
    ask(spread, "n0")
    assert ask(spread, "n1") == "wait"
    assert ask(spread, "n1", WAIT_S) == "grant"
    assert ask(spread, "n0", WAIT_S, digest="next") == "grant"
    assert ask(spread, "n1", WAIT_S, digest="next") == "grant"  # not: wait for n0
    assert ask(spread, "n2", WAIT_S, digest="next") == "wait"  # for n1
    report(spread, "n0")  # it has come after all
    assert ask(spread, "n0", WAIT_S, digest="third") == "grant"
    assert ask(spread, "n1", WAIT_S, digest="third") == "wait"


def test_a_node_that_is_away_or_lied_is_not_named():
    spread = Spread()
    for node in ALL[: MOST_HOLDERS + 3]:
        spread.gave_up("run", "model", node, lends=True)
        report(spread, node)
    named = ask(spread, "n11", reachable=["n1", "n2", "n3"])
    assert sorted(named) == ["n1", "n2", "n3"]
    assert report(spread, "n11", is_lent=False, liars=["n2", "n7"])[0] == ["n2"]  # n7 was not named
    assert sorted(ask(spread, "n11", reachable=["n1", "n2", "n3"])) == ["n1", "n3"]
    assert len(ask(spread, "n10")) == MOST_HOLDERS
    other = Spread()
    assert ask(other, "n1", run="another") == "grant"


def test_a_node_that_is_lost_holds_nobody_up():
    spread = Spread()
    ask(spread, "n0")
    ask(spread, "n1")
    ask(spread, "n2")
    assert spread.lost("n1") == []
    assert spread.lost("n0") == [("n2", "model")]
    assert ask(spread, "n2") == "grant"


def test_what_is_kept_in_mind_is_bounded():
    spread = Spread()
    for index in range(REMEMBERED + 5):
        ask(spread, "n0", digest=f"file {index}")
    assert report(spread, "n0") == ([], [])
    assert len(spread._files) == REMEMBERED


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_whatever_nodes_do_each_one_that_goes_on_asking_is_served(seed):
    rng, spread, now = random.Random(seed), Spread(), 0.0
    missing, served_here = set(ALL), 0
    for _ in range(2000):
        if not missing:
            break
        now += rng.choice([0.0, 0.1, 5.0])
        node = rng.choice(sorted(missing))
        answer = ask(spread, node, now)
        assert node not in answer
        if answer == "wait":
            continue
        served_here += answer == "grant"
        match rng.choices(["has", "fails", "silent", "lost"], [6, 1, 1, 1])[0]:
            case "has":
                missing.discard(node)
                report(spread, node)
            case "fails":
                report(spread, node, is_lent=False, liars=[rng.choice(ALL)])
                spread.gave_up("run", "model", node, lends=True)
            case "lost":
                spread.lost(node)
    assert not missing
    assert served_here >= 1
