"""Who takes part in a round: drawn from the seed, in the order of the nodes, and never too few."""

from __future__ import annotations

from dataclasses import replace

import pytest

from covey.coordinator.modes.rounds.drawing import drawn, drawn_again, quorum_of
from covey.coordinator.modes.rounds.events import RoundPolicy

NODES = tuple(f"n{number}" for number in range(10))
POLICY = RoundPolicy(count=5, participants=4, seed=7)


@pytest.mark.parametrize(
    ("participants", "min_nodes", "eligible", "number"),
    [
        (1.0, 1, 10, 10),
        (0.25, 1, 10, 3),  # rounded up
        (0.01, 1, 10, 1),
        (4, 1, 10, 4),
        (4, 1, 3, 3),  # there are no more
        (1, 5, 10, 5),  # as many as the run needs
        (0.1, 5, 3, 3),
        (2, 1, 0, 0),
        (0.5, 3, 0, 0),
    ],
)
def test_as_many_are_drawn_as_are_wanted_needed_and_there(participants, min_nodes, eligible, number):
    policy = RoundPolicy(count=1, participants=participants, min_nodes=min_nodes)
    chosen = drawn(policy, NODES[:eligible], 1, 1)
    assert len(chosen) == number
    assert list(chosen) == sorted(set(chosen), key=NODES.index)
    assert set(chosen) <= set(NODES[:eligible])


def test_the_seed_decides_and_each_round_and_attempt_draws_anew():
    chosen = drawn(POLICY, NODES, 1, 1)
    assert drawn(POLICY, list(NODES), 1, 1) == chosen
    assert len({drawn(POLICY, NODES, round, 1) for round in range(1, 21)}) > 5
    assert len({drawn(POLICY, NODES, 1, attempt) for attempt in range(1, 21)}) > 5
    assert len({drawn(replace(POLICY, seed=seed), NODES, 1, 1) for seed in range(20)}) > 5


def test_over_many_rounds_every_node_is_drawn_about_equally_often():
    drawings = [drawn(POLICY, NODES, round, 1) for round in range(1, 501)]
    times = [sum(node in chosen for chosen in drawings) for node in NODES]
    assert sum(times) == 500 * 4
    assert min(times) > 150
    assert max(times) < 250


def test_all_are_taken_in_their_order_where_all_are_wanted():
    assert drawn(RoundPolicy(count=1), ("b", "c", "a"), 1, 1) == ("b", "c", "a")


@pytest.mark.parametrize("kept", [(), ("n3",), ("n0", "n9"), NODES[:4]])
def test_another_attempt_keeps_what_it_has_and_is_filled_up_to_the_wanted_number(kept):
    chosen = drawn_again(POLICY, NODES, 1, 2, kept)
    assert chosen >= set(kept)
    assert len(chosen) == 4
    assert chosen - set(kept) <= set(drawn(POLICY, NODES, 1, 2))


def test_more_updates_than_are_wanted_are_all_kept():
    assert drawn_again(POLICY, NODES, 1, 2, NODES[:6]) == set(NODES[:6])


def test_with_nobody_else_an_attempt_has_those_that_are_kept():
    assert drawn_again(POLICY, ("n1", "n2"), 1, 2, ("n1", "n2")) == {"n1", "n2"}


@pytest.mark.parametrize(
    ("quorum", "min_nodes", "invited", "needed"),
    [(1.0, 1, 5, 5), (0.5, 1, 5, 3), (0.5, 4, 5, 4), (0.01, 1, 5, 1), (1.0, 2, 0, 2)],
)
def test_a_round_needs_its_quorum_rounded_up_and_the_least_number_in_any_case(quorum, min_nodes, invited, needed):
    policy = RoundPolicy(count=1, quorum=quorum, min_nodes=min_nodes)
    assert quorum_of(policy, invited) == needed
