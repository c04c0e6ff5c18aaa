"""Several runs at once: how many, which ones, and what one does to the others."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest

from covey.coordinator.modes.registry import take_up
from covey.coordinator.runs.active_run import ActiveRun
from covey.coordinator.studies import Studies
from covey.errors import Fenced, StoreError
from covey.machines.places import NO_NODE, Room
from covey.machines.protocol import NodeJoined, NodeLost
from covey.testing.store import records as make
from tests.unit.coordinator.world import ROUNDS


class Ends(ActiveRun):
    """A run that ends as it is told to."""

    def __init__(self, services, run, outcomes):
        super().__init__(services, run, lambda active: take_up(services, run).mode)
        self._outcome = outcomes.setdefault(run.run, asyncio.get_running_loop().create_future())
        self._services = services

    async def execute(self):
        state = await self._outcome
        await self.persist(self.record.finish_run, self.run.run, state, "", 1.0)


@pytest.fixture
def outcomes():
    """Run to the future that ends it, once it is taken up."""
    return {}


@pytest.fixture
async def scheduled(world, outcomes):
    """Starts a scheduler: `scheduled(max_runs)`."""
    tasks = []

    def start(max_runs=2):
        scheduler = world.scheduler(max_runs, lambda services, run: Ends(services, run, outcomes))
        tasks.append(asyncio.create_task(scheduler.serve()))
        return scheduler, tasks[-1]

    yield start
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def active(world, *runs):
    """Wait until just these runs are active."""
    while tuple(world.runs.active) != runs:
        await world.changes.after(world.changes.count)


async def settled(world):
    """Wait until the scheduler, once woken, has asked the record and done what there was to do."""
    for _ in range(10):
        await world.store.call(world.record.nodes)


async def test_a_run_on_record_that_asks_for_more_than_any_gpu_has_is_taken_up(world, scheduled, outcomes):
    known = world.submit("run")
    spec = json.loads(known.spec)
    spec["training"]["gpu_memory_gib"] = 1e300
    world.record.add_run(replace(known, run="huge", spec=json.dumps(spec), submitted_at=0.0))
    scheduled(2)
    await active(world, "huge", "run")


async def test_those_in_progress_come_first_and_then_the_oldest(world, scheduled, outcomes):
    for number, run in enumerate(("d", "c", "b", "a")):
        world.submit(run, submitted_at=1000.0 + number)
    world.record.start_run("a", ("ada",), 1, "[]", make.version_record("a", 0), 1001.0)
    scheduled(2)
    await active(world, "d", "a")  # in the order in which they were submitted
    outcomes["a"].set_result("completed")
    await active(world, "d", "c")
    outcomes["d"].set_result("completed")
    await active(world, "c", "b")
    assert world.runs.ended.run == "d"


async def test_a_run_that_is_submitted_later_is_taken_up_when_there_is_room(world, scheduled, outcomes):
    scheduler, _ = scheduled(1)
    world.submit("first", submitted_at=1.0)
    scheduler.wake()
    await active(world, "first")
    world.submit("second", submitted_at=2.0)
    scheduler.wake()
    outcomes["first"].set_result("completed")
    await active(world, "second")


async def test_a_run_whose_care_crashes_fails_and_the_others_go_on(world, scheduled, outcomes):
    for run in ("bad", "good", "next"):
        world.submit(run)
    scheduled(2)
    await active(world, "bad", "good")
    outcomes["bad"].set_exception(ZeroDivisionError("a bug"))
    await active(world, "good", "next")
    record = world.record.run("bad")
    assert (record.state, record.reason) == ("failed", "internal error: ZeroDivisionError('a bug')")


async def test_what_cannot_be_recorded_is_left_for_the_next_start(world, scheduled, monkeypatch, outcomes):
    for run in ("bad", "next"):
        world.submit(run)

    def refuses(*arguments):
        raise StoreError("no")

    scheduled(1)
    await active(world, "bad")
    with monkeypatch.context() as patched:
        patched.setattr(type(world.record), "finish_run", refuses)
        outcomes["bad"].set_exception(ZeroDivisionError("a bug"))
        await active(world, "next")
    assert world.record.run("bad").state == "queued"


async def test_a_coordinator_that_lost_the_record_stops(world, scheduled, outcomes):
    for run in ("one", "two"):
        world.submit(run)
    _, serving = scheduled(2)
    await active(world, "one", "two")
    outcomes["one"].set_exception(Fenced("another coordinator took over"))
    with pytest.raises(Fenced):
        await serving
    assert world.runs.active == {}
    assert world.record.run("two").state == "queued"


async def test_a_mode_that_is_not_known_here_fails_its_run_only(world):
    record = world.submit("old")
    world.record.add_run(replace(record, run="new", mode="telepathy", submitted_at=1.0))
    serving = asyncio.create_task(world.scheduler().serve())
    await active(world, "old")
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    failed = world.record.run("new")
    assert failed.state == "failed"
    assert "'telepathy' is not known" in failed.reason


async def test_a_coordinator_that_drains_takes_nothing_up(world, scheduled):
    world.operation.draining = True
    world.submit("waits")
    scheduler, _ = scheduled(2)
    scheduler.wake()
    await settled(world)
    assert world.runs.active == {}
    world.operation.draining = False
    scheduler.wake()
    await active(world, "waits")


async def test_real_runs_share_the_nodes_and_each_goes_its_way(world):
    for run in ("one", "two"):
        world.submit(run)
    serving = asyncio.create_task(world.scheduler().serve())
    await active(world, "one", "two")
    await asyncio.gather(world.work("one"), world.work("two"))
    await active(world)
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    for run in ("one", "two"):
        assert world.record.run(run).state == "completed"
        assert all(len(world.record.updates(run, number)) == 2 for number in (1, 2))


async def test_a_run_that_waits_for_nodes_keeps_its_place_from_no_other(world, scheduled, outcomes, monkeypatch):
    monkeypatch.setattr("covey.coordinator.runs.schedule.scheduler.LOOK_AGAIN_S", 0.01)
    monkeypatch.setattr("covey.coordinator.runs.schedule.idleness.WAITS_S", 0.01)
    scheduler, _ = scheduled(1)
    world.submit("stuck", submitted_at=1.0)
    world.submit("next", submitted_at=2.0)
    scheduler.wake()
    await active(world, "stuck")
    world.runs.of("stuck").facts.waiting = True
    await active(world, "stuck", "next")


async def test_a_run_that_waits_for_a_moment_keeps_its_place(world, scheduled, outcomes):
    scheduler, _ = scheduled(1)
    world.submit("begins", submitted_at=1.0)
    scheduler.wake()
    await active(world, "begins")
    world.runs.of("begins").facts.waiting = True  # until it has heard who is connected
    world.submit("next", submitted_at=2.0)
    scheduler.wake()
    await settled(world)
    assert list(world.runs.active) == ["begins"]
    outcomes["begins"].set_result("completed")
    await active(world, "next")


async def test_a_higher_priority_is_first_where_places_are_free(world, scheduled, outcomes):
    for number, priority in enumerate((0, -1, 7)):
        world.submit(f"p{priority}", mode=f"priority = {priority}" + ROUNDS, submitted_at=float(number))
    scheduler, _ = scheduled(1)
    await active(world, "p7")
    assert scheduler.awaited("p0") == "waits for a place on the coordinator: 1 of 1 runs"
    outcomes["p7"].set_result("completed")
    await active(world, "p0")
    outcomes["p0"].set_result("completed")
    await active(world, "p-1")


async def test_a_node_that_takes_one_run_makes_the_next_one_wait_and_it_is_said(world, scheduled, outcomes):
    scheduler, _ = scheduled(4)
    world.runs.joined("ada", Room(1), 1.0)
    for run in ("one", "two"):
        world.submit(run, submitted_at=float(len(run)))
    scheduler.wake()
    await active(world, "one")
    await settled(world)
    assert scheduler.awaited("two") == "waits for a place on ada: 1 of 1 runs"
    outcomes["one"].set_result("completed")
    await active(world, "two")
    assert scheduler.awaited("two") == ""


async def test_a_node_that_comes_late_is_told_of_to_those_that_it_has_places_for(world, scheduled, outcomes):
    scheduled(4)
    for run in ("one", "two"):
        world.submit(run)
    await active(world, "one", "two")
    told = {run: [] for run in ("one", "two")}
    for run, events in told.items():
        world.runs.of(run).post = events.append
    world.runs.joined("eve", Room(1), 5.0)
    assert (told["one"], told["two"]) == ([NodeJoined("eve", 5.0)], [])
    world.runs.lost("eve", 6.0)
    world.runs.joined("eve", Room(1), 7.0)
    assert (told["one"][1:], told["two"]) == ([NodeLost("eve", 6.0), NodeJoined("eve", 7.0)], [])
    outcomes["one"].set_result("completed")
    await active(world, "two")
    await settled(world)
    assert [(type(event), event.node) for event in told["two"]] == [(NodeJoined, "eve")]


async def test_runs_that_hang_starve_nobody(world, scheduled, outcomes, monkeypatch):
    """Twice as many as there are places, before all others; nothing is heard of them."""
    monkeypatch.setattr("covey.coordinator.runs.schedule.scheduler.LOOK_AGAIN_S", 0.01)
    monkeypatch.setattr("covey.coordinator.runs.schedule.idleness.SILENT_S", 0.02)
    scheduler, _ = scheduled(1)
    wedged = tuple(f"wedged-{number}" for number in range(2))
    for run in wedged:
        world.submit(run, mode="priority = 100" + ROUNDS, submitted_at=1.0)
    await active(world, *wedged)
    for run in ("one", "two"):
        world.submit(run, submitted_at=2.0)
    scheduler.wake()
    for run in ("one", "two"):
        while world.runs.of(run) is None:
            await world.changes.after(world.changes.count)
        outcomes[run].set_result("completed")
    await active(world, *wedged)


async def test_one_that_lent_its_place_has_it_back_before_those_that_did_not_begin(
    world, scheduled, outcomes, monkeypatch
):
    monkeypatch.setattr("covey.coordinator.runs.schedule.scheduler.LOOK_AGAIN_S", 0.01)
    monkeypatch.setattr("covey.coordinator.runs.schedule.idleness.WAITS_S", 0.0)
    for run in ("waits", "next", "last"):
        world.submit(run, submitted_at=float(len(run)))
    scheduler, _ = scheduled(1)
    await active(world, "last")
    told = []
    waits = world.runs.of("last")
    waits.driver.post = told.append
    waits.facts.waiting = True
    await active(world, "last", "next")
    assert [event.has_place for event in told] == [False]
    waits.facts.waiting, waits.facts.lacks_place = False, True  # its node came
    while scheduler.awaited("last") != "waits for a place on the coordinator: 1 of 1 runs":
        await settled(world)
    outcomes["next"].set_result("completed")
    await active(world, "last")
    while len(told) < 2:
        await settled(world)
    assert told[1].has_place
    assert world.record.run("waits").state == "queued"


async def test_a_run_of_a_study_works_with_its_nodes_only(world, scheduled, outcomes, tmp_path):
    (tmp_path / "studies.toml").write_text('[studies.brain]\nnodes = ["bob"]\n[studies.heart]\nnodes = ["*"]\n')
    world.studies = Studies(tmp_path / "studies.toml", '{"heart": ["bob"]}')
    for study in ("brain", "heart"):
        world.submit(study, mode=f'study = "{study}"' + ROUNDS)
    scheduled(4)
    await active(world, "brain", "heart")
    seen = {run: active.services.nodes.nodes() for run, active in world.runs.active.items()}
    assert seen == {"brain": ["bob"], "heart": ["ada"]}


@pytest.mark.parametrize("damage", [{"spec": "{"}, {"spec": "[]"}, {"layout": "{}"}])
async def test_a_damaged_record_fails_its_run_and_no_other(world, scheduled, damage):
    record = world.submit("good", submitted_at=2.0)
    spec, layout = damage.get("spec", record.spec), damage.get("layout")
    world.record.add_run(replace(record, run="bad", name="bad", spec=spec, submitted_at=1.0))
    if layout:
        world.record.start_run("bad", ("ada",), 1, layout, make.version_record("bad", 0), 1001.0)
    _, serving = scheduled(4)
    await active(world, "good")
    assert not serving.done()
    failed = world.record.run("bad")
    assert (failed.state, failed.reason[:21]) == ("failed", "its record is damaged")


async def test_a_lost_record_stops_the_coordinator_also_while_runs_are_read(world, scheduled, monkeypatch):
    world.submit("one")
    _, serving = scheduled(2)

    async def lost(self, record):
        raise Fenced("another coordinator took over")

    monkeypatch.setattr("covey.coordinator.runs.schedule.scheduler.Scheduler._want", lost)
    with pytest.raises(Fenced):
        await serving
    assert world.record.run("one").state == "queued"


async def test_runs_that_wait_go_by_the_studies_as_they_are_now(world, scheduled, outcomes, tmp_path, monkeypatch):
    monkeypatch.setattr("covey.coordinator.runs.schedule.scheduler.LOOK_AGAIN_S", 0.01)
    path = tmp_path / "studies.toml"
    path.write_text('[studies.brain]\nnodes = ["nobody"]\n')
    world.studies = Studies(path)
    world.submit("brain", mode='study = "brain"' + ROUNDS)
    world.submit("other", mode='study = "other"' + ROUNDS)
    monkeypatch.setattr("covey.coordinator.runs.schedule.idleness.WAITS_S", 0.0)
    scheduler, _ = scheduled(1)
    await active(world, "brain")
    world.runs.of("brain").facts.waiting = True
    while scheduler.awaited("other") != NO_NODE:
        await settled(world)
    path.write_text('[studies.brain]\nnodes = ["nobody"]\n[studies.other]\nnodes = ["ada"]\n')
    await active(world, "brain", "other")
