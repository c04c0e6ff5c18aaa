"""The machine of a gossip run at its coordinator: who takes part, what becomes of each part, when the run is over."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from covey.coordinator.modes.gossip import events as ev
from covey.coordinator.modes.gossip.machine import NEVER_THERE, NO_PART, GossipMachine, Member
from covey.coordinator.modes.registry import GOSSIP
from covey.machines import protocol as pr

POLICY = ev.GossipRunPolicy(2, gather_s=10.0, answer_s=60.0, away_s=100.0)
NODES = ("ada", "bob", "cyd")


def begun(*nodes: str, policy: ev.GossipRunPolicy = POLICY) -> GossipMachine:
    """A run that these nodes take part in, since time 0."""
    machine = GossipMachine(policy, expected=dict.fromkeys(nodes, 0.0))
    machine.handle(pr.Started(0.0))
    for node in nodes:
        machine.handle(pr.NodeJoined(node, 0.0))
    assert tuple(machine.parts) == nodes
    return machine


def said(node: str, state: ev.MemberState, now: float = 1.0, reason: str = "", incarnation: int = 1) -> ev.Stated:
    return ev.Stated(node, incarnation, state, reason, now)


def ends(actions: object) -> list[pr.FinishRun]:
    assert isinstance(actions, list)
    return [action for action in actions if isinstance(action, pr.FinishRun)]


def test_it_begins_with_all_that_are_there_and_waits_a_moment_for_those_who_were() -> None:
    machine = GossipMachine(POLICY, expected={"cyd": 0.0})
    assert machine.handle(pr.Started(0.0)) == [pr.Report("waiting for nodes: 0 of 2 are connected")]
    machine.handle(pr.NodeJoined("bob", 1.0))
    assert machine.handle(pr.NodeJoined("ada", 1.0)) == [pr.Report("waiting a moment for nodes that may come back")]
    assert machine.wake_at == 10.0
    began = machine.handle(pr.Tick(10.0))
    assert began == [pr.Report(""), ev.OpenGossip(("ada", "bob")), ev.SendOrder("ada"), ev.SendOrder("bob")]
    assert machine.handle(pr.NodeJoined("cyd", 11.0)) == [ev.TurnAway("cyd", NO_PART)]
    assert machine.handle(pr.NodeJoined("cyd", 12.0)) == []  # said once


def test_who_comes_late_joins_with_a_part_of_the_data_that_is_nobodys() -> None:
    machine = begun("ada", "bob", policy=replace(POLICY, parts=3))
    joined = machine.handle(pr.NodeJoined("cyd", 5.0))
    assert joined == [ev.Admit("cyd", 2), ev.Evict("cyd", 1, NEVER_THERE)]  # the third of three
    assert machine.handle(pr.NodeJoined("eve", 5.0)) == [ev.TurnAway("eve", NO_PART)]
    assert machine.handle(pr.NodeAnswered("bob", 1, "declined", "policy: no", 6.0)) == [
        ev.NoteMember("bob", "declined", "policy: no"),
        ev.Evict("bob", 1, "declined: policy: no"),
        ev.Admit("eve", 1),
        ev.Evict("eve", 1, NEVER_THERE),
    ]
    assert machine.handle(pr.NodeJoined("cyd", 8.0)) == [ev.SendOrder("cyd")]  # again: what it takes part in
    assert machine.handle(said("cyd", "working", incarnation=2)) == [ev.NoteMember("cyd", "working", "")]
    removed = machine.handle(pr.NodeRemoved("cyd", 9.0))
    assert ev.Evict("cyd", 2, "evicted: an admin evicted it") in removed
    machine.handle(said("ada", "completed"))
    assert machine.handle(pr.NodeJoined("fay", 10.0))[0] == ev.Admit("fay", 2)  # eve goes on
    assert ends(machine.handle(said("eve", "completed", incarnation=2))) == []
    machine.handle(said("fay", "completed", incarnation=2))
    assert machine.done


def test_a_restarted_coordinator_gives_nobodys_part_away() -> None:
    known = {"ada": Member("working"), "bob": Member("left"), "cyd": Member("working", incarnation=2, part=2)}
    machine = GossipMachine(replace(POLICY, parts=3), tuple(known), known=known)
    machine.handle(pr.Started(0.0))
    assert machine.handle(pr.NodeJoined("dan", 1.0))[0] == ev.Admit("dan", 1)  # of who left
    assert machine.handle(pr.NodeJoined("eve", 1.0)) == [ev.TurnAway("eve", NO_PART)]


def test_nodes_with_data_of_their_own_always_find_a_part_unless_the_run_is_closed_or_over() -> None:
    own = replace(POLICY, parts=None)
    machine = begun("ada", "bob", policy=own)
    assert machine.handle(pr.NodeJoined("cyd", 5.0))[0] == ev.Admit("cyd", 2)
    assert machine.handle(pr.NodeJoined("dan", 5.0))[0] == ev.Admit("dan", 3)
    closed = begun("ada", "bob", policy=replace(own, closed="its topology lists who takes part"))
    assert closed.handle(pr.NodeJoined("cyd", 5.0)) == [ev.TurnAway("cyd", "its topology lists who takes part")]
    ending = begun("ada", "bob", policy=own)
    for node in ("ada", "bob"):
        ending.handle(said(node, "failed"))
    assert ending.handle(pr.NodeJoined("cyd", 5.0)) == []  # there is nobody to join


def test_a_paused_coordinator_begins_none_and_a_run_in_progress_goes_on() -> None:
    machine = GossipMachine(POLICY)
    assert machine.handle(pr.PauseChanged(True, 0.0)) == []
    machine.handle(pr.Started(0.0))
    for node in NODES:
        machine.handle(pr.NodeJoined(node, 0.0))
    assert not machine.is_open
    assert any(isinstance(action, ev.OpenGossip) for action in machine.handle(pr.PauseChanged(False, 1.0)))
    assert machine.handle(pr.PauseChanged(True, 2.0)) == []


def test_without_a_place_none_begins() -> None:
    machine = GossipMachine(POLICY)
    machine.handle(pr.PlaceChanged(False, 0.0))
    machine.handle(pr.Started(0.0))
    said_now = [action for node in NODES for action in machine.handle(pr.NodeJoined(node, 0.0))]
    assert (said_now[-1], machine.is_open) == (pr.Report(pr.NO_PLACE), False)
    assert any(isinstance(action, ev.OpenGossip) for action in machine.handle(pr.PlaceChanged(True, 1.0)))


def test_it_is_completed_when_all_are_through() -> None:
    machine = begun(*NODES)
    for node in NODES[:2]:
        assert machine.handle(said(node, "working")) == [ev.NoteMember(node, "working", "")]
        assert machine.handle(said(node, "working")) == []
        assert machine.handle(said(node, "completed")) == [ev.NoteMember(node, "completed", "")]
    assert machine.handle(said("cyd", "left")) == [ev.NoteMember("cyd", "left", ""), pr.FinishRun("completed", "")]
    assert machine.done
    assert machine.wake_at is None
    assert machine.handle(pr.Tick(5.0)) == []


def test_who_declines_or_is_evicted_is_out_for_its_peers_too() -> None:
    machine = begun(*NODES)
    assert machine.handle(pr.NodeAnswered("ada", 1, "declined", "policy: no", 1.0)) == [
        ev.NoteMember("ada", "declined", "policy: no"),
        ev.Evict("ada", 1, "declined: policy: no"),
    ]
    machine.handle(said("bob", "working", incarnation=2))
    assert machine.handle(pr.NodeRemoved("bob", 2.0)) == [
        ev.NoteMember("bob", "evicted", "an admin evicted it"),
        ev.Evict("bob", 1, "evicted: an admin evicted it"),
        ev.Evict("bob", 2, "evicted: an admin evicted it"),
        ev.Evict("bob", 2, "evicted: an admin evicted it", for_good=True),
    ]
    assert machine.handle(pr.NodeRemoved("bob", 2.0)) == []
    assert machine.handle(pr.NodeRemoved("ada", 2.0)) == [  # it declined before, and is to come back no more
        ev.Evict("ada", 1, "evicted: an admin evicted it", for_good=True)
    ]
    assert machine.handle(said("bob", "completed")) == []
    assert machine.handle(pr.NodeJoined("ada", 3.0)) == []
    (end,) = ends(machine.handle(said("cyd", "completed")))
    assert end.state == "completed"
    assert end.reason == "1 completed; 1 declined (ada: policy: no); 1 evicted (bob: an admin evicted it)"


def test_a_run_that_nobody_completes_has_failed() -> None:
    machine = begun("ada", "bob")
    machine.handle(pr.NodeAnswered("ada", 1, "declined", "policy: no", 1.0))
    (end,) = ends(machine.handle(pr.NodeAnswered("bob", 1, "declined", "policy: neither", 1.0)))
    assert (end.state, end.reason) == ("failed", "2 declined (ada and bob: policy: neither)")


def test_who_never_answers_runs_an_older_version() -> None:
    machine = begun(*NODES)
    machine.handle(said("ada", "working"))
    machine.handle(said("bob", "working"))
    assert machine.wake_at == 60.0
    note, out = machine.handle(pr.Tick(60.0))
    assert isinstance(note, ev.NoteMember)
    assert (note.node, note.state) == ("cyd", "late")
    assert isinstance(out, ev.Evict)
    assert out.node == "cyd"


def test_a_node_without_a_connection_is_lost_only_once_all_others_are_through() -> None:
    machine = begun(*NODES)
    for node in NODES:
        machine.handle(said(node, "working"))
    machine.handle(pr.NodeLost("cyd", 10.0))
    assert machine.handle(pr.Tick(500.0)) == []
    machine.handle(said("ada", "completed", 501.0))
    note, end = machine.handle(said("bob", "completed", 502.0))[1:]
    assert note == ev.NoteMember("cyd", "lost", "it has no connection, and all others are through")
    assert isinstance(end, pr.FinishRun)
    assert end.state == "completed"
    assert "1 lost (cyd:" in end.reason


def test_one_that_comes_back_in_time_goes_on() -> None:
    machine = begun("ada", "bob")
    machine.handle(said("ada", "working"))
    machine.handle(said("bob", "completed"))
    machine.handle(pr.NodeLost("ada", 10.0))
    assert machine.wake_at == 110.0
    assert machine.handle(pr.NodeJoined("ada", 109.0)) == [ev.SendOrder("ada")]
    assert machine.handle(pr.Tick(300.0)) == []
    assert ends(machine.handle(said("ada", "completed", 301.0)))[0].reason == ""


def test_one_that_failed_may_be_started_again_until_all_others_are_through_for_a_while() -> None:
    machine = begun("ada", "bob")
    machine.handle(said("ada", "failed", 1.0, "store: the disk is full"))
    assert machine.handle(said("bob", "completed", 2.0)) == [ev.NoteMember("bob", "completed", "")]
    machine.handle(said("ada", "working", 50.0))
    machine.handle(said("ada", "failed", 60.0, "store: the disk is full"))
    assert machine.handle(pr.Tick(159.0)) == []
    (end,) = ends(machine.handle(pr.Tick(160.0)))
    assert end.reason == "1 completed; 1 failed (ada: store: the disk is full)"


def test_an_incarnation_that_retires_is_out_and_the_next_one_goes_on() -> None:
    machine = begun("ada", "bob")
    noted, out = machine.handle(said("ada", "retired"))
    assert isinstance(noted, ev.NoteMember)
    assert noted.state == "retired"
    assert isinstance(out, ev.Evict)
    assert (out.node, out.incarnation) == ("ada", 1)
    machine.handle(said("ada", "working", incarnation=2))
    assert machine.handle(said("ada", "retired")) == []  # what an older incarnation said counts no more
    machine.handle(said("ada", "completed", incarnation=2))
    assert ends(machine.handle(said("bob", "completed")))[0].reason == ""


def test_who_rejoins_and_states_nothing_is_evicted_as_its_peers_know_it() -> None:
    machine = begun("ada", "bob")
    machine.handle(said("ada", "retired"))  # the next incarnation takes part from now on
    out = machine.handle(pr.NodeRemoved("ada", 2.0))
    evicted = [(action.incarnation, action.for_good) for action in out if isinstance(action, ev.Evict)]
    assert evicted == [(1, False), (2, False), (2, True)]


def test_of_a_node_that_moves_again_and_again_the_others_are_told_now_and_then() -> None:
    machine = begun("ada", "bob", policy=replace(POLICY, tell_s=30.0, answer_s=600.0))
    assert machine.handle(ev.Moved("ada", 5.0)) == [ev.TellOthers("ada")]
    for now in (6.0, 7.0):
        assert machine.handle(ev.Moved("ada", now)) == []
    assert machine.wake_at == 35.0
    assert machine.handle(ev.Moved("bob", 8.0)) == [ev.TellOthers("bob")]
    assert machine.handle(pr.Tick(34.0)) == []
    assert machine.handle(pr.Tick(35.0)) == [ev.TellOthers("ada")]
    assert machine.handle(pr.Tick(36.0)) == []
    assert machine.handle(ev.Moved("ada", 70.0)) == [ev.TellOthers("ada")]


def test_the_operator_stops_it() -> None:
    machine = begun("ada", "bob")
    assert machine.handle(pr.StopRequested("stopped by root")) == [pr.FinishRun("stopped", "stopped by root")]


def test_it_goes_on_after_a_restart_of_the_coordinator() -> None:
    known = {"ada": Member("completed"), "bob": Member("working", incarnation=2), "cyd": Member("declined", "policy")}
    machine = GossipMachine(POLICY, ("ada", "bob", "cyd"), known=known)
    assert machine.handle(pr.PauseChanged(False, 1000.0)) == []
    assert machine.handle(pr.Started(1000.0)) == []
    assert machine.handle(pr.NodeJoined("bob", 1001.0)) == [ev.SendOrder("bob")]
    assert machine.expects("bob", 1)
    assert not machine.expects("ada", 1)
    assert not machine.expects("bob", 2)
    (end,) = ends(machine.handle(said("bob", "completed", 1002.0, incarnation=2)))
    assert end.reason == "2 completed; 1 declined (cyd: policy)"


nodes = st.sampled_from(NODES)
states = st.sampled_from(["working", "completed", "left", "failed", "retired"])


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["join", "lose", "remove", "decline", "state", "wait"]), nodes, states)))
def test_whatever_happens_every_part_is_counted_and_the_state_can_be_written(
    steps: list[tuple[str, str, ev.MemberState]],
) -> None:
    machine, now, finished = begun(*NODES), 0.0, 0
    for what, node, state in steps:
        now += 30.0
        event = {
            "join": pr.NodeJoined(node, now),
            "lose": pr.NodeLost(node, now),
            "remove": pr.NodeRemoved(node, now),
            "decline": pr.NodeAnswered(node, 1, "declined", "policy: no", now),
            "state": said(node, state, now),
            "wait": pr.Tick(now),
        }[what]
        actions = machine.handle(event)
        finished += sum(isinstance(action, pr.FinishRun) for action in actions)
        assert json.dumps(GOSSIP.to_json(machine))
        assert machine.wake_at is None or machine.wake_at > now
    assert finished == machine.done
    if machine.done:
        assert {part.state for part in machine.parts.values()} <= {*ev.FOR_GOOD, "failed", "retired"}


@pytest.mark.parametrize("state", ["declined", "evicted"])
def test_who_is_out_is_out_once(state: ev.MemberState) -> None:
    out = Member(state, is_out_for_good=True)
    machine = GossipMachine(POLICY, NODES, known={node: Member() for node in NODES} | {"ada": out})
    machine.handle(pr.Started(0.0))
    assert machine.handle(pr.NodeRemoved("ada", 1.0)) == []
