"""A task of one's own: written by `covey init`, taken all the way by `covey task check`, and what goes wrong in it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from covey.testing.launch.forks import run_covey

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]


def covey(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return run_covey(arguments, folder=folder, timeout_s=110)


@pytest.fixture
def tumours(tmp_path: Path) -> Path:
    done = covey(tmp_path, "init", "tumours")
    assert done.returncode == 0, done.stderr
    return tmp_path / "tumours"


def edit(folder: Path, old: str, new: str) -> None:
    text = (folder / "tumours.py").read_text()
    assert old in text
    (folder / "tumours.py").write_text(text.replace(old, new))


def test_what_init_writes_works_in_every_way_that_it_names(tumours: Path) -> None:
    checked = covey(tumours, "task", "check", "--spec", "run.toml", "--data", "table=tumours.csv")
    assert checked.returncode == 0, checked.stderr
    lines = [line.split(":")[0] for line in checked.stdout.splitlines()]
    assert lines == [
        "ok    model",
        "ok    batch",
        "ok    round",
        "ok    evaluation on the node",
        "ok    evaluation on the coordinator",
    ]
    assert "114 parameters in 4 tensors" in checked.stdout
    simulated = covey(tumours, "simulate", "run.toml", "--nodes", 2, "--path", "table=tumours.csv", "--json")
    assert json.loads(simulated.stdout)["run"]["state"] == "completed"
    suite = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_tumours.py"]
    tested = subprocess.run(suite, cwd=tumours, capture_output=True, text=True, timeout=110)
    assert tested.returncode == 0, tested.stdout


def test_init_overwrites_nothing_and_wants_a_name_of_a_module(tumours: Path) -> None:
    (tumours / "tumours.py").write_text("mine")
    again = covey(tumours.parent, "init", "tumours")
    assert (again.returncode, again.stderr[:6]) == (1, "error:")
    assert "has tumours.py, tumours.csv" in again.stderr
    assert (tumours / "tumours.py").read_text() == "mine"
    for name in ("9lives", "class", "a.b"):
        refused = covey(tumours.parent, "init", "other", "--name", name)
        assert (refused.returncode, "cannot be a Python module's name" in refused.stderr) == (1, True)
    assert not (tumours.parent / "other").exists()


def test_what_the_task_raises_is_shown_with_its_place(tumours: Path) -> None:
    edit(tumours, 'data.paths["table"]', 'data.paths["tabel"]')
    done = covey(tumours, "task", "check", "tumours:Tumours", "--data", "table=tumours.csv")
    assert done.returncode == 1
    assert "--data tabel=FILE" in done.stderr + done.stdout
    assert done.stdout.splitlines()[-1].startswith("FAIL")


def test_what_trains_nothing_or_has_no_metric_is_named(tumours: Path) -> None:
    edit(
        tumours,
        "    def eval_data",
        """    def evaluate(self, model, batch):
        raise ValueError("no metric today")

    def fit(self, model, data, settings):
        from covey.learning.task import FitResult

        return FitResult(examples=1, steps=1, metrics={})

    def eval_data""",
    )
    done = covey(tumours, "task", "check", "tumours:Tumours", "--data", "table=tumours.csv", "--json")
    assert done.returncode == 1
    findings = {finding["what"]: finding for finding in json.loads(done.stdout)}
    assert not findings["round"]["ok"]
    assert "training left the model as it was" in findings["round"]["text"]
    assert not findings["evaluation on the node"]["ok"]
    assert "no metric today" in findings["evaluation on the node"]["text"]


def test_options_are_given_and_checked(tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="the digits are scikit-learn's")
    done = covey(tmp_path, "task", "check", "digits", "--option", "hidden=3", "--json")
    model, *_, on_node, _ = json.loads(done.stdout)
    assert model == {"what": "model", "ok": True, "text": "235 parameters in 4 tensors"}
    assert (on_node["ok"], on_node["text"]) == (True, "none: the task has no such data")
    (tmp_path / "nodes.toml").write_text('name = "r"\n[task]\nname = "digits"\n[evaluation]\nwhere = "nodes"\n')
    asked = covey(tmp_path, "task", "check", "--spec", "nodes.toml")
    assert (asked.returncode, "and the run asks nodes to evaluate" in asked.stdout) == (1, True)
    wrong = covey(tmp_path, "task", "check", "digits", "--option", "hiden=3")
    assert (wrong.returncode, "hiden" in wrong.stdout + wrong.stderr) == (1, True)
    for arguments, told in (
        ((), "name the task"),
        (("digits", "--option", "hidden"), "write KEY=VALUE"),
        (("digits", "--data", "table"), "--data 'table': write NAME=PATH"),
    ):
        refused = covey(tmp_path, "task", "check", *arguments)
        assert (refused.returncode, told in refused.stderr) == (2, True)
