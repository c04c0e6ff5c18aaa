"""`covey data report` on a node's own machine, with what its node.toml says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from covey.methods.statistics.data_report import answered
from covey.testing.launch.forks import run_covey

WATCHED = """
from pathlib import Path

from covey.learning.tasks.digits import Digits


class Watched(Digits):
    def train_data(self, data):
        assert data.options == {"key": "s3cret"}
        assert b"s3cret" not in Path("/proc/self/cmdline").read_bytes()
        return super().train_data(data)
"""

pytestmark = [pytest.mark.processes, pytest.mark.timeout(120)]


def test_a_report_on_a_node(tmp_path: Path) -> None:
    (tmp_path / "node.toml").write_text('[policy]\nmin_k = 150\n[data.options]\nkey = "s3cret"\n')
    (tmp_path / "watched.py").write_text(WATCHED)
    task = {"name": "digits", "options": {"common": 400}}
    question = {"task": task, "paths": {}, "options": {}, "bins": 8, "min_k": 0, "shared": False, "against": None}
    (tmp_path / "before.json").write_text(json.dumps(answered(question)))
    arguments = ["data", "report", "--task", "watched:Watched", "--data-dir", tmp_path, "--shared", "--min-k", 5]
    done = run_covey([*arguments, "--bins", 8, "--against", tmp_path / "before.json"], folder=tmp_path, timeout_s=100)
    assert done.returncode == 0, done.stderr
    lines = {" ".join(line.split()) for line in done.stdout.splitlines()}
    assert "task watched:Watched: 1437 examples" in {line.replace(",", "") for line in lines}
    assert "shared with a run: 1,437 examples, and nothing of fewer than 150" in lines
    assert [line for line in lines if line.startswith("3 ") and "hidden" not in line] == ["3 150"]
    assert len([line for line in lines if line.endswith(" hidden")]) >= 4  # labels of fewer than 150
    assert len([line for line in lines if line.endswith(" little")]) == 2
    missing = run_covey(["data", "report", "--task", "digits", "--min-k", 5], folder=tmp_path, timeout_s=100)
    assert (missing.returncode, "give --shared as well" in missing.stderr) == (2, True)
