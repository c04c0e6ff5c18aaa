"""Submissions: however many come at once, the worker is given one of them at a time."""

from __future__ import annotations

import asyncio
import json
import threading

import pytest

from covey.client.specification import request_of
from covey.coordinator.studies import Studies
from covey.errors import IdentityError, SpecError, TaskError
from covey.protos import admin_pb2 as pb
from covey.spec import parse_toml
from covey.storage.record.contract import RunRecord
from tests.unit.coordinator.admin.serving import admin_service, certified
from tests.unit.coordinator.world import ROUNDS, Worker

BRAIN = '[studies.brain]\nnodes = ["n1", "n2"]\nmembers = ["alice"]\n'


class Queue(Worker):
    """Counts the jobs that it was given and has not done yet."""

    waiting = most = 0

    def __init__(self):
        super().__init__()
        self.begun = asyncio.Event()

    async def do(self, operation, job, on_progress=None):
        self.waiting += 1
        self.most = max(self.most, self.waiting)
        self.begun.set()
        try:
            return await super().do(operation, job, on_progress)
        finally:
            self.waiting -= 1


@pytest.fixture
def worker():
    return Queue()


@pytest.fixture
def submit(world, worker, authority, identity):
    """Begins to submit a run: `submit(name)`."""
    service = admin_service(world, authority, worker)
    call = certified(world, identity("alice", "admin"))

    def submit(name):
        text = ROUNDS.format(count=2, nodes=2, where="central").replace('name = "digits"', f'name = "{name}"', 1)
        return asyncio.create_task(service.submit_run(pb.SubmitRunRequest(spec_toml=text), call))

    return submit


async def test_the_worker_has_one_submission_at_a_time(submit, worker, world):
    names = [f"run-{number}" for number in range(20)]
    submitted = await asyncio.gather(*map(submit, names))
    assert [run.name for run in submitted] == names
    assert sorted(run.name for run in world.record.runs()) == sorted(names)
    assert (len(worker.done("describe")), worker.most) == (20, 1)


async def test_a_submission_in_json_is_held_against_the_bounds_that_a_record_is_not(world, worker, authority, identity):
    service, call = admin_service(world, authority, worker), certified(world, identity("alice", "admin"))
    asked = json.loads(parse_toml(ROUNDS.format(count=2, nodes=2, where="central")).to_json())
    asked["training"]["local_steps"], asked["training"]["local_epochs"] = 10**9, None
    with pytest.raises(SpecError, match=r"training\.local_steps: at most 1,000,000"):
        await service.submit_run(pb.SubmitRunRequest(spec_json=json.dumps(asked)), call)
    assert worker.done("describe") == []


async def test_a_run_goes_on_with_what_it_has_on_record_above_a_bound_that_came_later(
    world, worker, authority, identity
):
    service, call = admin_service(world, authority, worker), certified(world, identity("alice", "admin"))
    old = json.loads(parse_toml(ROUNDS.format(count=2, nodes=2, where="central")).to_json())
    old["rounds"]["max_retries"] = 20_000
    world.record.add_run(RunRecord("old", "old", "rounds", json.dumps(old), 7, "queued", "", 1000.0))
    _, task = world.execute("old")
    await asyncio.gather(task, world.work("old"))
    more = {**old, "name": "more", "model": {"initial": "run:old"}}
    submitted = await service.submit_run(request_of(more), call)
    assert json.loads(world.record.run(submitted.run).spec)["rounds"]["max_retries"] == 20_000
    above = "rounds.max_retries: at most 10,000 (given: 20,000): run old has it on record"
    assert submitted.reason.startswith(above)
    for changed in ({"max_retries": 20_001}, {"count": 100_000_001}):
        with pytest.raises(SpecError, match=f"^rounds.{next(iter(changed))}: at most [0-9,]+ .given: [0-9,]+.$"):
            await service.submit_run(request_of({**more, "rounds": {**old["rounds"], **changed}}), call)
    with pytest.raises(SpecError, match=r"rounds\.max_retries: Input should be less than or equal to 10000"):
        request_of(old)


async def test_a_submission_that_is_refused_or_given_up_lets_the_next_one_in(submit, worker):
    gate = worker.gates["describe"] = asyncio.Event()
    given_up, refused = submit("given-up"), submit("refused")
    await worker.begun.wait()
    given_up.cancel()
    worker.errors["describe"] = TaskError("the task is broken")
    gate.set()
    with pytest.raises(TaskError, match="the task is broken"):
        await refused
    del worker.errors["describe"]
    assert (await submit("next")).name == "next"
    assert given_up.cancelled()


async def test_a_run_that_is_on_record_is_whole_also_if_its_submitter_is_gone_meanwhile(submit, world, monkeypatch):
    begun, go_on, add_run = threading.Event(), threading.Event(), world.record.add_run

    def slow(*record):
        begun.set()
        go_on.wait(60)
        add_run(*record)

    monkeypatch.setattr(world.record, "add_run", slow)
    given_up = submit("given-up")
    await asyncio.to_thread(begun.wait, 60)
    given_up.cancel()
    await asyncio.gather(given_up, return_exceptions=True)
    go_on.set()
    while not world.background.is_idle:
        await world.store.call(world.record.nodes)
    (run,) = world.record.runs()
    assert [event.kind for event in world.record.events(run=run.run)] == ["run-submitted"]


async def test_what_cannot_be_read_never_waits_for_the_worker(submit, worker):
    worker.gates["describe"] = asyncio.Event()
    waiting = submit("waiting")
    with pytest.raises(SpecError):
        await submit('"')
    assert not waiting.done()
    waiting.cancel()


@pytest.mark.parametrize(
    ("at", "change", "error", "text"),
    [
        ("nodes", "", SpecError, "no study 'brain'"),
        ("_record_admitted", BRAIN.replace('members = ["alice"]', 'auditors = ["alice"]'), IdentityError, "needs role"),
        ("_record_admitted", BRAIN.replace(', "n2"', ""), SpecError, "has 1 node"),
    ],
)
async def test_what_changes_while_a_submission_is_looked_at_counts(
    world, authority, identity, worker, tmp_path, monkeypatch, at, change, error, text
):
    """The last look is in the record's thread, right before the run is recorded."""
    (tmp_path / "studies.toml").write_text(BRAIN)
    world.studies = Studies(tmp_path / "studies.toml")
    service = admin_service(world, authority, worker)
    call, known = certified(world, identity("alice", "auditor")), world.store.call

    async def changed_meanwhile(method, *args, **kwargs):
        if getattr(method, "__name__", "") == at:
            (tmp_path / "studies.toml").write_text(change)
        return await known(method, *args, **kwargs)

    monkeypatch.setattr(world.store, "call", changed_meanwhile)
    spec = 'study = "brain"\n' + ROUNDS.format(count=2, nodes=2, where="central")
    with pytest.raises(error, match=text):
        await service.submit_run(pb.SubmitRunRequest(spec_toml=spec), call)
    assert world.record.runs() == []
