"""Sweeps of real simulations, whose workers are this process: interrupted, and taken up again."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from covey.cli.main import covey
from covey.client.connection import connect
from covey.client.sweeps.crews import Machines
from covey.client.sweeps.events import Decided, Failed, Measured
from covey.client.sweeps.machine import Work
from covey.client.sweeps.record import FILE, read_record
from covey.client.sweeps.results import read_results
from covey.client.sweeps.running import run_sweep, simulated
from covey.client.sweeps.simulated import SimulatedTrials
from covey.client.sweeps.sweep import read_sweep
from covey.client.values import Round, Run
from covey.errors import SpecError
from covey.worker.jobs.operations import EVALUATE, TRAIN
from tests.unit.simulation.in_process import CrewHere, Here

SWEEP = """
[specification]
name = "lr"
seed = 3
{spec}
[specification.task]
name = "digits"
[specification.training]
optimizer = "momentum"
batch_size = 128
local_epochs = 1
[specification.rounds]
count = {count}
min_nodes = 2
[sweep]
trials = {trials}
seeds = {seeds}
{more}
[sweep.space]
training.learning_rate = {{ log_uniform = [0.02, 2.0] }}
training.momentum = {{ choice = [0.0, 0.5] }}
"""
PLAIN = SWEEP.replace('optimizer = "momentum"\n', "").replace("training.momentum = {{ choice = [0.0, 0.5] }}\n", "")

NO_ROUNDS = PLAIN.replace("[specification.rounds]\ncount = {count}\nmin_nodes = 2\n", "")


@dataclass(frozen=True)
class MachinesHere(Machines):
    def crew(self, folder):
        return CrewHere(folder)


class Killed(BaseException):
    """The sweep ends here, as it would by a kill: nothing is written any more."""


def swept(tmp_path, trials=2, seeds=2, more="", count=3, spec="", text=SWEEP):
    path = tmp_path / "lr.toml"
    path.write_text(text.format(trials=trials, seeds=seeds, more=more, count=count, spec=spec))
    return read_sweep(path)


def run(sweep, folder, on_event=lambda event: None):
    return run_sweep(sweep, folder, *simulated(sweep, folder, MachinesHere(2)), on_event)


def lines_of(folder):
    """The record without the runs' ids, which are drawn."""
    lines = [json.loads(line) for line in (folder / FILE).read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "run"} for line in lines]


def test_a_sweep_that_is_killed_goes_on_and_comes_to_the_same(tmp_path, monkeypatch):
    """Halving; killed once before a rung and once in a run. No round is run twice: each run has each round once."""
    sweep, folder = (
        swept(tmp_path, more='prune = { method = "halving", rungs = [1], factor = 2 }'),
        tmp_path / "lr.sweep",
    )
    whole = run(sweep, tmp_path / "undisturbed")
    assert {trial.state for trial in whole.trials} == {"completed", "pruned"}

    def killed(event):
        if len(read_record(folder)[1]) in (2, 5):
            raise Killed

    for _ in range(2):
        with pytest.raises(Killed):
            run(sweep, folder, killed)
    again = run(sweep, folder)
    assert lines_of(folder) == lines_of(tmp_path / "undisturbed")
    assert again == whole == read_results(folder)
    best = whole.trials[0]
    assert (best.rounds, sorted(best.seeds), [at for at, _ in best.curve]) == (3, [3, 4], [1, 2, 3])
    with connect(folder / "runs" / f"{best.trial}-3") as record:
        assert [item.round for item in record.rounds(f"lr-{best.trial}-3")] == [1, 2, 3]
    _by_command(folder, whole, tmp_path, monkeypatch)


def test_a_kill_between_a_rungs_last_round_and_its_evaluation_loses_no_value(tmp_path, monkeypatch):
    sweep, folder = swept(tmp_path, 1, 1, 'prune = { method = "halving", rungs = [2] }'), tmp_path / "lr.sweep"
    evaluated, do = [], Here.do

    async def killed(self, operation, job):
        if operation is EVALUATE:
            evaluated.append(job)
            if len(evaluated) == 3:  # of the check, of the first round, of the second one
                raise KeyboardInterrupt
        return await do(self, operation, job)

    with monkeypatch.context() as patch:
        patch.setattr(Here, "do", killed)
        with pytest.raises(KeyboardInterrupt):
            run(sweep, folder)
    with connect(folder / "runs" / "0-3") as record:
        left = record.rounds("lr-0-3")
    assert [(item.state, bool(item.metrics)) for item in left] == [("committed", True), ("committed", False)]
    results = run(sweep, folder)
    measured = [event for event in read_record(folder)[1] if isinstance(event, Measured)]
    assert [[at for at, _ in event.curve] for event in measured] == [[1, 2], [3]]
    assert [trial.state for trial in results.trials] == ["completed"]


