"""A simulated run that `[stop]` ends has the model that it had after that round; and what cannot work is refused."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from covey.cli.main import covey
from covey.client import connect
from covey.client.experiments.simulated import simulate
from covey.client.models.best import best_version
from covey.client.models.continuing import continuation
from covey.errors import Conflict, NotFound, SpecError
from covey.library.run import FederatedRun
from covey.testing.launch.forks import forked_workers
from tests.integration.specs import async_spec, spec

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]
pytest.importorskip("sklearn", reason="the digits are scikit-learn's")
KEEP = "[keep]\nupdates = 99\nversions = 99\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The record of a run of three rounds."""
    folder = tmp_path_factory.mktemp("stopping") / "record"
    with forked_workers():
        simulate(spec("whole", rounds=3, extra=KEEP), 2, data_dir=folder, processes=1)
    return folder


def test_it_ends_with_the_version_that_is_good_enough(folder):
    with connect(folder) as record:
        curve = [record.version("whole", number).metrics["accuracy"] for number in (1, 2)]
    ends, extra = 1 + curve.index(max(curve)), f"{KEEP}[stop]\ntarget = {max(curve)}\n"
    with forked_workers():
        run = simulate(spec("stopped", rounds=3, extra=extra), 2, data_dir=folder, processes=1).run
    with connect(folder) as record:
        assert (run.state, run.rounds_committed) == ("completed", ends)
        assert run.model_sha256 == record.version("whole", ends).model_sha256
        assert "[stop] target" in run.reason
        assert record.audit(run).ok
        assert record.replay(run).ok


def test_an_asynchronous_run_needs_central_data_for_it(folder):
    text = async_spec(extra="[stop]\ntarget = 0.5\n").replace("[evaluation]\n", '[evaluation]\nwhere = "nodes"\n')
    with forked_workers(), pytest.raises(SpecError, match=r"stop\.target: nodes evaluate the last version only"):
        simulate(text, 2, data_dir=folder, processes=1)


def command(folder, *arguments):
    return CliRunner().invoke(covey, ["run", *map(str, arguments), "--data-dir", str(folder)])


def test_the_best_version_by_a_metric(folder, tmp_path):
    with connect(folder) as record:
        measured = {number: record.version("whole", number).metrics for number in (1, 2, 3)}
        for metric, choose in (("accuracy", max), ("loss", min)):
            value = choose(metrics[metric] for metrics in measured.values())
            version, best = best_version(record, "whole", metric)
            assert (measured[version.version][metric], best) == (value, value)
        lowest, _ = best_version(record, "whole", "accuracy", lowest=True)
        assert measured[lowest.version]["accuracy"] == min(metrics["accuracy"] for metrics in measured.values())
        with pytest.raises(NotFound, match=r"no version was evaluated by 'f1'; the run's metrics are: .*accuracy"):
            best_version(record, "whole", "f1")
        model = FederatedRun(record, record.run("whole")).model(best="loss")
    path = tmp_path / "best.safetensors"
    done = command(folder, "export", "whole", "--to", path, "--best", "loss")
    assert re.match(r"version \d, the best by loss \([0-9.]+\), \d+ bytes", done.stdout)
    assert all(torch.equal(model[name], values) for name, values in load_file(path).items())
    wrong = command(folder, "export", "whole", "--to", path, "--best", "loss", "--version", "2")
    assert (wrong.exit_code, "give one of the two" in wrong.stderr) == (2, True)


def test_a_best_version_that_is_not_kept_is_said(folder):
    extra = '[keep]\nversions = 1\n[evaluation]\nmetric = "loss"\ngoal = "max"\n'
    with forked_workers():
        simulate(spec("forgetful", rounds=3, extra=extra), 2, data_dir=folder, processes=1)
    with connect(folder) as record:
        kept = [number for number in range(4) if record.version("forgetful", number).kept]
        assert len(kept) == 2  # the newest, and the one that [evaluation] metric names
        losses = {number: record.version("forgetful", number).metrics["loss"] for number in (1, 2, 3)}
        lowest = min(losses, key=lambda number: losses[number])
        if lowest in kept:
            assert best_version(record, "forgetful", "loss")[0].version == lowest
        else:
            with pytest.raises(NotFound, match="its file is not kept any more; the best one that is kept"):
                best_version(record, "forgetful", "loss")
        highest, _ = best_version(record, "forgetful", "accuracy", lowest=True)
        assert highest.kept


def test_a_run_is_continued_with_its_parent_on_record(folder):
    with connect(folder) as record:
        parent = record.run("whole")
        text = continuation(parent, 1, version=2)
        assert (text["rounds"]["count"], text["seed"]) == (1, parent.spec["seed"])
        changed = continuation(parent, changed=async_spec("whole-async", updates=4))
        assert (changed["mode"], changed["async"]["updates"]) == ("async", 4)
        with pytest.raises(SpecError, match="leave it out"):
            continuation(parent, changed=spec("x", extra='[model]\ninitial = "run:other"'))
        with pytest.raises(Conflict, match="stop it first"):
            continuation(replace(parent, state="running"), 1)
        first = record.version("whole", 2)
    with forked_workers():
        run = simulate(text, 2, data_dir=folder, processes=1).run
    assert (run.parent, run.rounds_committed, run.name) == (f"{parent.run}@2", 1, "whole")
    with connect(folder) as record:
        assert record.version(run, 0).model_sha256 == first.model_sha256
    assert f"{parent.run}@2" in command(folder, "show", run.run).stdout
    assert f"{parent.run}@2" in command(folder, "list").stdout
    assert json.loads(command(folder, "list", "--json").stdout)[0]["parent"] == f"{parent.run}@2"
