"""Two phases on real daemons: a bid, then one upload that is audited. Crashes in between: test_crashes.py."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from covey.coordinator.config import sqlite_url
from covey.storage.record.contract import StepRecord
from covey.storage.sql.store import open_store
from covey.testing.federation import Federation
from covey.testing.launch.forks import run_covey
from tests.integration.specs import spec

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]
NODES, ROUNDS = 3, 4
TEXT = '[data]\npartition = "dirichlet"\nalpha = 1.0\n[method]\nname = "bid"\n[keep]\nupdates = 100'


def text_of(name: str, policy: str = "", rounds: int = ROUNDS) -> str:
    return spec(name, rounds=rounds, min_nodes=2, policy=policy, extra=TEXT)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory, search: str) -> tuple[str, list[StepRecord]]:
    """What a simulation comes to: the model, and the steps."""
    folder = tmp_path_factory.mktemp("simulated")
    (folder / "spec.toml").write_text(text_of("bid"))
    arguments = ["simulate", folder / "spec.toml", "--nodes", NODES, "--processes", 1, "--json"]
    arguments += ["--data-dir", folder / "simulation"]
    done = run_covey(arguments, env={**os.environ, "PYTHONPATH": search}, timeout_s=200)
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)["run"]
    return outcome["model_sha256"], steps_of(folder / "simulation", outcome["run"])


def steps_of(folder: Path, run: str) -> list[StepRecord]:
    with closing(open_store(sqlite_url(folder))) as store:
        assert store.check() == []
        return store.steps(run)


def leaders(steps: list[StepRecord]) -> list[str]:
    """Who was asked for an upload, in order."""
    return [str(item["node"]) for step in steps for item in step.opens]


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory, search: str) -> Iterator[Federation]:
    with Federation(tmp_path_factory.mktemp("bid"), NODES, env={"PYTHONPATH": search}) as made:
        yield made.start()


def test_the_best_bidder_alone_uploads_and_the_run_learns(
    federation: Federation, simulated: tuple[str, list[StepRecord]]
) -> None:
    run = federation.wait(federation.submit(text_of("learns")), timeout_s=120)
    model, simulated_steps = simulated
    assert run["model_sha256"] == model
    steps = steps_of(federation.coordinator_dir, run["run"])
    assert leaders(steps) == leaders(simulated_steps)
    assert [step.version for step in steps] == [None, 1, None, 2, None, 3, None, 4]
    losses = [item["metrics"]["loss"] for item in federation.rounds(run["run"])]
    assert losses == sorted(losses, reverse=True)
    shares = [verdict["share"] for step in steps for verdict in step.verdicts if verdict["share"]]
    assert shares == [1.0] * ROUNDS
    audit = federation.cli("run", "audit", run["run"], "--data-dir", federation.coordinator_dir)
    assert "every signature is valid" in audit
    replayed = federation.cli("run", "replay", run["run"], "--data-dir", federation.coordinator_dir)
    assert f"all {ROUNDS} versions came out the same" in replayed


def test_a_leader_that_stays_away_gives_way_to_the_next_bidder(
    federation: Federation, simulated: tuple[str, list[StepRecord]]
) -> None:
    leader = leaders(simulated[1])[0]
    index = federation.names.index(leader)
    federation.stop_node(index)
    node = federation.start_node(index, env={"COVEY_FAULTS": "assigned:2"})
    federation.wait_connected(NODES)
    run = federation.submit(text_of("away", "rejoin_s = 2.0", rounds=2))
    assert node.wait(90) == -9
    assert federation.wait(run, timeout_s=120)["rounds_committed"] == 2
    first, second, *_ = leaders(steps_of(federation.coordinator_dir, run))
    assert first == leader != second
    federation.start_node(index)
    federation.wait_connected(NODES)


def test_a_lie_is_audited_and_the_next_bidder_is_asked(
    federation: Federation, site: Path, search: str, tmp_path: Path
) -> None:
    shutil.copy(site / "covey_test_bid.py", tmp_path)
    liar = tmp_path / "covey_test_bid.py"
    liar.write_text(liar.read_text().replace("repr(sum(self._losses) / len(self._losses))", "repr(-100.0)"))
    federation.stop_node(1)
    federation.start_node(1, env={"PYTHONPATH": f"{tmp_path}{os.pathsep}{search}"})
    federation.wait_connected(NODES)
    run = federation.wait(federation.submit(text_of("lies", rounds=2)), timeout_s=120)
    steps = steps_of(federation.coordinator_dir, run["run"])
    asked = leaders(steps)
    assert asked[0::2] == ["n1", "n1"]
    assert "n1" not in asked[1::2]
    refused = [verdict for step in steps for verdict in step.verdicts if verdict["verdict"] == "rejected"]
    assert {verdict["node"] for verdict in refused} == {"n1"}
    assert all("it bid -100.000, and the audit measures" in str(verdict["reason"]) for verdict in refused)
    federation.stop_node(1)
    federation.start_node(1)
    federation.wait_connected(NODES)