def _by_command(folder, results, tmp_path, monkeypatch):
    """The commands go on with it, where nothing is left to do, and look at it."""
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr("covey.client.sweeps.crews.Machines", MachinesHere)
    before = (folder / FILE).read_bytes()
    again = CliRunner().invoke(
        covey, ["sweep", "run", str(tmp_path / "lr.toml"), "--folder", str(folder), "--nodes", "2"]
    )
    assert (again.exit_code, (folder / FILE).read_bytes()) == (0, before)
    table = CliRunner().invoke(covey, ["sweep", "show", str(folder)])
    assert (table.exit_code, table.stdout) == (0, again.stdout)
    assert "2 of 2 trials with 2 seeds each" in table.stdout
    assert "LEARNING_RATE" in table.stdout
    listed = json.loads(CliRunner().invoke(covey, ["sweep", "show", str(folder), "--json"]).stdout)
    assert [item["trial"] for item in listed] == [trial.trial for trial in results.trials]
    rows = CliRunner().invoke(covey, ["sweep", "show", str(folder), "--csv"]).stdout.splitlines()
    assert len(rows) == 3
    assert "params.training.learning_rate" in rows[0]
    pytest.importorskip("matplotlib", reason="pictures are for those who have it")
    drawn = CliRunner().invoke(covey, ["sweep", "plot", str(folder), "--to", str(tmp_path / "lr.svg")])
    assert drawn.stdout.startswith("curves, training.learning_rate, training.momentum, written to ")
    assert (tmp_path / "lr.svg").read_bytes().startswith(b"<?xml")


def test_a_run_that_failed_beyond_a_rung_has_its_value_at_the_rung(tmp_path):
    """As one at a coordinator may, which goes on beyond it."""
    sweep = swept(tmp_path, 1, 1, 'prune = { method = "halving", rungs = [1] }')
    trials = SimulatedTrials(sweep, tmp_path, MachinesHere(2), is_new=False)
    failed = Run("id", "lr-0-3", "rounds", "failed", "nobody answers", rounds=3, rounds_committed=2)
    rounds = [Round(at, "committed", version=at, metrics={"accuracy": at / 4}) for at in (1, 2)]
    at_rung, at_end = (trials.outcome(Work(rung, 0, 3, {}), failed, rounds) for rung in (0, 1))
    assert at_rung == Measured(0, 0, 3, 1, 0.25, ((1, 0.25),), "id")
    assert at_end == Failed(0, 1, 3, "run id is failed: nobody answers")


def test_trials_at_a_time_come_to_what_they_come_to_one_after_the_other(tmp_path):
    """Each in a thread of its own where it touches its record, with a crew of its own."""
    alone, beside = (run(swept(tmp_path, 4, 1, f"concurrency = {count}", 1), tmp_path / str(count)) for count in (1, 3))
    assert beside == alone
    assert {trial.state for trial in beside.trials} == {"completed"}


def test_what_nodes_keep_goes_on_with_a_paused_run_and_with_a_killed_one(tmp_path, monkeypatch):
    """Scaffold's control variates: paused after a round, and killed while a node trains in the last one."""
    trained, do = [], Here.do

    async def killed(self, operation, job):
        if operation is TRAIN:
            trained.append(job)
            if len(trained) == 2 + 2 * 3:  # two nodes: of the check, and of three rounds
                raise KeyboardInterrupt
        return await do(self, operation, job)

    models = []
    for name, more in (("whole", ""), ("paused", 'prune = { method = "halving", rungs = [1] }')):
        sweep = swept(tmp_path, 1, 1, more, 3, 'method.name = "scaffold"', PLAIN)
        if more:
            with monkeypatch.context() as patch:
                patch.setattr(Here, "do", killed)
                with pytest.raises(KeyboardInterrupt):
                    run(sweep, tmp_path / name)
        results = run(sweep, tmp_path / name)
        with connect(tmp_path / name / "runs" / "0-3") as record:
            models.append((record.run("lr-0-3").model_sha256, results.trials[0].value))
        assert not (tmp_path / name / "runs" / "0-3" / "nodes").exists()
    assert len(trained) == 2 + 2 * 3
    assert models[0] == models[1]


