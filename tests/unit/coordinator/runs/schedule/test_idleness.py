"""When a run does nothing that would keep a place from others."""

from __future__ import annotations

from dataclasses import replace

import pytest

from covey.coordinator.runs.schedule.idleness import SILENT_S, UNDECIDED_S, WAITS_S, Idleness
from covey.machines.protocol import NodeJoined


@pytest.fixture
def clock():
    """What the run's clock says; tests set it."""
    return [1000.0]


@pytest.fixture
def run(world, clock):
    world.services = replace(world.services, clock=lambda: clock[0])
    world.submit()
    return world.active("run")


@pytest.fixture
def idleness(world, run):
    return Idleness(world.services)


def test_one_that_waits_for_nodes_does_nothing_after_a_moment(run, idleness, clock):
    run.facts.waiting = True
    assert not idleness.of(run)
    clock[0] += WAITS_S
    assert idleness.of(run)
    run.facts.waiting = False
    assert not idleness.of(run)


def test_one_to_which_a_node_came_has_a_moment_to_go_on(run, idleness, clock):
    run.facts.waiting = True
    assert not idleness.of(run)
    clock[0] += WAITS_S
    run.post(NodeJoined("ada", clock[0]))
    assert not idleness.of(run)
    clock[0] += WAITS_S
    assert idleness.of(run)


def test_one_whose_nodes_are_silent_does_nothing_until_one_is_heard(run, idleness, clock):
    assert not idleness.of(run)
    clock[0] += SILENT_S
    assert idleness.of(run)
    run.post(object())
    assert not idleness.of(run)


def test_one_that_only_lacks_a_place_is_not_taken_for_one_that_hangs(run, idleness, clock):
    run.facts.lacks_place = True
    assert not idleness.of(run)
    clock[0] += UNDECIDED_S
    assert not idleness.of(run)
    run.facts.lacks_place = False  # it has one again, and as much time as any other
    clock[0] += SILENT_S - 1
    assert not idleness.of(run)
    clock[0] += 1
    assert idleness.of(run)


def test_one_whose_rounds_never_close_does_nothing_whatever_its_nodes_say(run, idleness, clock):
    for _ in range(int(UNDECIDED_S // 100)):
        assert not idleness.of(run)
        clock[0] += 100.0
        run.heard_at = clock[0]
    assert idleness.of(run)
    run.facts.committed += 1
    assert not idleness.of(run)


def test_nobody_is_to_blame_while_the_coordinator_is_paused(world, run, idleness, clock):
    world.operation.paused = run.facts.waiting = True
    for _ in range(3):
        clock[0] += UNDECIDED_S
        assert not idleness.of(run)
    world.operation.paused = False
    assert not idleness.of(run)
