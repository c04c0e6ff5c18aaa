"""Methods on real daemons: the same model as in a simulation; kill -9 in the middle changes nothing."""

from __future__ import annotations

import functools
import json
import os
import textwrap
import tomllib
from contextlib import closing

import pytest
from safetensors import safe_open

from covey.client import connect
from covey.coordinator.config import sqlite_url
from covey.errors import CoveyError
from covey.plugins import installed
from covey.storage.sql.store import open_store
from covey.testing.federation import Federation
from covey.testing.launch.forks import run_covey
from covey.ui.outcomes import outcome_of
from tests.faults.chain import PATIENT, run_along
from tests.integration.specs import spec

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]
NODES, ROUNDS = 3, 5
KILLED_ROUNDS = 10
"""At most nine pass until every point was passed."""
TASKS = textwrap.dedent('''
    from torch import nn

    from covey.learning.tasks.digits import Digits


    class Normed(Digits):
        """Digits with batch normalization, and large enough that its files are streamed."""

        def model(self):
            return nn.Sequential(nn.Linear(64, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, 10))

        def eval_data(self, data):
            return self.central_data()


    class Wide(Normed):
        """A body as wide as the node's options say, larger than the head that is the same on all nodes."""

        def model(self):
            body = nn.Sequential(nn.Linear(64, self.options.hidden), nn.ReLU(), nn.Linear(self.options.hidden, 16))
            return nn.Sequential(body, nn.ReLU(), nn.Linear(16, 10))
''')
EQUAL = '[weights]\nby = "equal"'
METHODS = {
    "fedprox": '[method]\nname = "fedprox"\noptions = { mu = 0.5 }',
    "fedbn": '[method]\nname = "fedbn"',
    "fedgen": '[method]\nname = "fedgen"\noptions = { labels = "exact", steps = 10, ema = 0.5 }',
    "fedgen-once": '[method]\nname = "fedgen"\noptions = { labels = "exact", steps = 10, one_shot = true }',
    "fedgen-heads": '[method]\nname = "fedgen"\noptions = { labels = "exact", steps = 10 }\n'
    '[exchange]\nshare = ["2.*"]\n[task.nodes.n1]\nhidden = 96',
    "share": '[exchange]\nshare = ["2.*"]\n[task.nodes.n1]\nhidden = 96',
    "scaffold-some": f'[method]\nname = "scaffold"\n{EQUAL}',
    "lsgd": '[method]\nname = "lsgd"\noptions = { groups = 2, audit = true }',
    "codistill": '[method]\nname = "codistill"\noptions = { classes = 10 }',
    "memory": '[method]\nname = "memory"\noptions = { capacity = 3 }',
    "feddyn-some": f'[method]\nname = "feddyn"\n{EQUAL}',
    "scale-shift": '[method]\nname = "scale-shift"',
    "stablenet": '[method]\nname = "stablenet"\noptions = { steps = 2 }',
    "paws": '[method]\nname = "paws"\noptions = { labelled = 2, support = 2, bank = 2 }',
    "suncet": '[method]\nname = "suncet"\noptions = { labelled = 2, support = 2 }',
    "feddistill": '[method]\nname = "feddistill"',
    "feddistill-plus": '[method]\nname = "feddistill-plus"',
    "fedensemble": '[method]\nname = "fedensemble"',
    "fedgen-noisy": '[method]\nname = "fedgen"\noptions = { labels = "noisy", epsilon = 20, steps = 10 }',
    "statistics": '[method]\nname = "statistics"\noptions = { columns = ["pixel-mean"], labels = 10, min_k = 5 }',
}
BRIEF = {"feddistill", "feddistill-plus", "fedensemble", "memory", "scale-shift", "stablenet", "paws", "suncet"}
BRIEF |= {"statistics"}
"""Two rounds show what they add to plain averaging, and to tensors that are frozen."""
KEEPERS = ("share", "lsgd", "codistill", "fedgen", "memory", "feddyn-some", "paws")
"""Of methods that keep something on nodes, or at the coordinator beside the model."""
ONCE = {"fedgen-once"}
"""One upload, no further rounds."""
WIDE = {"share", "fedgen-heads"}
"""Nodes have bodies of their own; only heads travel."""
STEPS = {"codistill": "local_steps = 12"}
"""Predictions are for so many batches as all nodes train on."""
MEASURED = ("fedprox", "memory", "feddyn-some", "lsgd", "codistill", "share", "fedgen", "paws")
OF_PHASES = {
    "lsgd": ["after-phase:1", "method-plan:2:daemon", "method-finish:1:daemon"],
    "fedgen": ["method-finish:2:daemon"],
}
"""Further points of the coordinator."""


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
        policy = '[policy]\nallow_paths = ["method_tasks:Normed", "method_tasks:Wide"]\nlabel_counts = "exact"\n'
        policy += "representations = true\nmin_k = 5\n"
        for index in range(NODES):
            (made.node_dir(index) / "node.toml").write_text(policy)
            made.start_node(index)
        made.wait_connected(NODES)
        yield made


