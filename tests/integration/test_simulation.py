"""A simulation comes to the model of a federation of real processes, bit for bit; and it ends as it should."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from covey.coordinator.config import DATABASE
from covey.testing.federation import Federation
from covey.testing.launch.forks import run_covey
from tests.integration.specs import async_spec, spec

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]
NODES = 5

SIGNS = 'payload = "delta"\ncodec = "sto-sign"'
METHODS = {
    "mean": "",
    "mean-dropping-nodes": "",
    "krum": '[aggregation]\nname = "krum"\n[aggregation.options]\nf = 1',
    "majority-vote": f'[exchange]\n{SIGNS}\n[aggregation]\nname = "majority-vote"\n[weights]\nby = "equal"',
    "qsgd": '[exchange]\ncodec = "qsgd"',
    "momentum": "[exchange]\nworker_momentum = 0.5",
    "top-k": '[exchange]\ncodec = "top-k"',
    "large": "",
}
METHODS["large-votes"] = METHODS["majority-vote"]
LARGE = {"task": "synthetic", "options": "parameters = 1000000"}
"""Files that do not come along with messages, so that downloads and uploads are counted."""


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    with Federation(tmp_path_factory.mktemp("federation"), nodes=NODES) as made:
        yield made.start()


def text_of(method):
    policy = "participants = 3" if method == "mean-dropping-nodes" else ""
    needed, task = 3 if policy else NODES, LARGE if method.startswith("large") else {}
    return spec(name=method, rounds=4, min_nodes=needed, policy=policy, extra=METHODS[method], **task)


def command(tmp_path, text, *options):
    path = tmp_path / "spec.toml"
    path.write_text(text)
    where = ["--data-dir", tmp_path / "simulation"]
    return [sys.executable, "-m", "covey.cli.main", "simulate", *map(str, (path, *where, *options))]


def simulated(tmp_path, text, *options, processes=1, code=0):
    line = command(tmp_path, text, *options, "--processes", processes, "--json")
    done = run_covey(line[3:], timeout_s=200)
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout) if done.stdout else done.stderr


@pytest.mark.parametrize("method", METHODS)
def test_the_model_is_that_of_real_daemons(federation, tmp_path, method):
    real = federation.wait(federation.submit(text_of(method)), timeout_s=60)
    outcome = simulated(tmp_path, text_of(method), "--nodes", NODES)
    assert outcome["run"]["state"] == "completed"
    assert outcome["run"]["model_sha256"] == real["model_sha256"]
    assert outcome["run"]["metrics"] == real["metrics"]
    keys = ("round", "accepted", "rejected", "invited", "bytes_received", "bytes_sent")
    rounds = [{key: item[key] for key in keys} for item in federation.rounds(real["run"])]
    assert [{key: item[key] for key in keys} for item in outcome["rounds"]] == rounds


def test_one_process_and_three_give_the_same_model(tmp_path):
    models = set()
    for processes in (1, 3):
        folder = tmp_path / str(processes)
        folder.mkdir()
        outcome = simulated(folder, text_of("mean"), "--nodes", 7, processes=processes)
        models.add(outcome["run"]["model_sha256"])
    assert len(models) == 1


def test_the_record_can_be_inspected_afterwards(tmp_path):
    outcome = simulated(tmp_path, text_of("mean"), "--nodes", NODES, "--attack", "sign-flip=1", "--attack", "nan=1")
    where = ["--data-dir", outcome["data_dir"]]

    def covey(*arguments):
        done = run_covey([*arguments, *where])
        assert done.returncode == 0, done.stderr
        return done.stdout

    run = outcome["run"]["run"]
    assert json.loads(covey("run", "show", run, "--json"))["model_sha256"] == outcome["run"]["model_sha256"]
    assert json.loads(covey("round", "list", run, "--json")) == outcome["rounds"]
    audit = covey("run", "audit", run)
    assert "every signature is valid" in audit
    assert "note:" not in audit  # the seals cover all of it
    drills = {node["node"]: node["drill"] for node in json.loads(covey("node", "list", "--json"))}
    assert drills == {"n0": "", "n1": "", "n2": "", "n3": "sign-flip", "n4": "nan"}
    updates = json.loads(covey("round", "show", run, 1, "--json"))["updates"]
    assert [(u["node"], u["verdict"]) for u in updates][-1] == ("n4", "rejected")
    covey("run", "export", run, "--to", tmp_path / "model.safetensors")
    assert (tmp_path / "model.safetensors").stat().st_size > 4 * (64 * 64 + 64 * 10)
    with contextlib.closing(sqlite3.connect(Path(outcome["data_dir"]) / DATABASE)) as record, record:
        record.execute("UPDATE assignments SET weight = 7 WHERE node = 'n0' AND group_number = 1")
    done = run_covey(["run", "audit", run, *where])
    assert done.returncode == 1
    assert "round 1, update of n0: weight is 7" in done.stdout + done.stderr


def test_a_run_whose_updates_are_clipped_around_a_centre_passes_its_audit(tmp_path):
    text = spec(name="clipped", extra='[aggregation]\nname = "centered-clip"\noptions = { tau = 0.01 }')
    outcome = simulated(tmp_path, text, "--nodes", NODES)
    where, run = ["--data-dir", outcome["data_dir"]], outcome["run"]["run"]

    def covey(*arguments):
        done = run_covey([*arguments, *where])
        assert done.returncode == 0, done.stderr
        return done.stdout

    rounds = [json.loads(covey("round", "show", run, str(number), "--json"))["updates"] for number in (1, 2, 3)]
    assert all(update["numbers"]["factor"] < 1 for updates in rounds for update in updates)
    assert all(sum(update["share"] for update in updates) < 0.99 for updates in rounds)
    assert "every signature is valid" in covey("run", "audit", run)


def test_omniscient_adversaries_know_every_honest_vector(tmp_path):
    # ALIE with z = 0 sends the mean of the honest vectors; so does the rule with such adversaries, up to rounding.
    text = spec(name="alie", rounds=1, min_nodes=6, extra='[weights]\nby = "equal"\n[keep]\nupdates = 1')
    outcome = simulated(tmp_path, text, "--nodes", 6, "--attack", "alie=2", "--attack-option", "alie.z=0")
    parts = sent_parts(outcome)
    honest = [parts[f"n{k}"] for k in range(4)]
    for node in ("n4", "n5"):
        for column in range(0, len(honest[0]), 97):
            mean = sum(vector[column] for vector in honest) / 4
            assert parts[node][column] == pytest.approx(mean, rel=1e-4, abs=1e-7)


def sent_parts(outcome):
    """What each node sent in round 1, as lists of numbers."""
    import pathlib

    import numpy as np

    from covey.coordinator.config import sqlite_url
    from covey.storage.sql.store import open_store

    folder = pathlib.Path(outcome["data_dir"])
    store = open_store(sqlite_url(folder))
    try:
        updates = store.updates(outcome["run"]["run"], 1)
    finally:
        store.close()
    files = {update.node: folder / "files" / "artifacts" / update.parts[0].artifact.digest for update in updates}
    return {node: np.fromfile(path, dtype="<f4").astype(float).tolist() for node, path in files.items()}


def test_an_asynchronous_simulation_is_repeatable(tmp_path):
    text = async_spec(updates=40)
    models = []
    for number, processes in enumerate((1, 3)):
        folder = tmp_path / str(number)
        folder.mkdir()
        options = ("--nodes", 5, "--staleness", "normal:4,2")
        models.append(simulated(folder, text, *options, processes=processes)["run"]["model_sha256"])
    assert models[0] == models[1]


def test_too_few_nodes_are_refused_at_once(tmp_path):
    error = simulated(tmp_path, spec(min_nodes=9), "--nodes", 4, code=1)
    assert "min_nodes = 9" in error
    assert "--nodes is 4" in error
    assert not (tmp_path / "simulation").exists()


def test_a_run_that_no_node_can_do_ends_with_the_reason(tmp_path):
    text = spec(name="cut", extra="[data]\nparts = 100000")
    outcome = run_covey(command(tmp_path, text, "--nodes", 3)[3:], timeout_s=100)
    assert outcome.returncode == 1
    assert "1437 examples cannot be cut into 100000 parts" in outcome.stderr


def test_an_interrupted_simulation_stops_cleanly(tmp_path):
    line = command(tmp_path, spec(name="long", rounds=100000, min_nodes=2), "--nodes", 4)
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        wait_for_a_round(process)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, errors
    run = json.loads(run_covey(["run", "show", "long", "--json", "--data-dir", tmp_path / "simulation"]).stdout)
    assert (run["state"], run["reason"]) == ("stopped", "interrupted")
    assert run["rounds_committed"] >= 1
    assert not (tmp_path / "simulation" / "workers").exists()
    assert not workers_of(tmp_path / "simulation")


def test_a_killed_worker_changes_nothing(tmp_path):
    text, folder = spec(name="killed", rounds=15, min_nodes=4), tmp_path / "killed"
    folder.mkdir()
    line = command(folder, text, "--nodes", 4, "--processes", 2, "--json")
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        wait_for_a_round(process)
        os.kill(next(_mentioning(str(folder / "simulation" / "workers" / "0"))), signal.SIGKILL)
        output, errors = process.communicate(timeout=100)
    finally:
        process.kill()
    assert process.returncode == 0, errors
    expected = simulated(tmp_path, text, "--nodes", 4)["run"]["model_sha256"]
    assert json.loads(output)["run"]["model_sha256"] == expected


def wait_for_a_round(process):
    for line in process.stderr:
        if "rounds" in line:
            return
    raise AssertionError(f"the simulation ended by itself with {process.wait()}")


def workers_of(folder, patience_s=10.0):
    """Living processes that were started for a folder."""
    give_up_at = time.monotonic() + patience_s
    while (found := list(_mentioning(str(folder)))) and time.monotonic() < give_up_at:
        time.sleep(0.1)
    return found


def _mentioning(text):
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                if text.encode() in file.read():
                    yield int(pid)
        except OSError:
            continue
