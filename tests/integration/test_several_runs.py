"""Several runs at once on the same nodes: each comes to the model that it has alone, whatever else happens."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from covey.testing.federation import Federation
from tests.integration.specs import async_spec, spec

pytestmark = [pytest.mark.processes, pytest.mark.timeout(400)]
NODES = 4
SEEDS = (7, 11, 13)
PATIENCE_S = 180.0
HASTY = 'short = "fail"\nmax_retries = 0\ndeadline_s = 0.001\nhard_deadline_s = 0.001'
"""A run that fails: no node is ever so fast."""


KEEPS = {
    "scaffold": '[method]\nname = "scaffold"\n[weights]\nby = "equal"',
    "top-k": '[exchange]\ncodec = "top-k"\n[exchange.options]\nfraction = 0.1',
}
"""What nodes keep from update to update: a control variate, and what the codec has lost."""
POLICY = '[policy]\nallow_paths = ["blocked_tasks:Blocked"]\nmax_runs = 4\n'
"""Of the nodes: as many runs as the coordinator takes, however much memory is free."""
BLOCK = "COVEY_TEST_BLOCK"
OPTIONS = ["--allow-paths", "--worker-env", BLOCK]
"""Of the coordinator, whose worker evaluates."""
TASKS = f'''
import os
import time
from pathlib import Path

from covey.learning.tasks.digits import Digits


class Blocked(Digits):
    """Its evaluation on the coordinator lasts as long as there is a certain file."""

    def evaluate(self, model, batch):
        block = Path(os.environ["{BLOCK}"])
        while block.exists():
            block.with_name("seen").touch()
            time.sleep(0.01)
        return super().evaluate(model, batch)
'''


STUDIES = '[studies.brain]\nnodes = ["n0"]\nmembers = ["bob"]\n'


def text_of(seed: int, rounds: int = 4, extra: str = "") -> str:
    return spec(name=f"seed-{seed}", seed=seed, rounds=rounds, min_nodes=NODES, extra=extra)


@pytest.fixture(scope="module")
def block(tmp_path_factory):
    """While this file exists, no evaluation of a `Blocked` run ends."""
    return tmp_path_factory.mktemp("block") / "block"


@pytest.fixture(scope="module")
def federation(tmp_path_factory, block):
    folder = tmp_path_factory.mktemp("several")
    (folder / "blocked_tasks.py").write_text(TASKS)
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    with Federation(folder, nodes=NODES, env={"PYTHONPATH": path, BLOCK: str(block)}) as made:
        made.start_coordinator(options=OPTIONS)
        made.join()
        for index in range(NODES):
            (made.node_dir(index) / "node.toml").write_text(POLICY)
            made.start_node(index)
        made.wait_connected(NODES)
        yield made


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
def alone(federation):
    """Seed to the final model of a run that has the nodes for itself."""
    return {seed: final(federation, federation.submit(text_of(seed))) for seed in SEEDS}


def test_three_runs_at_once_come_to_the_models_that_they_have_alone(federation, alone):
    runs = [federation.submit(text_of(seed)) for seed in SEEDS]
    assert {seed: final(federation, run) for seed, run in zip(SEEDS, runs, strict=True)} == alone
    assert overlap(federation, runs)
    for run in runs:
        assert all(r["attempt"] == 1 and r["accepted"] == NODES for r in federation.rounds(run))


def test_a_killed_coordinator_goes_on_with_all_its_runs(federation, alone):
    runs = [federation.submit(text_of(seed)) for seed in SEEDS[:2]]
    for run in runs:
        federation.wait_round(run, 1, PATIENCE_S)
    federation.kill_coordinator()
    federation.start_coordinator(options=OPTIONS)
    assert [final(federation, run) for run in runs] == [alone[seed] for seed in SEEDS[:2]]


def test_what_nodes_keep_of_a_run_survives_the_others(federation):
    """Also a node that is killed while it works for both."""
    texts = [text_of(SEEDS[0], 6, extra) for extra in KEEPS.values()]
    alone = [final(federation, federation.submit(text)) for text in texts]
    runs = [federation.submit(text) for text in texts]
    for run in runs:
        federation.wait_round(run, 2, PATIENCE_S)
    federation.kill_node(1)
    federation.start_node(1)
    assert [final(federation, run) for run in runs] == alone
    assert overlap(federation, runs)
    for run in runs:
        assert all(r["accepted"] == NODES for r in federation.rounds(run))


def test_a_long_step_of_one_run_costs_the_other_no_more_than_that_step(federation, block):
    """While the worker is busy for one run, the other's nodes train and deliver; then steps take turns."""
    texts = [spec(f"blocked-{n}", task="blocked_tasks:Blocked", rounds=40, min_nodes=NODES, seed=n) for n in SEEDS[:2]]
    runs = [federation.submit(text) for text in texts]
    for run in runs:
        federation.wait_round(run, 1, PATIENCE_S)
    block.touch()
    federation.until(block.with_name("seen").exists, PATIENCE_S, "nothing was evaluated")
    waiting = [open_step(federation, run) for run in runs]
    block.unlink()
    for run in runs:
        final(federation, run)
    ended = [{r["round"]: r["committed_at"] for r in federation.rounds(run)} for run in runs]
    for (one, other), (mine, others) in zip([(0, 1), (1, 0)], [waiting, waiting[::-1]], strict=True):
        assert ended[one][mine] < ended[other][others + 1]  # not two steps of the other before it


