"""A whole federation from Python: started here, trained, followed, exported, audited, replayed."""

from __future__ import annotations

import itertools
import os

import pytest
from safetensors import safe_open

from covey.client import connect, local
from covey.client.errors import DaemonFailed, Unreachable
from covey.errors import NotFound, SpecError
from covey.testing.launch.processes import wait_until

pytestmark = pytest.mark.processes
pytest.importorskip("sklearn", reason="the digits are scikit-learn's")
DIGITS = {
    "name": "digits",
    "seed": 7,
    "task": {"name": "digits"},
    "training": {"learning_rate": 0.1, "batch_size": 32},
    "rounds": {"count": 3, "min_nodes": 2},
}
ASYNC = """
name = "one-by-one"
mode = "async"
seed = 7
[task]
name = "digits"
[training]
learning_rate = 0.5
batch_size = 64
local_steps = 1
[exchange]
payload = "gradient"
[aggregation]
name = "staleness-mean"
[keep]
updates = 100000
[async]
updates = 12
min_nodes = 2
"""


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    with local(2, folder=tmp_path_factory.mktemp("local") / "federation") as machine:
        yield machine


@pytest.fixture(scope="module")
def federation(machine):
    with machine.connect() as federation:
        yield federation


@pytest.fixture(scope="module")
def digits(federation):
    """A run that was submitted and followed to its end: the run, and every change."""
    run = federation.submit(DIGITS)
    changes = list(federation.watch(run))
    return federation.run(run), changes


def test_a_run_is_followed_to_its_end(digits):
    run, changes = digits
    assert (run.state, run.done, run.whole, run.unit) == ("completed", 3, 3, "rounds")
    assert changes[-1].run == run
    ended = {item.round: item.state for change in changes for item in change.rounds}
    assert ended == {1: "committed", 2: "committed", 3: "committed"}
    assert {node.node for change in changes for node in change.nodes} == {"node-1", "node-2"}


def test_only_what_changed_is_told(digits):
    _, changes = digits
    for number in (1, 2, 3):
        told = [item for change in changes for item in change.rounds if item.round == number]
        assert all(before != after for before, after in itertools.pairwise(told))


def test_its_rounds_are_the_record(federation, digits):
    run, _ = digits
    rounds = federation.rounds(run)
    assert [(item.round, item.accepted, item.version) for item in rounds] == [(1, 2, 1), (2, 2, 2), (3, 2, 3)]
    assert federation.rounds(run, newest=True, limit=1) == rounds[-1:]
    assert rounds[-1].metrics["accuracy"] > 0.5
    detail = federation.round(run, 3)
    assert {update.node: update.verdict for update in detail.updates} == {"node-1": "accepted", "node-2": "accepted"}
    assert detail.version.model_sha256 == run.model_sha256


def test_its_model_is_exported_and_loads(federation, digits, tmp_path):
    run, _ = digits
    best = federation.export(run, tmp_path / "digits.safetensors", version="best")
    assert os.path.getsize(tmp_path / "digits.safetensors") == best.bytes
    with safe_open(tmp_path / "digits.safetensors", framework="numpy") as file:
        assert list(file.keys())
    with pytest.raises(NotFound):
        federation.export(run, tmp_path / "no.safetensors", version=99)


def test_its_audit_finds_every_signature_valid(federation, digits):
    run, _ = digits
    report = federation.audit(run)
    assert (report.ok, report.commits, report.updates) == (True, 3, 6)


def test_an_asynchronous_run_is_audited_and_replayed(federation):
    run = federation.submit(ASYNC)
    *_, last = federation.watch(run)
    assert (last.run.state, last.run.done, last.run.unit) == ("completed", 12, "updates")
    assert federation.audit(run).ok
    report = federation.replay(run)
    assert (report.ok, report.decisions, report.model_sha256) == (True, 12, last.run.model_sha256)


def test_a_run_that_waits_is_stopped(federation):
    run = federation.submit({**DIGITS, "name": "waits", "rounds": {"count": 3, "min_nodes": 3}})
    assert federation.stop(run).state == "stopped"
    assert [change.run.state for change in federation.watch("waits")] == ["stopped"]


def test_what_the_coordinator_refuses_is_an_error(federation):
    with pytest.raises(SpecError, match=r"task\.options\.hiden"):
        federation.submit({**DIGITS, "task": {"name": "digits", "options": {"hiden": 3}}})


def test_its_nodes_and_its_coordinator(federation, machine):
    assert [node.node for node in federation.nodes()] == ["node-1", "node-2"]
    assert (federation.status().state, federation.pause().state, federation.resume().state) == (
        "running",
        "paused",
        "running",
    )
    assert federation.status().federation == federation.identity.federation
    assert "enrolled" in {event.kind for event in federation.events(node="node-1")}
    machine.check()


def test_when_it_has_ended_the_record_is_read_from_its_folder(tmp_path):
    folder = tmp_path / "kept"
    with local(1, folder=folder) as machine, machine.connect() as federation:
        run = federation.submit({**DIGITS, "rounds": {"count": 1, "min_nodes": 1}})
        *_, last = federation.watch(run)
        nodes = [node.node for node in federation.nodes()]
    with connect(machine.data_dir) as record:
        assert record.run("digits") == last.run
        assert [node.node for node in record.nodes()] == nodes == ["node-1"]
        assert record.audit("digits").ok
        with pytest.raises(Unreachable, match="no coordinator is running"):
            record.stop("digits")


def test_a_federation_begins_with_its_nodes(federation):
    assert federation.status().nodes_connected == 2


@pytest.mark.parametrize("more", [{"server": "h:7400", "identity": "i"}, {"server": "h:7400"}, {"identity": "i"}])
def test_arguments_that_contradict_each_other_are_refused(more, tmp_path):
    with pytest.raises(ValueError, match="give one of the two"):
        connect(data_dir=tmp_path, **more)


def test_a_daemon_that_died_is_said_and_without_a_folder_nothing_stays():
    with local(0) as machine:
        assert machine.data_dir.is_dir()
        daemon = machine.daemons.start("help", ["--help"], machine.logs / "help.log")
        assert wait_until(lambda: daemon.process.poll() is not None, 30)
        with pytest.raises(DaemonFailed, match="help ended with exit code 0"):
            machine.check()
    assert not machine.folder.exists()
