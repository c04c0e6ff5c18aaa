"""A node at work for several runs, its coordinator and its worker in memory."""

import asyncio

import pytest

from covey import messages as msg
from covey.errors import PolicyError, StoreError, WorkerDied
from tests.unit.node.memory import LARGE, assignment


def held_back(node, *runs):
    for run in runs:
        node.worker.gates[run] = asyncio.Event()


async def test_runs_take_turns_in_the_order_in_which_they_came(node):
    held_back(node, "a")
    for run in ("a", "c", "b"):
        node.actor.receive(assignment(run))
    await node.until(lambda: node.worker.trained() == [("a", 1)])
    node.worker.gates["a"].set()
    await node.idle()
    assert node.worker.trained() == [("a", 1), ("c", 1), ("b", 1)]
    assert [update.run for update in node.ended] == ["a", "c", "b"]
    assert node.outcomes() == {"received": 3.0}


async def test_what_waits_is_said_to_the_coordinator(node):
    held_back(node, "a")
    node.actor.receive(assignment("a"))
    node.actor.receive(assignment("b", 5))
    reports = asyncio.create_task(node.actor.report_waiting())
    await node.until(lambda: msg.Progress("b", 5, "queued") in [mutable(p) for p in node.coordinator.of(msg.Progress)])
    reports.cancel()
    assert node.clock.slept[0] == 3.0
    assert {p.run for p in node.coordinator.of(msg.Progress) if p.phase == "queued"} == {"b"}


def mutable(progress):
    """As it compares: not-a-number is equal to nothing."""
    return msg.Progress(progress.run, progress.round, progress.phase, loss=msg.Progress("", 0, "").loss)


async def test_the_same_assignment_again_is_not_trained_again(node):
    held_back(node, "a")
    node.actor.receive(assignment("a"))
    await node.until(lambda: node.worker.jobs)
    node.actor.receive(assignment("a", attempt=2))
    node.worker.gates["a"].set()
    await node.idle()
    assert node.worker.trained() == [("a", 1)]
    assert node.outcomes() == {"received": 1.0}


async def test_a_newer_assignment_of_the_same_run_takes_its_place(node):
    held_back(node, "a")
    node.actor.receive(assignment("a", 1))
    await node.until(lambda: node.worker.jobs)
    node.actor.receive(assignment("a", 2))
    await node.until(lambda: len(node.worker.jobs) == 2)
    node.worker.gates["a"].set()
    await node.idle()
    assert node.worker.trained() == [("a", 1), ("a", 2)]
    assert node.outcomes() == {"cancelled": 1.0, "received": 1.0}


async def test_work_whose_place_is_taken_before_it_began_was_cancelled(node):
    for number in (1, 2, 3):
        node.actor.receive(assignment("a", number))
    node.actor.receive(msg.Cancel("a", 3, "enough"))
    await node.idle()
    assert node.outcomes() == {"cancelled": 3.0}
    assert node.coordinator.heard == []


async def test_cancelling_one_run_leaves_the_others(node):
    held_back(node, "a", "b")
    for run in ("a", "b"):
        node.actor.receive(assignment(run))
    await node.until(lambda: node.worker.jobs)
    node.actor.receive(msg.Cancel("a", 1, "late"))
    await node.until(lambda: node.worker.trained() == [("a", 1), ("b", 1)])
    node.worker.gates["b"].set()
    await node.idle()
    assert node.outcomes() == {"cancelled": 1.0, "received": 1.0}
    assert [decline.run for decline in node.coordinator.of(msg.Decline)] == []


async def test_evaluations_are_not_counted(node):
    node.actor.receive(assignment("a", work="evaluate"))
    await node.idle()
    assert node.coordinator.of(msg.Evaluation) == [msg.Evaluation("a", 1, b'{"accuracy": [3.0, 4.0]}')]
    assert node.outcomes() == {}


async def test_a_run_that_has_ended_leaves_nothing(node):
    node.actor.receive(assignment("a", node_state=("momentum",)))
    node.actor.receive(assignment("b", seed=1, node_state=("momentum",)))
    await node.idle()
    kept_of_both = node.on_disk()
    assert len(kept_of_both) == 4  # of each run the model, and the state that its update would bring
    node.actor.receive(msg.Cancel("a", 0, "the run is completed"))
    await node.until(lambda: len(node.on_disk()) == 2)
    assert node.on_disk() < kept_of_both
    assert node.actor.held_model("a") == ""
    assert node.actor.held_model("b") == assignment("b", seed=1).model.digest


