"""What is said of a SWEEP.toml that cannot work, before the first trial."""

from __future__ import annotations

from pathlib import Path

import pytest

from covey.client.sweeps.sweep import read_sweep
from covey.errors import NotFound, SpecError

BASE = (
    '[specification]\nname = "x"\nseed = 7\n[specification.task]\nname = "digits"\n[specification.rounds]\ncount = 9\n'
)
HALVING = '{ method = "halving" }'
LR = "training.learning_rate = { log_uniform = [0.01, 1.0] }"


def swept(folder: Path, section: str = "trials = 3", space: str = LR, base: str = BASE):
    path = folder / "sweep.toml"
    path.write_text(f"{base}[sweep]\n{section}\n[sweep.space]\n{space}\n")
    return read_sweep(path)


def test_seeds_rungs_and_names(tmp_path):
    sweep = swept(tmp_path, 'trials = 3\nseeds = 2\nprune = { method = "halving", factor = 2 }')
    assert (sweep.seeds, sweep.rungs, sweep.metric, sweep.highest) == ((7, 8), (1, 2, 4, 8, 9), "accuracy", True)
    spec = sweep.run_spec({"training.learning_rate": 0.5}, 8, sweep.run_name(2, 8, 1), 1)
    assert (spec["name"], spec["seed"], spec["training"]["learning_rate"]) == ("x-2-8", 8, 0.5)
    assert spec["rounds"]["count"] == 9
    assert not swept(tmp_path, 'trials = 3\nmetric = "loss"').highest
    sweep = swept(tmp_path, 'trials = 4\nname = "p"\nprune = { method = "population", every = 4 }')
    assert [sweep.run_spec({}, 7, "p", rung)["rounds"]["count"] for rung in range(3)] == [4, 4, 1]
    assert sweep.run_name(2, 7, 1) == "p-2-7-g1"


def test_a_specification_of_its_own_and_all_ways_to_write_a_key(tmp_path):
    (tmp_path / "specs").mkdir()
    (tmp_path / "begin.safetensors").touch()
    (tmp_path / "specs" / "x.toml").write_text(
        'name = "x"\n[task]\nname = "digits"\n[model]\ninitial = "begin.safetensors"\n'
    )
    space = 'training.batch_size = { choice = [16, 32] }\n"task.options.hidden" = { int = [8, 9] }'
    sweep = swept(tmp_path, 'method = "grid"', space, 'specification = "specs/x.toml"\n')
    assert list(sweep.section.space) == ["training.batch_size", "task.options.hidden"]
    assert sweep.base["model"]["initial"] == str(tmp_path / "specs" / "begin.safetensors")
    assert sweep.machine().plan.trials == 4
    with pytest.raises(NotFound, match=r"none\.toml cannot be read"):
        swept(tmp_path, base='specification = "none.toml"\n')


@pytest.mark.parametrize(
    ("section", "space", "text"),
    [
        ("trials = 3", "", "sweep.space"),
        ("trials = 3", "training.learning_rat = { uniform = [0.1, 1.0] }", "did you mean 'learning_rate'"),
        ("trials = 3", "training.batch_size = { int = [0, 8] }", "with training.batch_size = 0: training.batch_size"),
        ("trials = 3", "training.batch_size = { choice = [] }", "choice"),
        ("trials = 3", "training.learning_rate = { uniform = [1.0, 0.1] }", "the first is to be less than the second"),
        ("trials = 3", "training.learning_rate = { log_uniform = [0.0, 0.1] }", "greater than 0"),
        ("trials = 3", "training.learning_rate = { uniform = [0.1, 1.0], choice = [1.0] }", "exactly one of choice"),
        ("trials = 3", "seed = { int = [1, 3] }", "seed cannot be varied; write sweep.seeds"),
        ('method = "grid"', LR, "a grid needs values that can be counted"),
        ("", LR, 'method = "random" needs their number'),
        ('method = "grid"', "training.batch_size = { int = [1, 1000000000000000000000] }", "more than 10000 points"),
        ("trials = 3\nseeds = [1, -1]", LR, "its run x-2--1, with seed -1: seed"),
        (f"trials = 3\nprune = {HALVING}", "stop.time_s = { uniform = [5, 9] }", "its time goes on meanwhile"),
        (f"trials = 3\nprune = {HALVING}", "evaluation.every = { choice = [1, 2] }", "each rung is to be evaluated"),
        ('method = "magic"\ntrials = 3', LR, "sweep.method"),
        ("trials = 3\nseeds = [1, 1]", LR, "each seed once"),
        ("trials = 3\ncolour = 1", LR, "unknown key"),
        ('trials = 3\nprune = { method = "halving", rungs = [3, 9] }', LR, "end before the run's last round"),
        ('trials = 3\nprune = { method = "halving" }', "rounds.count = { int = [3, 9] }", "rungs are counted in it"),
        ('trials = 3\nmetric = "nodes/loss"\nprune = { method = "halving" }', LR, "known at a run's end only"),
        ('trials = 3\nprune = { method = "population", every = 2 }', LR, "at least 4 members"),
        ('trials = 9\nmethod = "tpe"\nprune = { method = "population", every = 2 }', LR, 'write "random"'),
    ],
)
def test_what_cannot_work_is_said(tmp_path, section, space, text):
    with pytest.raises(SpecError) as error:
        swept(tmp_path, section, space)
    assert text in str(error.value)


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ("[specification.evaluation]\nevery = 0\n", "evaluation.every: 0 evaluates no version"),
        ("[specification.evaluation]\nevery = 2\n", "round 1 is a rung, and only every 2th round is evaluated"),
        ("[specification.stop]\ntime_s = 60\n", "its time goes on meanwhile"),
    ],
)
def test_a_specification_that_gives_no_values_is_refused(tmp_path, more, text):
    with pytest.raises(SpecError, match=text):
        swept(tmp_path, 'trials = 3\nprune = { method = "halving" }', base=BASE + more)


def test_the_longest_name_of_a_run_is_checked(tmp_path):
    base = BASE.replace('"x"', f'"{"x" * 96}"')
    assert swept(tmp_path, "trials = 10", base=base).run_name(9, 7, 0).endswith("x-9-7")
    with pytest.raises(SpecError, match=r"its run x+-10-7, with seed 7: name"):
        swept(tmp_path, "trials = 11", base=base)


@pytest.mark.parametrize(
    ("mode", "text"),
    [
        ("gossip", "has its value at its end only: nobody can give it up at a rung"),
        ("async", "how many versions come of them is not known before"),
    ],
)
def test_runs_without_rounds_have_no_rungs(tmp_path, mode, text):
    base = f'[specification]\nname = "x"\nmode = "{mode}"\n[specification.task]\nname = "digits"\n'
    swept(tmp_path, base=base)
    with pytest.raises(SpecError, match=text):
        swept(tmp_path, 'trials = 3\nprune = { method = "halving" }', base=base)


def test_edges_of_a_gossip_run_may_be_in_a_file(tmp_path):
    (tmp_path / "edges.txt").write_text("n0 n1\nn1 n0\n")
    (tmp_path / "x.toml").write_text(
        'name = "x"\nmode = "gossip"\n[task]\nname = "digits"\n[gossip.topology]\nname = "file"\n'
        'options.edges = "edges.txt"\n'
    )
    sweep = swept(tmp_path, base='specification = "x.toml"\n')
    assert sweep.base["gossip"]["topology"]["options"]["edges"] == [["n0", "n1"], ["n1", "n0"]]