def text_of(method, name="", rounds=0):
    rounds = rounds or (1 if method in ONCE else 2 if method in BRIEF else ROUNDS)
    needed, policy = (2, "participants = 2\n") if method.endswith("some") else (NODES, "")
    return spec(
        name or method,
        task="method_tasks:Wide" if method in WIDE else "method_tasks:Normed",
        options="common = 200",
        rounds=rounds,
        min_nodes=needed,
        seed=7 + list(METHODS).index(method),  # a file that another run brought is not brought again
        training="drop_last = true\n" + STEPS.get(method, ""),
        policy=policy + PATIENT,
        extra='[data]\npartition = "dirichlet"\nalpha = 1.0\n' + METHODS[method],
    )


def files_of(folder, run):
    """What a run's newest version keeps beside the model: digests by name."""
    with closing(open_store(sqlite_url(folder))) as store:
        return {file.name: file.artifact.digest for file in store.version(run, -1).state}


@pytest.fixture(scope="module")
def real(federation):
    """Of each method what daemons come to, with nobody in their way."""
    return functools.cache(lambda method: federation.wait(federation.submit(text_of(method)), timeout_s=120))


@pytest.fixture(scope="module")
def simulated(tmp_path_factory, search):
    """Of each method what a simulation comes to."""

    @functools.cache
    def simulate(method, rounds=0):
        folder = tmp_path_factory.mktemp("simulated")
        (folder / "spec.toml").write_text(text_of(method, rounds=rounds))
        arguments = ["simulate", folder / "spec.toml", "--nodes", NODES, "--processes", 1, "--json"]
        arguments += ["--data-dir", folder / "simulation"]
        done = run_covey(arguments, env={**os.environ, "PYTHONPATH": search}, timeout_s=200)
        assert done.returncode == 0, done.stderr
        outcome = json.loads(done.stdout)
        return {**outcome, "folder": folder, "files": files_of(folder / "simulation", outcome["run"]["run"])}

    return simulate


@pytest.mark.parametrize("method", METHODS)
def test_the_model_is_that_of_a_simulation(federation, real, simulated, method):
    run, outcome = real(method), simulated(method)
    assert outcome["run"]["state"] == "completed"
    assert outcome["run"]["model_sha256"] == run["model_sha256"]
    assert outcome["run"]["metrics"] == run["metrics"]
    keys = ("round", "accepted", "rejected", "bytes_received", "bytes_sent")
    rounds = [{key: item[key] for key in keys} for item in federation.rounds(run["run"])]
    assert [{key: item[key] for key in keys} for item in outcome["rounds"]] == rounds
    assert outcome["files"] == files_of(federation.coordinator_dir, run["run"])


def test_every_method_of_covey_is_among_them():
    named = {tomllib.loads(text).get("method", {}).get("name", "none") for text in METHODS.values()}
    assert named == {plugin.name for plugin in installed("method")}


