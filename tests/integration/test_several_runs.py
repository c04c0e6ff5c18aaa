"""Several runs at once on the same nodes: each comes to the model that it has alone, whatever else happens."""

from __future__ import annotations

import pytest

from covey.testing.federation import Federation
from tests.integration.specs import async_spec, spec

pytestmark = [pytest.mark.processes, pytest.mark.timeout(400)]
NODES = 3
SEEDS = (7, 11)
PATIENCE_S = 180.0
HASTY = 'short = "fail"\nmax_retries = 0\ndeadline_s = 0.001\nhard_deadline_s = 0.001'
"""A run that fails: no node is ever so fast."""


def text_of(seed: int, rounds: int = 4) -> str:
    return spec(name=f"seed-{seed}", seed=seed, rounds=rounds, min_nodes=NODES)


@pytest.fixture
def federation(tmp_path):
    with Federation(tmp_path, nodes=NODES) as federation:
        yield federation.start()


def final(federation: Federation, run: str) -> str:
    return str(federation.wait(run, timeout_s=PATIENCE_S)["model_sha256"])


def active(federation: Federation) -> list[str]:
    return list(federation.ask(lambda admin: admin.status())["active_runs"])


def overlap(federation: Federation, runs: list[str]) -> bool:
    """Whether each run opened a round before another one had committed its last."""
    rounds = [federation.rounds(run) for run in runs]
    began, ended = [r[0]["started_at"] for r in rounds], [r[-1]["committed_at"] for r in rounds]
    return bool(max(began) < min(ended))


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Seed to the final model of a run that has the nodes for itself."""
    with Federation(tmp_path_factory.mktemp("alone"), nodes=NODES) as federation:
        federation.start()
        return {seed: final(federation, federation.submit(text_of(seed))) for seed in SEEDS}


def test_two_runs_at_once_come_to_the_models_that_they_have_alone(federation, alone):
    runs = [federation.submit(text_of(seed)) for seed in SEEDS]
    assert {seed: final(federation, run) for seed, run in zip(SEEDS, runs, strict=True)} == alone
    assert overlap(federation, runs)
    for run in runs:
        assert all(r["attempt"] == 1 and r["accepted"] == NODES for r in federation.rounds(run))


def test_a_killed_coordinator_goes_on_with_all_its_runs(federation, alone):
    runs = [federation.submit(text_of(seed)) for seed in SEEDS]
    for run in runs:
        federation.wait_round(run, 1, PATIENCE_S)
    federation.kill_coordinator()
    federation.start_coordinator()
    assert {seed: final(federation, run) for seed, run in zip(SEEDS, runs, strict=True)} == alone


def test_there_are_as_many_at_once_as_the_operator_says_and_the_oldest_first(tmp_path):
    with Federation(tmp_path, nodes=1) as federation:
        federation.start_coordinator(options=["--max-runs", "2"])
        runs = [federation.submit(spec(name=f"run-{number}", rounds=1, min_nodes=1)) for number in range(3)]
        federation.wait(runs[1], ["running"])
        federation.until(lambda: active(federation) == runs[:2], 60, "two runs were never active")
        assert federation.show(runs[2])["state"] == "queued"
        federation.ask(lambda admin: admin.stop_run(runs[0]))
        federation.until(lambda: active(federation) == runs[1:], 60, "the third run did not take the first one's place")
        status = federation.ask(lambda admin: admin.status())
        assert status["current_run"] == runs[1]


def test_a_run_that_fails_leaves_the_others_alone(federation, alone):
    good = federation.submit(text_of(SEEDS[0]))
    bad = federation.submit(spec(name="bad", min_nodes=NODES, policy=HASTY))
    stopped = federation.submit(text_of(SEEDS[1], rounds=1000))
    federation.wait_round(stopped, 1, PATIENCE_S)
    federation.ask(lambda admin: admin.stop_run(stopped))
    assert final(federation, good) == alone[SEEDS[0]]
    assert federation.show(stopped)["state"] == "stopped"
    shown = federation.wait(bad, ["failed"], PATIENCE_S)
    assert "at the deadline" in shown["reason"]


def test_modes_run_side_by_side_and_a_drain_waits_for_all(federation, alone):
    slow = federation.submit(async_spec(updates=2000, min_nodes=2))
    run = federation.submit(text_of(SEEDS[0]))
    assert final(federation, run) == alone[SEEDS[0]]
    assert federation.show(slow)["state"] == "running"
    federation.ask(lambda admin: admin.drain())
    assert federation.coordinator is not None
    assert federation.coordinator.wait(PATIENCE_S) == 0
    federation.start_coordinator()
    federation.until(lambda: active(federation) == [slow], 60, "the asynchronous run does not go on")
