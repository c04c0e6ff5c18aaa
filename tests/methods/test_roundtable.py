"""No global model: the nodes' own models go from node to node, on real daemons that are killed, as in a simulation."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from covey.artifact import artifact_of_file
from covey.coordinator.config import sqlite_url
from covey.errors import CoveyError
from covey.storage.sql.store import open_store
from covey.testing.federation import Federation
from covey.testing.launch.forks import run_covey
from covey.wire.identities.signing import CommitStatement
from tests.faults.chain import PATIENT, run_along
from tests.integration.specs import spec

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]
NODES, ROUNDS = 3, 4
TASKS = '''
from torch import nn

from covey.learning.tasks.digits import Digits


class Evaluated(Digits):
    """Digits with data to evaluate on at the nodes, and large enough that its files are streamed."""

    def model(self):
        return nn.Sequential(nn.Linear(64, 512), nn.ReLU(), nn.Linear(512, 10))

    def eval_data(self, data):
        return self.central_data()
'''
Shas = list[tuple[str, dict[str, str]]]


def text_of(name: str, extra: str = "", rounds: int = ROUNDS) -> str:
    text = '[data]\npartition = "dirichlet"\nalpha = 1.0\n[method]\nname = "roundtable"\n[keep]\nupdates = 100\n'
    return spec(name, task="round_tasks:Evaluated", rounds=rounds, min_nodes=2, policy=PATIENT, extra=text + extra)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory, search: str) -> str:
    """A search path with the task, too."""
    folder = tmp_path_factory.mktemp("tasks")
    (folder / "round_tasks.py").write_text(TASKS)
    return os.pathsep.join([str(folder), search])


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory, path: str) -> Iterator[Federation]:
    with Federation(tmp_path_factory.mktemp("roundtable"), NODES, env={"PYTHONPATH": path}) as made:
        made.start_coordinator(options=["--allow-paths"])
        made.join()
        for index in range(NODES):
            (made.node_dir(index) / "node.toml").write_text('[policy]\nallow_paths = ["round_tasks:Evaluated"]\n')
            made.start_node(index)
        made.wait_connected(NODES)
        yield made


def shas_of(folder: Path, run: str) -> Shas:
    """Of each version: its model, and its files by name."""
    with closing(open_store(sqlite_url(folder))) as store:
        assert store.check() == []
        versions = store.versions(run)
        for version in versions[1:]:
            signed = CommitStatement.from_bytes(version.statement).state
            assert signed == tuple(file.artifact.digest for file in version.state)
        return [(v.model_sha256, {file.name: file.artifact.digest for file in v.state}) for v in versions]


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory, path: str) -> tuple[dict[str, float], Shas]:
    """What a simulation comes to: metrics and shas."""
    folder = tmp_path_factory.mktemp("simulated")
    (folder / "spec.toml").write_text(text_of("roundtable"))
    arguments = ["simulate", folder / "spec.toml", "--nodes", NODES, "--processes", 1, "--json"]
    arguments += ["--data-dir", folder / "simulation"]
    done = run_covey(arguments, env={**os.environ, "PYTHONPATH": path}, timeout_s=200)
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)["run"]
    return outcome["metrics"], shas_of(folder / "simulation", outcome["run"])


def test_every_file_is_that_of_a_simulation(federation: Federation, simulated: tuple[dict[str, float], Shas]) -> None:
    run = federation.wait(federation.submit(text_of("real")), timeout_s=120)
    metrics, shas = simulated
    assert shas_of(federation.coordinator_dir, run["run"]) == shas
    assert run["metrics"] == metrics
    assert set(metrics) == {"nodes/accuracy", "nodes/loss"}
    assert metrics["nodes/accuracy"] > 0.4
    audit = federation.cli("run", "audit", run["run"], "--data-dir", federation.coordinator_dir)
    assert "every signature is valid" in audit
    at = ("--allow-paths", "--data-dir", federation.coordinator_dir)
    assert f"all {ROUNDS} versions came out the same" in federation.cli("run", "replay", run["run"], *at)


def test_the_first_model_stays_and_every_member_is_another(simulated: tuple[dict[str, float], Shas]) -> None:
    _, shas = simulated
    assert len({model for model, _ in shas}) == 1
    names = {f"method/member/n{index}" for index in range(NODES)}
    assert [set(files) for _, files in shas] == [set(), *[names] * ROUNDS]
    digests = [digest for _, files in shas for digest in files.values()]
    assert len(set(digests)) == len(digests)


def test_daemons_that_are_killed(federation: Federation) -> None:
    undisturbed = federation.wait(federation.submit(text_of("undisturbed", rounds=14)), timeout_s=120)["run"]
    disturbed = run_along(
        federation,
        text_of("disturbed", rounds=14),
        coordinator=["aggregate:2", "before-commit:1", "after-commit:1", "update-recorded:2"],
        node=["trained:1", "journaled:1", "assigned:2", "node-download-chunk:3"],
        options=["--allow-paths"],
    )["run"]
    folder = federation.coordinator_dir
    assert shas_of(folder, disturbed) == shas_of(folder, undisturbed)


def test_what_needs_a_global_model_is_refused_in_words(federation: Federation) -> None:
    with pytest.raises(CoveyError, match=r'evaluation\.where: "?\'?roundtable.* has no global model that the coord'):
        federation.admin.submit(text_of("refused", '[evaluation]\nwhere = "central"\n'))
    with pytest.raises(CoveyError, match=r"aggregation\.name: 'roundtable' has no global model"):
        federation.admin.submit(text_of("refused", '[aggregation]\nname = "median"\n'))


def test_an_export_says_that_there_is_no_global_model_and_writes_a_member(
    federation: Federation, simulated: tuple[dict[str, float], Shas], tmp_path: Path
) -> None:
    run = federation.wait(federation.submit(text_of("exported")), timeout_s=120)["run"]
    at = ("--to", tmp_path / "member", "--data-dir", federation.coordinator_dir)
    with pytest.raises(CoveyError, match=r"no global model; name the node .* \(--node, one of n0, n1, n2\)"):
        federation.cli("run", "export", run, *at)
    assert not (tmp_path / "member").exists()
    federation.cli("run", "export", run, "--node", "n1", *at)
    assert artifact_of_file(tmp_path / "member").digest == simulated[1][-1][1]["method/member/n1"]
    with pytest.raises(CoveyError, match="has no file of 'n7', but of n0, n1, n2"):
        federation.cli("run", "export", run, "--node", "n7", *at)