def test_the_figures_of_a_statistics_run_are_read_from_its_coordinator(federation, real, simulated):
    run = real("statistics")["run"]
    shown = json.loads(federation.cli("run", "statistics", run, "--json", "--data-dir", federation.coordinator_dir))
    pixels, labels = shown[0], shown[1:]
    assert (pixels["count"], pixels["nodes"], len(labels)) == (1237, NODES, 10)
    assert pixels["q0.5_least"] < pixels["mean"] < 0.32
    folder = simulated("statistics")["folder"] / "simulation"
    done = run_covey(["run", "show", "statistics", "--json", "--data-dir", folder], timeout_s=100)
    assert json.loads(done.stdout)["statistics"] == shown
    with connect(folder) as record:
        on_page = outcome_of(record, record.run("statistics"))
    assert (on_page["kind"], on_page["nodes"], on_page["examples"], on_page["records"]) == (
        "statistics",
        NODES,
        1237,
        shown,
    )


def test_only_what_a_method_needs_travels(simulated):
    """Bytes of the second round: all models up, those of two leaders, or predictions of 12 batches of 32 examples."""
    up, down = (
        {method: simulated(method)["rounds"][1][f"bytes_{way}"] for method in MEASURED} for way in ("received", "sent")
    )
    model, predictions, ids = up["fedprox"] / NODES, 12 * 32 * 10 * 4, 12 * 32 * 8
    assert up["memory"] == up["fedprox"]
    assert up["feddyn-some"] - 2 * model in (8, 16)  # two marks of 8 bytes, or one where they are alike
    assert up["lsgd"] == pytest.approx(2 * model, rel=0.01)
    assert up["share"] == NODES * 680
    assert up["fedgen"] == up["fedprox"]  # counts that the coordinator has already are not sent again
    bank = 10 * 2 * 512 * 4
    assert up["paws"] == pytest.approx(up["fedprox"] + NODES * bank, rel=0.01)
    assert down["paws"] == pytest.approx(down["fedprox"] + NODES * (NODES - 1) * bank, rel=0.01)
    assert up["codistill"] == pytest.approx(NODES * (predictions + ids), rel=0.01)
    # The ids of all nodes are the same file here, which each has once.
    assert down["codistill"] == pytest.approx(NODES * ((NODES - 1) * predictions + ids), rel=0.01)


def test_one_upload_is_enough_for_the_mean_the_ensemble_and_the_retrained_head(federation, real):
    run = real("fedgen-once")
    assert len(federation.rounds(run["run"])) == 1
    assert {"accuracy", "ensemble/accuracy", "retrained/accuracy"} <= set(run["metrics"])
    assert "method/retrained" in files_of(federation.coordinator_dir, run["run"])


def test_a_codistill_node_that_is_away_is_not_waited_for_and_comes_back(federation):
    """With a quorum the others go on without it: its old predictions match nothing, and its own model is as it was."""
    text = text_of("codistill", "late", 400).replace(f"min_nodes = {NODES}", "min_nodes = 2\nquorum = 0.6")
    run = federation.submit(text.replace(PATIENT, "rejoin_s = 1.0"))
    federation.wait_round(run, 2)
    federation.kill_node(2)
    federation.until(lambda: took_part(federation, run)[-3:] == [2] * 3, 120, "the others did not go on")
    federation.start_node(2)
    federation.until(lambda: took_part(federation, run)[-1] == NODES, 120, "it did not come back")
    federation.cli("run", "stop", run, "--data-dir", federation.coordinator_dir)
    assert sorted(set(took_part(federation, run))) == [2, NODES]
    names = {name for name in files_of(federation.coordinator_dir, run) if name.startswith("method/logits/")}
    assert len(names) == NODES  # of each node the newest, of whom is away too


def took_part(federation, run):
    """How many nodes' updates were accepted, round by round."""
    return [item["accepted"] for item in federation.rounds(run) if item["accepted"]]


def test_methods_come_to_models_of_their_own(simulated):
    models = [method for method in METHODS if method != "statistics"]
    assert len({simulated(method)["run"]["model_sha256"] for method in models}) == len(models)


