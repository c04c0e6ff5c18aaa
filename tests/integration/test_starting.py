"""Runs that begin with a model there is: simulated, among peers, and on daemons, one of which is killed meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from covey.client import connect
from covey.client.experiments import gossip
from covey.client.experiments.simulated import simulate
from covey.errors import CoveyError, LimitExceeded
from covey.library.run import FederatedRun
from covey.testing.federation import Federation
from covey.testing.gossip import GossipNodes
from covey.testing.launch.forks import forked_workers
from tests.integration.specs import spec

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]
pytest.importorskip("sklearn", reason="the digits are scikit-learn's")
NODES = 2
GOSSIP = """
name = "peers"
mode = "gossip"
seed = 11
[task]
name = "digits"
[training]
learning_rate = 1e-30
local_steps = 1
[gossip]
steps = 2
min_nodes = 2
"""


def begun_with(initial: str | Path, name: str = "child", *, rounds: int = 1, seed: int = 11) -> str:
    """Another seed: the model is not what it would draw."""
    return spec(name, rounds=rounds, seed=seed, extra=f'[model]\ninitial = "{initial}"\n[keep]\nupdates = 9')


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """The folder of a simulation's record: two rounds of digits."""
    folder = tmp_path_factory.mktemp("simulated") / "record"
    with forked_workers():
        simulate(spec(rounds=2), NODES, data_dir=folder, processes=1)
    return folder


@pytest.fixture(scope="module")
def model(simulated, tmp_path_factory):
    """Its model as a file."""
    path = tmp_path_factory.mktemp("model") / "begin.safetensors"
    with connect(simulated) as record:
        record.export("digits", path)
    return path


def test_a_simulation_begins_with_a_file_or_with_a_version(simulated, model):
    with connect(simulated) as record:
        parent = record.version("digits")
    for initial, of in ((model, None), ("run:digits@2", parent), ("run:digits@best", None)):
        with forked_workers():
            run = simulate(begun_with(initial), NODES, data_dir=simulated, processes=1).run
        with connect(simulated) as record:
            first = record.version(run, 0)
            assert (first.model_sha256, first.digest) == (parent.model_sha256, parent.digest)
            assert run.spec["model"]["initial"] == f"sha256:{first.digest}"
            assert run.spec["model"].get("parent", "").endswith("@2") == (initial is not model)
            assert record.audit(run).ok
            if of is not None:
                assert record.replay(run).ok
                newest = record.version(run).model_sha256
                assert newest != parent.model_sha256


def test_peers_begin_with_a_file(model, tmp_path):
    (tmp_path / "begin.safetensors").write_bytes(model.read_bytes())
    text = GOSSIP + '[model]\ninitial = "begin.safetensors"\n'
    (tmp_path / "spec.toml").write_text(text)
    with forked_workers():
        plan = gossip.gossip_plan(tmp_path / "spec.toml", NODES, data_dir=tmp_path / "data", processes=1)
        outcome = gossip.simulate(plan)
    again, first = load_file(tmp_path / "data" / gossip.MEAN), load_file(model)
    assert all(torch.equal(again[name], values) for name, values in first.items())
    assert outcome.mass.is_exact
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "begin.safetensors").write_bytes(model.read_bytes())
    with GossipNodes(tmp_path / "real", text, NODES) as nodes:
        nodes.start_all()
        nodes.wait()
        assert nodes.models() == [peer.model_sha256 for peer in outcome.peers]


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    with Federation(tmp_path_factory.mktemp("federation"), nodes=NODES) as made:
        yield made.start()


def scratch(federation: Federation) -> list[Path]:
    files = federation.coordinator_dir / "files"
    return [path for name in ("scratch", "spool") for path in (files / name).iterdir()]


def test_a_model_comes_with_the_submission(federation, model, tmp_path):
    with connect(federation.coordinator_dir) as record:
        run = record.submit(begun_with(model)).run
        federation.wait(run, timeout_s=120)
        record.export(run, tmp_path / "first.safetensors", version=0)
        assert record.audit(run).ok
    first, given = load_file(tmp_path / "first.safetensors"), load_file(model)
    assert all(torch.equal(first[name], values) for name, values in given.items())
    assert scratch(federation) == []
    child = federation.cli("run", "continue", "child", "--rounds", 2, "--data-dir", federation.coordinator_dir).strip()
    assert federation.wait(child, timeout_s=120)["parent"] == f"{run}@1"
    with connect(federation.coordinator_dir) as record:
        further = FederatedRun(record, record.run(child)).continue_(1).wait()
        assert (further.value.parent, further.state) == (f"{child}@2", "completed")


def test_what_does_not_fit_or_is_not_what_was_announced_leaves_nothing(federation, model, tmp_path):
    runs = len(federation.ask(lambda admin: admin.runs()))
    wrong, huge = load_file(model), tmp_path / "huge.safetensors"
    name = min(wrong)
    wrong["other"] = wrong.pop(name)
    save_file(wrong, tmp_path / "wrong.safetensors")
    save_file({"a": torch.zeros(30 << 20, dtype=torch.uint8)}, huge)
    with connect(federation.coordinator_dir) as record:
        with pytest.raises(CoveyError, match=f"missing: '{name}'.*unexpected: 'other'"):
            record.submit(begun_with(tmp_path / "wrong.safetensors"))
        with pytest.raises(LimitExceeded, match="announced"):
            record.submit(begun_with(huge))
    assert len(federation.ask(lambda admin: admin.runs())) == runs
    assert scratch(federation) == []


@pytest.mark.parametrize(("point", "is_there"), [("before-submission", False), ("after-submission", True)])
def test_a_coordinator_that_is_killed_has_the_run_with_its_model_or_neither(federation, model, point, is_there):
    federation.stop_coordinator()
    killed = federation.start_coordinator(env={"COVEY_FAULTS": point})
    with connect(federation.coordinator_dir) as record, pytest.raises(CoveyError):
        record.submit(begun_with(model, point))
    assert killed.wait(60) == -9
    federation.start_coordinator()
    runs = [run for run in federation.ask(lambda admin: admin.runs()) if run["name"] == point]
    assert len(runs) == is_there
    for run in runs:
        assert federation.wait(run["run"], timeout_s=120)["state"] == "completed"
    assert scratch(federation) == []
