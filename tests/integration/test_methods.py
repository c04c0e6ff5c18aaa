"""Methods on real daemons: the same model as in a simulation; kill -9 in the middle changes nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap

import pytest
from safetensors import safe_open

from covey.testing.federation import Federation
from tests.integration.specs import spec

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]
NODES, ROUNDS = 3, 5
TASKS = textwrap.dedent('''
    from torch import nn

    from covey.learning.tasks.digits import Digits


    class Normed(Digits):
        """Digits with batch normalization, and large enough that its files are streamed."""

        def model(self):
            return nn.Sequential(nn.Linear(64, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, 10))

        def eval_data(self, data):
            return self.central_data()
''')
EQUAL = '[weights]\nby = "equal"'
METHODS = {
    "fedprox": '[method]\nname = "fedprox"\noptions = { mu = 0.5 }',
    "fedbn": '[method]\nname = "fedbn"',
    "scaffold": f'[method]\nname = "scaffold"\n{EQUAL}',
    "scaffold-some": f'[method]\nname = "scaffold"\n{EQUAL}',
}


@pytest.fixture(scope="module")
def search(tmp_path_factory):
    """A search path with the task."""
    folder = tmp_path_factory.mktemp("tasks")
    (folder / "method_tasks.py").write_text(TASKS)
    return os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])


@pytest.fixture(scope="module")
def federation(tmp_path_factory, search):
    with Federation(tmp_path_factory.mktemp("methods"), NODES, env={"PYTHONPATH": search}) as made:
        made.start_coordinator(options=["--allow-paths"])
        made.join()
        for index in range(NODES):
            (made.node_dir(index) / "node.toml").write_text('[policy]\nallow_paths = ["method_tasks:Normed"]\n')
            made.start_node(index)
        made.wait_connected(NODES)
        yield made


def text_of(method, name=""):
    policy = "participants = 2" if method.endswith("some") else ""
    needed = 2 if policy else NODES
    return spec(
        name or method,
        task="method_tasks:Normed",
        rounds=ROUNDS,
        min_nodes=needed,
        policy=policy,
        extra='[data]\npartition = "dirichlet"\nalpha = 1.0\n' + METHODS[method],
    )


@pytest.fixture(scope="module")
def simulated(tmp_path_factory, search):
    """Of each method what a simulation comes to."""
    known = {}

    def simulate(method):
        if method not in known:
            folder = tmp_path_factory.mktemp("simulated")
            (folder / "spec.toml").write_text(text_of(method))
            command = [
                sys.executable,
                "-m",
                "covey.cli.main",
                "simulate",
                folder / "spec.toml",
                "--nodes",
                NODES,
                "--json",
            ]
            command += ["--data-dir", folder / "simulation"]
            environment = {**os.environ, "PYTHONPATH": search}
            done = subprocess.run(
                list(map(str, command)), capture_output=True, text=True, timeout=200, env=environment, check=False
            )
            assert done.returncode == 0, done.stderr
            known[method] = json.loads(done.stdout)
        return known[method]

    return simulate


@pytest.mark.parametrize("method", METHODS)
def test_the_model_is_that_of_a_simulation(federation, simulated, method):
    real, outcome = federation.wait(federation.submit(text_of(method)), timeout_s=120), simulated(method)
    assert outcome["run"]["state"] == "completed"
    assert outcome["run"]["model_sha256"] == real["model_sha256"]
    assert outcome["run"]["metrics"] == real["metrics"]
    keys = ("round", "accepted", "rejected", "bytes_received", "bytes_sent")
    rounds = [{key: item[key] for key in keys} for item in federation.rounds(real["run"])]
    assert [{key: item[key] for key in keys} for item in outcome["rounds"]] == rounds


def test_methods_come_to_models_of_their_own(simulated):
    assert len({simulated(method)["run"]["model_sha256"] for method in METHODS}) == len(METHODS)


def test_a_model_without_what_stays_local_is_evaluated_on_the_nodes_and_exported(federation, tmp_path):
    run = federation.wait(federation.submit(text_of("fedbn", "exported")), timeout_s=120)
    assert set(run["metrics"]) == {"nodes/accuracy", "nodes/loss"}
    path = tmp_path / "model.safetensors"
    federation.cli("run", "export", run["run"], "--to", path, "--data-dir", federation.coordinator_dir)
    with safe_open(path, "pt") as file:
        assert set(file.keys()) == {"0.weight", "0.bias", "3.weight", "3.bias"}
    audit = federation.cli("run", "audit", run["run"], "--data-dir", federation.coordinator_dir)
    assert "every signature is valid" in audit


def test_an_unknown_method_is_refused_with_the_list(federation):
    text = text_of("fedbn").replace('name = "fedbn"', 'name = "fedavg"', 2)
    with pytest.raises(Exception, match=r"no method named 'fedavg'.*fedbn, fedprox, none, scaffold"):
        federation.admin.submit(text)


@pytest.mark.parametrize("method", ["scaffold", "fedbn"])
@pytest.mark.parametrize("point", ["trained:2", "journaled:2", "assigned:3"])
def test_a_node_that_is_killed_goes_on_with_what_it_keeps(federation, simulated, method, point):
    federation.stop_node(1)
    federation.start_node(1, env={"COVEY_FAULTS": point})
    federation.wait_connected(NODES)
    run = federation.submit(text_of(method, f"{method}-{point.replace(':', '-')}"))
    assert federation.node(1).wait(90) == -9
    federation.start_node(1)
    assert federation.wait(run, timeout_s=120)["model_sha256"] == simulated(method)["run"]["model_sha256"]


@pytest.mark.parametrize("method", ["scaffold-some", "fedbn"])
@pytest.mark.parametrize("point", ["before-commit:2", "after-commit:2", "aggregate:3"])
def test_a_coordinator_that_is_killed_goes_on_with_what_it_keeps(federation, simulated, method, point):
    federation.stop_coordinator()
    federation.start_coordinator(env={"COVEY_FAULTS": point}, options=["--allow-paths"])
    federation.wait_connected(NODES)
    run = federation.submit(text_of(method, f"{method}-{point.replace(':', '-')}"))
    assert federation.coordinator.wait(90) == -9
    federation.start_coordinator(options=["--allow-paths"])
    assert federation.wait(run, timeout_s=120)["model_sha256"] == simulated(method)["run"]["model_sha256"]


def test_a_worker_that_is_killed_when_the_method_has_finished_a_round_finishes_it_the_same_again(federation, simulated):
    federation.stop_coordinator()
    federation.start_coordinator(env={"COVEY_FAULTS": "method-finish:2"}, options=["--allow-paths"])
    federation.wait_connected(NODES)
    run = federation.submit(text_of("scaffold", "method-finish"))
    assert federation.wait(run, timeout_s=120)["model_sha256"] == simulated("scaffold")["run"]["model_sha256"]
    assert "the worker died" in federation.coordinator.log.read_text()