def test_a_model_without_what_stays_local_is_evaluated_on_the_nodes_and_exported(federation, real, simulated, tmp_path):
    run = real("fedbn")
    assert set(run["metrics"]) == {"nodes/accuracy", "nodes/loss"}
    simulation = simulated("fedbn")
    stays = "local: 8,200 bytes in 1.weight, 1.bias, 1.num_batches_tracked, 1.running_mean, 1.running_var"
    travels = f"shared: 153,640 bytes in 0.weight, 0.bias, 3.weight, 3.bias; {stays}"
    for name, folder in ((run["run"], federation.coordinator_dir), ("fedbn", simulation["folder"] / "simulation")):
        path = tmp_path / f"{name}.safetensors"
        done = run_covey(["run", "export", name, "--to", path, "--json", "--data-dir", folder], timeout_s=100)
        with safe_open(path, "pt") as file:
            assert set(file.keys()) == {"0.weight", "0.bias", "3.weight", "3.bias"}
        assert (json.loads(done.stdout)["exchange"], done.stderr) == (
            travels,
            f"only what is shared is in the file; {travels}\n",
        )
    audit = federation.cli("run", "audit", run["run"], "--data-dir", federation.coordinator_dir)
    assert "every signature is valid" in audit


def test_an_unknown_method_is_refused_with_the_list(federation):
    text = text_of("fedbn").replace('name = "fedbn"', 'name = "fedavg"', 2)
    with pytest.raises(Exception, match=r"no method named 'fedavg'.*fedbn, .*fedprox, .*none, .*scaffold"):
        federation.admin.submit(text)


@pytest.mark.parametrize("method", KEEPERS)
def test_killed_daemons_go_on_with_what_they_keep(federation, simulated, method):
    """With tensors that are local, too; `scaffold`, and every point: tests/methods/test_crashes.py."""
    whole = simulated(method, KILLED_ROUNDS)
    run = run_along(
        federation,
        text_of(method, f"{method}-killed", KILLED_ROUNDS),
        coordinator=["before-commit:2", "after-commit:1", "aggregate:2", *OF_PHASES.get(method, ())],
        node=["trained:1", "journaled:1", "assigned:2"],
        options=["--allow-paths"],
    )
    assert run["model_sha256"] == whole["run"]["model_sha256"]
    assert run["metrics"] == whole["run"]["metrics"]
    assert files_of(federation.coordinator_dir, run["run"]) == whole["files"]


def labels_told(folder, run):
    """Of each node the digests of all counts of labels that it sent."""
    told = {}
    with closing(open_store(sqlite_url(folder))) as store:
        for number in range(1, ROUNDS + 1):
            for update in store.updates(run, number):
                (digest,) = [part.artifact.digest for part in update.parts if part.name == "labels"]
                told.setdefault(update.node, set()).add(digest)
    return told


def test_noise_on_counts_is_drawn_once_a_run_also_by_a_node_that_is_killed(federation, real):
    """That a simulation comes to the same model is shown above, with so little noise that it is none (4e-9 a count)."""
    seed = f"seed = {7 + list(METHODS).index('fedgen')}"
    text = text_of("fedgen-noisy", "noisy-killed").replace("epsilon = 20", "epsilon = 0.5")
    text = text.replace(f"seed = {7 + list(METHODS).index('fedgen-noisy')}", seed)
    run = run_along(federation, text, node=["journaled:1", "assigned:2", "trained:1"])["run"]
    exact, noisy = (labels_told(federation.coordinator_dir, item) for item in (real("fedgen")["run"], run))
    assert set(noisy) == set(exact) == set(federation.names)
    assert {len(digests) for digests in noisy.values()} == {1}
    assert not [node for node in exact if exact[node] == noisy[node]]  # 10 counts without noise: one in a million
    assert "every signature is valid" in federation.cli("run", "audit", run, "--data-dir", federation.coordinator_dir)


