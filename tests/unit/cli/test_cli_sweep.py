"""`covey sweep`: what is refused before anything begins."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from covey.cli.main import covey

SWEEP = """
[specification]
name = "x"
[specification.task]
name = "digits"
[sweep]
trials = 3
[sweep.space]
training.learning_rate = { uniform = [0.1, 1.0] }
"""


@pytest.mark.parametrize(
    ("options", "code", "text"),
    [
        ((), 2, "say which coordinator: --data-dir DIR"),
        (("--nodes", "3", "--data-dir", "x"), 2, "--nodes simulates the runs, and a coordinator has nodes of its own"),
        (("--data-dir", "x", "--path", "a=b"), 2, "--path is of simulated runs"),
        (("--data-dir", "x", "--device", "cuda"), 2, "--device is of simulated runs"),
        (("--nodes", "3"), 1, "sweep.colour: unknown key"),
    ],
)
def test_what_does_not_go_together_is_said_and_leaves_nothing(tmp_path, monkeypatch, options, code, text):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COVEY_HOME", raising=False)
    file = tmp_path / "lr.toml"
    file.write_text(SWEEP if code == 2 else SWEEP.replace("trials", "colour = 1\ntrials"))
    done = CliRunner().invoke(covey, ["sweep", "run", str(file), *options])
    assert done.exit_code == code
    assert text in done.stderr
    assert list(tmp_path.iterdir()) == [file]


def test_a_folder_without_a_sweep_is_said(tmp_path):
    done = CliRunner().invoke(covey, ["sweep", "show", str(tmp_path)])
    assert done.exit_code == 1
    assert "has no record of a sweep" in done.stderr