def open_step(federation: Federation, run: str) -> int:
    """The round of which all updates are in, and which waits for the worker."""

    def newest() -> dict[str, Any]:
        return federation.rounds(run)[-1]

    federation.until(lambda: newest()["state"] == "aggregating", PATIENCE_S, "the nodes did not deliver")
    return int(newest()["round"])


def test_places_priorities_and_studies(tmp_path):
    """Two at once, the first of them first; one that hangs takes no place; who is in no study sees none of its runs."""
    with Federation(tmp_path, nodes=1) as federation:
        folder = federation.coordinator_dir
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "studies.toml").write_text(STUDIES)
        federation.start_coordinator(options=["--max-runs", "3"])
        federation.join()
        (federation.node_dir(0) / "node.toml").write_text("[policy]\nmax_runs = 2\n")
        federation.start_node(0)
        federation.wait_connected(1)
        hangs = federation.submit("priority = 100\n" + spec(name="hangs", rounds=9, min_nodes=2))
        federation.until(lambda: active(federation) == [hangs], 60, "it was not taken up")
        texts = [spec(name=f"run-{number}", rounds=10_000, min_nodes=1) for number in range(3)]
        runs = [federation.submit(text) for text in texts[:2]]
        federation.until(lambda: active(federation) == [hangs, *runs], 60, "two runs were never active")
        runs.append(federation.submit(texts[2]))
        urgent = federation.submit('priority = 1\nstudy = "brain"\n' + texts[2])
        reason = "waits for a place on n0: 2 of 2 runs"
        federation.until(lambda: federation.show(urgent)["reason"] == reason, 60, "it is not said what it waits for")
        assert [federation.show(run)["state"] for run in (runs[2], urgent)] == ["queued", "queued"]
        federation.ask(lambda admin: admin.stop_run(runs[0]))
        federation.until(lambda: active(federation) == [hangs, runs[1], urgent], 60, "the urgent one was not first")
        assert federation.ask(lambda admin: admin.status())["current_run"] == hangs
        seen = {}
        for name in ("bob", "eve"):
            federation.cli("admin", "issue", name, "--role", "member", "--to", tmp_path / name, "--data-dir", folder)
            where = ("--server", federation.coordinator_address, "--identity", tmp_path / name)
            seen[name] = federation.cli("run", "list", "--json", *where)
        assert [run["run"] for run in json.loads(seen["bob"])] == [urgent]
        assert json.loads(seen["eve"]) == []


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
    federation.start_coordinator(options=OPTIONS)
    federation.until(lambda: active(federation) == [slow], 60, "the asynchronous run does not go on")
    federation.ask(lambda admin: admin.stop_run(slow))