def test_a_node_declines_to_tell_more_of_its_labels_than_its_operator_allows(federation):
    federation.stop_node(0)
    settings = federation.node_dir(0) / "node.toml"
    allowed = settings.read_text()
    settings.write_text(allowed.replace("exact", "noisy"))
    federation.start_node(0)
    federation.wait_connected(NODES)
    run = federation.submit(text_of("fedgen", "declined", 1).replace(f"min_nodes = {NODES}", "min_nodes = 2"))
    federation.wait(run, timeout_s=120)
    where = ("--data-dir", federation.coordinator_dir)
    shown = federation.cli("round", "show", run, "1", *where)
    assert "[policy] label_counts in node.toml" in " ".join(shown.split())
    federation.stop_node(0)
    settings.write_text(allowed)
    federation.start_node(0)
    federation.wait_connected(NODES)


def test_what_stays_local_is_nowhere_else_and_a_node_that_lost_it_goes_on_and_the_centre_says_so(federation, tmp_path):
    # With another seed: other runs here had first models with the same values, and some weights are never moved.
    (tmp_path / "run.toml").write_text(text_of("share", "share-lost", 14).replace("seed = 7", "seed = 11"))
    done = run_covey(["run", "submit", tmp_path / "run.toml", "--data-dir", federation.coordinator_dir], timeout_s=100)
    stays = "local: 20,800 bytes in 0.0.weight, 0.0.bias, 0.2.weight, 0.2.bias"
    assert done.stderr.strip() == f"exchange: shared: 680 bytes in 2.weight, 2.bias; {stays}"
    run = done.stdout.strip()
    federation.wait_round(run, 3)
    federation.kill_node(0)
    state = federation.node_dir(0) / "state" / "carried.json"
    (kept,) = [item for item in json.loads(state.read_text())["runs"] if item["run"] == run]
    digests = {kept[key]["method/local"]["digest"] for key in ("own", "staged_own") if "method/local" in kept[key]}
    own = [path for path in federation.node_dir(0).rglob("*") if path.name in digests]
    assert {path.stat().st_size for path in own} == {4 * (65 * 64 + 65 * 16)}
    pieces = {data[at : at + 8] for data in (path.read_bytes() for path in own) for at in range(0, len(data), 404)}
    pieces -= {bytes(8)}
    others = [path for path in federation.coordinator_dir.rglob("*") if path.is_file()]
    assert len(pieces) > 40
    assert len(others) > 5
    for path in others:
        try:
            data = path.read_bytes()
        except FileNotFoundError:  # the run goes on
            continue
        assert not [piece for piece in pieces if piece in data], path
    state.unlink()
    federation.start_node(0)
    assert federation.wait(run, timeout_s=120)["state"] == "completed"
    where = ("--data-dir", federation.coordinator_dir)
    (notice,) = json.loads(federation.cli("run", "show", run, "--json", *where))["notices"]
    assert (notice["kind"], notice["round"] >= 2) == ("node-notice", True)
    assert "it began anew without that" in notice["reason"]
    assert f"warning: {notice['node']}, round {notice['round']}: what it kept" in federation.cli(
        "run", "show", run, *where
    )
    assert json.loads(federation.cli("run", "audit", run, "--json", *where))["ok"]


def test_models_that_never_leave_their_nodes_cannot_be_exported(federation, tmp_path):
    (tmp_path / "spec.toml").write_text(text_of("codistill", "kept", 2))
    where = ("--data-dir", federation.coordinator_dir)
    submitted = json.loads(federation.cli("run", "submit", tmp_path / "spec.toml", "--json", *where))
    assert "(logits, samples): of 3 nodes, a round takes 3 x 18432 = 55296 bytes up and 6 x" in submitted["reason"]
    run = federation.wait(submitted["run"], timeout_s=120)["run"]
    at = ("--to", tmp_path / "m", *where)
    with pytest.raises(CoveyError, match="the models of this run never leave their nodes"):
        federation.cli("run", "export", run, *at)
    with pytest.raises(CoveyError, match="has no file of 'n1'"):
        federation.cli("run", "export", run, "--node", "n1", *at)
    assert not (tmp_path / "m").exists()