@pytest.mark.parametrize(
    ("rule", "versions"),
    [('name = "staleness-mean"', [1, 2, 3, 4]), ('name = "buffered"\naggregation.options.k = 2', [1, 2])],
    ids=["staleness-mean", "buffered"],  # of which one update makes no version
)
def test_asynchronous_runs_are_measured_in_updates(tmp_path, rule, versions):
    asynchronous = f'mode = "async"\naggregation.{rule}\nasync.updates = 4'
    sweep = swept(tmp_path, 2, 1, "concurrency = 2", spec=asynchronous, text=NO_ROUNDS)
    results = run(sweep, tmp_path / "lr.sweep")
    assert [(trial.state, trial.rounds, trial.why) for trial in results.trials] == [("completed", 4, "4 updates")] * 2
    assert (results.unit, [at for at, _ in results.trials[0].curve]) == ("updates", versions)


def test_members_of_a_population_of_gossip_runs_go_on_with_others_consensus_models(tmp_path):
    gossip, population = 'mode = "gossip"\ngossip.steps = 2', 'prune = { method = "population", every = 1 }'
    sweep, folder, events = swept(tmp_path, 4, 1, population, spec=gossip, text=NO_ROUNDS), tmp_path / "p.sweep", []
    with pytest.raises(Killed):
        run(sweep, folder, killed_after(5))
    results = run(sweep, folder, events.append)
    assert [(trial.state, trial.why) for trial in results.trials] == [("completed", "2 steps")] * 4
    replaced = next(event for event in events if isinstance(event, Decided) and event.decision == "replaced")
    first = load_file(folder / "runs" / f"{replaced.trial}-3" / "g1" / "first.safetensors")
    other = load_file(folder / "runs" / f"{replaced.source}-3" / "g0" / "mean.safetensors")
    assert all(torch.equal(first[name], other[name]) for name in other)
    own = load_file(folder / "runs" / f"{replaced.trial}-3" / "g0" / "mean.safetensors")
    assert not all(torch.equal(first[name], own[name]) for name in own)
    assert run(sweep, folder) == read_results(folder) == results


def killed_after(count):
    """Ends the sweep at its so manieth event."""
    left = iter(range(count - 1))

    def on_event(event):
        if next(left, None) is None:
            raise Killed

    return on_event


def test_members_of_a_population_go_on_with_others_models(tmp_path):
    sweep, folder = swept(tmp_path, 4, 1, 'prune = { method = "population", every = 1 }', 2), tmp_path / "p.sweep"
    events = []
    results = run(sweep, folder, events.append)
    assert [trial.state for trial in results.trials] == ["completed"] * 4
    replaced = next(event for event in events if isinstance(event, Decided) and event.decision == "replaced")
    assert replaced.params is not None
    begun = next(
        event
        for event in events
        if isinstance(event, Measured) and (event.trial, event.rung) == (replaced.trial, replaced.rung + 1)
    )
    with (
        connect(folder / "runs" / f"{replaced.trial}-3") as record,
        connect(folder / "runs" / f"{replaced.source}-3") as other,
    ):
        spec = record.run(begun.run).spec
        assert spec["training"]["learning_rate"] == replaced.params["training.learning_rate"]
        assert (
            record.version(begun.run, 0).model_sha256
            == other.version(f"lr-{replaced.source}-3-g{replaced.rung}").model_sha256
        )
    assert [at for at, _ in results.trials[0].curve] == [1, 2]


def test_a_metric_that_no_evaluation_gives_is_refused_before_the_first_trial(tmp_path):
    folder = tmp_path / "lr.sweep"
    with pytest.raises(SpecError, match="no evaluation gives a metric 'acuracy'; there are: accuracy, loss"):
        run(swept(tmp_path, more='metric = "acuracy"'), folder)
    assert read_record(folder)[1] == []
    assert not (folder / "check").exists()
    right = swept(tmp_path, 1, 1, 'metric = "loss"', 1)  # nothing was decided: the folder may be used again
    assert run(right, folder).trials[0].state == "completed"
