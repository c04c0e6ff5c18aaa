"""A sweep whose runs a coordinator takes care of: real daemons, which go on while nobody runs the sweep."""

from __future__ import annotations

import pytest

import covey
from covey.client.sweeps.events import Asked, Decided, Measured
from covey.client.sweeps.record import read_record
from covey.errors import Conflict, SpecError

pytestmark = pytest.mark.processes
SWEEP = """
[specification]
name = "{name}"
seed = 3
[specification.task]
name = "digits"
[specification.training]
batch_size = 256
local_epochs = 1
[specification.rounds]
count = {count}
min_nodes = 2
[sweep]
{more}
[sweep.space]
training.learning_rate = {{ log_uniform = [0.02, 2.0] }}
"""


ASYNCHRONOUS = {
    "specification": {
        "name": "a",
        "mode": "async",
        "task": {"name": "digits"},
        "aggregation": {"name": "staleness-mean"},
        "async": {"updates": 6},
    },
    "sweep": {"trials": 1, "space": {"training.learning_rate": {"uniform": [0.1, 0.2]}}},
}
HALVING = """trials = 2
seeds = 2
prune = { method = "halving", rungs = [1] }
"""


class Killed(BaseException):
    """The sweep ends here, as it would by a kill."""


def test_a_sweep_at_a_coordinator_finds_its_runs_again_and_stops_those_that_it_gives_up(tmp_path):
    def swept(folder, name="lr", more=HALVING, count=20, on_event=lambda event: None):
        text = SWEEP.format(name=name, more=more, count=count)
        return covey.sweep(text, client=federation, folder=tmp_path / folder, on_event=on_event).results

    def killed(event):
        if isinstance(event, Measured):
            raise Killed

    with covey.local(nodes=2) as federation:
        with pytest.raises(Killed):
            swept("killed", on_event=killed)
        results = swept("killed")
        by_number = {trial.trial: trial for trial in results.trials}
        runs = {run.name: run for run in federation.runs()}
        assert set(runs) == {"lr-0-3", "lr-0-4", "lr-1-3", "lr-1-4"}  # each was submitted once
        assert by_number[0].state == "completed"
        assert {runs["lr-0-3"].state, runs["lr-0-4"].state} == {"completed"}
        for seed in (3, 4):
            trial, run = by_number[0], runs[f"lr-0-{seed}"]
            assert trial.seeds[seed] == run.metrics()[-1]["accuracy"]
            assert trial.params["training.learning_rate"] == run.spec["training"]["learning_rate"]
            assert run.spec["seed"] == seed
        assert (by_number[1].state, by_number[1].rounds) == ("pruned", 1)
        assert {runs[name].wait().state for name in ("lr-1-3", "lr-1-4")} == {"stopped"}
        asked = [event for event in read_record(tmp_path / "killed")[1] if isinstance(event, Asked)]
        assert [event.trial for event in asked] == [0, 1]
        with pytest.raises(Conflict, match="a run lr-0-3 exists: another sweep had this name"):
            swept("other")
        with pytest.raises(SpecError, match="no evaluation gives a metric 'acuracy'; there are: accuracy, loss"):
            swept("wrong", "wrong", f'{HALVING}metric = "acuracy"', count=100_000)
        assert {run.name: run.wait().state for run in federation.runs() if run.name.startswith("wrong")} == {
            "wrong-0-3": "stopped",
            "wrong-0-4": "stopped",
        }
        _begins_with_the_better_ones_model(federation, swept)
        _asynchronous(federation, tmp_path / "async")


def _asynchronous(federation, folder):
    done = covey.sweep(ASYNCHRONOUS, client=federation, folder=folder)
    (trial,) = done.trials()
    run = federation.run("a-0-0")
    assert (trial.state, trial.why, run.spec["mode"]) == ("completed", "6 updates", "async")
    assert trial.value == run.metrics()[-1]["accuracy"]


def _begins_with_the_better_ones_model(federation, swept):
    """A population: who is replaced goes on in a run that has the other one's as its parent."""
    events = []
    results = swept(
        "population", "p", 'trials = 4\nprune = { method = "population", every = 1 }', 2, on_event=events.append
    )
    assert [trial.state for trial in results.trials] == ["completed"] * 4
    replaced = next(event for event in events if isinstance(event, Decided) and event.decision == "replaced")
    assert replaced.params is not None
    runs = {run.name: run for run in federation.runs()}
    source, begun = runs[f"p-{replaced.source}-3-g0"], runs[f"p-{replaced.trial}-3-g1"]
    assert begun.value.parent == f"{source.id}@1"
    assert begun.spec["training"]["learning_rate"] == replaced.params["training.learning_rate"]
