"""A simulated run that `[stop]` ends has the model that it had after that round; and what cannot work is refused."""

from __future__ import annotations

import pytest

from covey.client import connect
from covey.client.experiments.simulated import simulate
from covey.errors import SpecError
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


@pytest.mark.parametrize("where", ["central", "nodes"])
def test_it_ends_with_the_version_that_is_good_enough(folder, where):
    central = where == "central"
    with connect(folder) as record:
        curve = [record.version("whole", number).metrics["accuracy"] for number in (1, 2)]
    target = max(curve) if central else 0.0
    ends = 1 + curve.index(target) if central else 2  # nodes measure version 1 in round 2
    extra = f'{KEEP}[stop]\ntarget = {target}\n[evaluation]\nwhere = "{where}"\n'
    with forked_workers():
        run = simulate(spec(where, rounds=3, extra=extra), 2, data_dir=folder, processes=1).run
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
