"""A newcomer that had no part of the data, while all were with others, is asked again once one of these is out."""

from __future__ import annotations

from dataclasses import replace

import pytest

from covey.coordinator.modes.rounds.events import Aggregate, Aggregated, Assign, OpenRound, Restored
from covey.coordinator.modes.rounds.machine import RoundMachine
from covey.coordinator.runs.assignments import free_part
from covey.machines.protocol import NodeAnswered, NodeJoined, NodeLost, NodeRemoved, Report, Started, Tick, UpdateStored
from tests.unit.coordinator.modes.rounds.round_machine import POLICY, kinds, started

NO_PART = "no-part: data.parts: the data are cut into 2 parts"
LEAST_RETRIES = replace(POLICY, max_retries=0)  # a part that has become free costs none
PARTS = 2


def two_and_a_newcomer(policy=LEAST_RETRIES):
    """The data are cut into two parts; the third node has none, and a has sent its update."""
    made, _ = started(policy)
    made.handle(NodeAnswered("c", 1, "declined", NO_PART, 1))
    made.handle(UpdateStored("a", 1, 1))
    return made


def lose(made, node, now):
    made.handle(NodeLost(node, now))
    return made.handle(Tick(now + POLICY.rejoin_s))


def assert_c_takes_the_part_of_b(made, actions):
    (opened,) = kinds(actions, OpenRound)
    assert (opened.attempt, opened.invited) == (2, ("a", "c"))
    assert kinds(actions, Assign) == [Assign("c", 1, 2)]
    assert free_part(opened.roster, PARTS, opened.invited, "c") == 1
    assert made.handle(UpdateStored("c", 1, 90)) == [Aggregate(1, ("a", "c"))]


@pytest.mark.parametrize(
    "out",
    [
        lambda made: lose(made, "b", 2),
        lambda made: made.handle(NodeAnswered("b", 1, "declined", "declined: no", 2)),
        lambda made: made.handle(NodeRemoved("b", 2)),
    ],
    ids=["lost", "declined", "evicted"],
)
def test_it_takes_the_part_of_a_node_that_is_out(out):
    made = two_and_a_newcomer()
    assert_c_takes_the_part_of_b(made, out(made))


def test_also_of_one_whose_update_the_rule_rejected():
    made = two_and_a_newcomer(replace(LEAST_RETRIES, quorum=0.5))
    assert made.handle(UpdateStored("b", 1, 2)) == [Aggregate(1, ("a", "b"))]
    assert_c_takes_the_part_of_b(made, made.handle(Aggregated(1, False, {"b": "non-finite"}, 3)))


def test_also_after_a_restart():
    restored = Restored(
        round=1,
        attempt=1,
        invited=("a", "b", "c"),
        answers={"a": "received", "b": "lost", "c": "declined"},
        reasons={"b": "no connection for 30 s", "c": NO_PART},
    )
    made = RoundMachine(LEAST_RETRIES, "abc", restored=restored)
    actions = [*made.handle(Started(0)), *made.handle(NodeJoined("a", 1)), *made.handle(NodeJoined("c", 2))]
    assert_c_takes_the_part_of_b(made, actions)


def test_while_the_others_are_at_work_it_is_left_out():
    made = two_and_a_newcomer()
    actions = made.handle(UpdateStored("b", 1, 2))
    assert [opened.invited for opened in kinds(actions, OpenRound)] == [("a", "b")]
    assert actions[-1] == Aggregate(1, ("a", "b"))


def test_of_two_newcomers_the_one_without_a_part_is_not_asked_time_and_again():
    made, _ = started(LEAST_RETRIES, nodes=("a", "b", "c", "d"))
    for node in "cd":
        made.handle(NodeAnswered(node, 1, "declined", NO_PART, 1))
    made.handle(UpdateStored("a", 1, 1))
    (opened,) = kinds(lose(made, "b", 2), OpenRound)
    assert opened.invited == ("a", "c", "d")
    assert [free_part(opened.roster, PARTS, opened.invited, node) for node in "cd"] == [1, -1]
    made.handle(NodeAnswered("d", 1, "declined", NO_PART, 40))
    actions = made.handle(UpdateStored("c", 1, 41))
    assert [again.invited for again in kinds(actions, OpenRound)] == [("a", "c")]
    assert actions[-1] == Aggregate(1, ("a", "c"))


def test_a_run_with_too_few_parts_for_its_nodes_waits_and_says_why():
    made, _ = started(replace(POLICY, min_nodes=3))
    for node in "ab":
        made.handle(UpdateStored(node, 1, 1))
    (report,) = kinds(made.handle(NodeAnswered("c", 1, "declined", NO_PART, 2)), Report)
    assert report.reason == f"round 1: c declined: {NO_PART}; 2 of 3 updates; waiting for more nodes"
