"""Each training assignment is counted once, by how it ended."""

import asyncio
import threading
from types import SimpleNamespace

import pytest

from covey.errors import PolicyError, WorkerDied
from covey.node.assignments import executor as working
from covey.node.assignments.executor import Work
from covey.node.assignments.journal import FinishedUpdate
from covey.node.daemon import NodeDaemon
from covey.node.operator.metrics import OUTCOMES, NodeMetrics
from covey.protos import coordinator_pb2 as pb

UPDATE = FinishedUpdate("r", 1, "base", "digest", b"statement", b"signature", ())


class Journal:
    """Has the update already; taking note of the delivery waits for `free`, and may fail."""

    def __init__(self):
        self.entered, self.free, self.error = threading.Event(), threading.Event(), None

    def find(self, run, number, base):
        return UPDATE

    def delivered(self, update):
        self.entered.set()
        self.free.wait(20)
        if self.error is not None:
            raise self.error


class Link:
    def __init__(self):
        self.sent = []

    async def connected(self):
        pass

    def send(self, message):
        self.sent.append(message)


@pytest.fixture
def bench(monkeypatch):
    """What work needs of a node that has trained already."""
    monkeypatch.setattr(working, "parse_json", lambda text: None)
    monkeypatch.setattr(Work, "_check_receipt", lambda *_: None)
    bench = SimpleNamespace(
        metrics=NodeMetrics(),
        journal=Journal(),
        link=Link(),
        config=SimpleNamespace(check_run=lambda spec: None),
        carried=SimpleNamespace(referenced=set),
        files=SimpleNamespace(release=lambda files: None),
    )
    yield bench
    bench.journal.free.set()


def assignment(number=1, kind=pb.Assignment.TRAIN):
    return pb.Assignment(run="r", round=number, work=kind)


def answered(bench, kind):
    """Work that was answered by a receipt or by a refusal that is final."""
    work = Work(bench, assignment())
    receipt = pb.CoordinatorMessage(receipt=pb.Receipt(update="digest"))
    refusal = pb.CoordinatorMessage(refusal=pb.Refusal(update="digest", code="late"))
    work.answers.put_nowait(receipt if kind == "received" else refusal)
    return work


def outcomes(metrics):
    values = {
        name: metrics.registry.get_sample_value("covey_work_updates_total", {"outcome": name}) for name in OUTCOMES
    }
    return {name: value for name, value in values.items() if value}


@pytest.fixture
def daemon(bench):
    """A daemon, as far as it starts and ends work."""
    daemon = object.__new__(NodeDaemon)
    daemon._bench, daemon._work, daemon._task = bench, None, None
    return daemon


async def ended(task):
    await asyncio.gather(task, return_exceptions=True)
    await asyncio.sleep(0)  # what is done with a task's end comes after it


@pytest.mark.parametrize("kind", ["received", "refused"])
async def test_work_that_is_cancelled_after_its_answer_was_answered(bench, daemon, kind):
    daemon._start(answered(bench, kind))
    assert await asyncio.to_thread(bench.journal.entered.wait, 20)
    task = daemon._task
    daemon._cancelled(pb.Cancel(run="r"))
    bench.journal.free.set()
    await ended(task)
    assert task.cancelled()
    assert outcomes(bench.metrics) == {kind: 1.0}


@pytest.mark.parametrize("kind", ["received", "refused"])
@pytest.mark.parametrize("error", [OSError("disk full"), WorkerDied("gone"), PolicyError("no")])
async def test_what_goes_wrong_after_the_answer_is_no_second_outcome(bench, daemon, kind, error):
    bench.journal.error = error
    bench.journal.free.set()
    daemon._start(answered(bench, kind))
    await ended(daemon._task)
    assert outcomes(bench.metrics) == {kind: 1.0}


@pytest.mark.parametrize(
    ("error", "outcome"),
    [(OSError("disk full"), "failed"), (WorkerDied("gone"), "failed"), (PolicyError("no"), "declined")],
)
async def test_what_goes_wrong_before_is_the_outcome(bench, daemon, error, outcome):
    def refuse(spec):
        raise error

    bench.config.check_run = refuse
    daemon._start(Work(bench, assignment()))
    await ended(daemon._task)
    assert outcomes(bench.metrics) == {outcome: 1.0}


@pytest.mark.parametrize("steps", [0, 1, 3], ids=["at once", "waiting for the one before", "a little later"])
async def test_work_that_never_began_was_cancelled(bench, daemon, steps):
    stubborn = asyncio.create_task(asyncio.to_thread(bench.journal.free.wait, 20))
    daemon._task = asyncio.create_task(_outlasting(stubborn))
    await asyncio.sleep(0)
    daemon._start(Work(bench, assignment()))
    task = daemon._task
    for _ in range(steps):
        await asyncio.sleep(0)
    daemon._cancelled(pb.Cancel(run="r"))
    bench.journal.free.set()
    await ended(task)
    await stubborn
    assert bench.link.sent == []
    assert outcomes(bench.metrics) == {"cancelled": 1.0}


async def _outlasting(work):
    """Ends only when `work` has, cancelled or not."""
    while not work.done():
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            continue


async def test_work_whose_place_is_taken_was_cancelled(bench, daemon):
    for number in (1, 2, 3):
        daemon._assigned(assignment(number))
    await asyncio.sleep(0)
    last = daemon._task
    daemon._cancelled(pb.Cancel(run="r"))
    await ended(last)
    assert outcomes(bench.metrics) == {"cancelled": 3.0}


async def test_evaluations_are_not_counted(bench, daemon):
    daemon._start(Work(bench, assignment(kind=pb.Assignment.EVALUATE)))
    daemon._cancelled(pb.Cancel(run="r"))
    await ended(daemon._task)
    assert outcomes(bench.metrics) == {}


async def test_what_was_sent_is_not_sent_again_for_a_grant_that_came_twice(bench, monkeypatch):
    sent = []

    async def upload(work, update, grant):
        sent.append(grant)

    monkeypatch.setattr(Work, "_upload", upload)
    bench.journal.free.set()
    work = Work(bench, assignment())
    grant = pb.CoordinatorMessage(upload=pb.UploadGrant(update="digest"))
    for answer in (None, grant, grant, pb.CoordinatorMessage(receipt=pb.Receipt(update="digest"))):
        work.answers.put_nowait(answer)  # None: what was offered before is offered again
    await work.do()
    assert len(sent) == 1
    assert len([m for m in bench.link.sent if m.WhichOneof("kind") == "offer"]) == 2
    assert outcomes(bench.metrics) == {"received": 1.0}