async def test_a_run_that_ends_while_it_is_worked_for_is_stopped_and_forgotten(node):
    held_back(node, "a")
    node.actor.receive(assignment("a"))
    await node.until(lambda: node.worker.jobs)
    node.actor.receive(msg.Cancel("a", 0, "the run is stopped"))
    await node.until(lambda: not node.on_disk())
    assert node.outcomes() == {"cancelled": 1.0}


async def test_an_offer_that_may_have_been_overheard_is_made_again(node):
    node.coordinator.answers = False
    node.actor.receive(assignment("a"))
    await node.until(lambda: node.coordinator.of(msg.UpdateOffer))
    node.coordinator.lose()
    node.actor.lost()
    node.coordinator.answers = True
    node.coordinator.come_back()
    await node.idle()
    assert len(node.coordinator.of(msg.UpdateOffer)) == 2
    assert node.outcomes() == {"received": 1.0}


@pytest.mark.parametrize(
    ("error", "outcome", "code"),
    [
        (PolicyError("no"), "declined", "declined"),
        (WorkerDied("gone"), "failed", "worker-died"),
        (StoreError("disk full"), "failed", "store"),
        (RuntimeError("secret path"), "failed", "worker"),
    ],
)
async def test_what_goes_wrong_is_the_outcome_and_is_said(node, error, outcome, code):
    node.worker.errors = [error]
    node.actor.receive(assignment("a", attempt=3))
    await node.idle()
    assert node.outcomes() == {outcome: 1.0}
    [decline] = node.coordinator.of(msg.Decline)
    assert (decline.run, decline.round, decline.attempt, decline.code) == ("a", 1, 3, code)
    assert "secret" not in decline.reason


@pytest.mark.parametrize(("refusals", "outcome"), [([], "received"), (["late"], "refused")])
@pytest.mark.parametrize("error", [OSError("disk full"), WorkerDied("gone"), PolicyError("no")])
async def test_what_goes_wrong_after_the_answer_is_no_second_outcome(node, monkeypatch, refusals, outcome, error):
    def delivered(update):
        raise error

    monkeypatch.setattr(node.store, "delivered", delivered)
    node.coordinator.refusals = list(refusals)
    node.actor.receive(assignment("a"))
    await node.idle()
    assert node.outcomes() == {outcome: 1.0}
    assert node.coordinator.of(msg.Decline) == []


async def test_work_that_is_cancelled_after_its_answer_was_answered(node, monkeypatch):
    entered, free = asyncio.Event(), asyncio.Event()
    loop, delivered = asyncio.get_running_loop(), node.store.delivered

    def slowly(update):
        loop.call_soon_threadsafe(entered.set)
        asyncio.run_coroutine_threadsafe(free.wait(), loop).result(20)
        delivered(update)

    monkeypatch.setattr(node.store, "delivered", slowly)
    large = {"layout": LARGE, "model_data": b"\0" * LARGE.file_bytes}
    node.actor.receive(assignment("a", 1, **large))
    await asyncio.wait_for(entered.wait(), 20)
    node.actor.receive(msg.Cancel("a", 1, "late"))
    node.actor.receive(assignment("a", 2, **large))
    free.set()
    await node.idle()
    assert node.outcomes() == {"received": 2.0}
    assert node.worker.trained() == [("a", 1), ("a", 2)]


async def test_sessions_are_counted(node):
    def value(name):
        return node.services.metrics.registry.get_sample_value(f"covey_work_{name}")

    node.actor.receive(msg.Welcome("1", "f", "n0", 10.0))
    assert (value("connected"), value("sessions_total")) == (1.0, 1.0)
    node.actor.lost()
    assert (value("connected"), value("sessions_total")) == (0.0, 1.0)


async def test_a_stopped_node_begins_nothing_any_more(node):
    held_back(node, "a")
    for run in ("a", "b"):
        node.actor.receive(assignment(run))
    await node.until(lambda: node.worker.jobs)
    await node.actor.stop()
    assert not node.actor.busy
    assert node.worker.trained() == [("a", 1)]
